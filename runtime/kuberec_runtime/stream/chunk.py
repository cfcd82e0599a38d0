"""Decoded messages that wait to be cut into batches, and the arithmetic of positions inside them."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from kuberec_runtime.stream.source import Position

I64 = NDArray[np.int64]


@dataclass
class Chunk:
    """Samples of some messages in order.

    Attributes:
        table: the samples, n rows.
        partition: int64[m], partition of each message.
        offset: int64[m], offset of each message.
        rows: int64[m], samples of each message that are in `table`.
        before: int64[m], samples of each message that were consumed before (a resume inside a message).
        bad: bool[m] or int64[m], records that are passed over with each message: one that did not parse is one, and a
            message without rows may stand for many that the broker deleted.
        taken: rows of `table` handed out so far; messages: messages fully handed out so far.
    """

    table: pa.Table
    partition: I64
    offset: I64
    rows: I64
    before: I64
    bad: NDArray[np.bool_] | I64
    taken: int = 0
    messages: int = 0

    @property
    def left(self) -> int:
        """Rows not handed out yet."""
        return int(self.table.num_rows) - self.taken

    def take(self, limit: int) -> "Taken":
        """Hands out the next rows, at most `limit`, with the positions after them.

        Messages without rows (bad records) count as handed out as soon as everything before them is.
        """
        stop = min(self.taken + limit, int(self.table.num_rows))
        ends = np.cumsum(self.rows)
        full = int(np.searchsorted(ends, stop, side="right"))
        positions: dict[int, Position] = {}
        samples: dict[int, int] = {}
        skipped: dict[int, int] = {}
        for m in range(self.messages, full):
            partition = int(self.partition[m])
            positions[partition] = Position(int(self.offset[m]) + 1)
            if self.bad[m]:
                skipped[partition] = skipped.get(partition, 0) + int(self.bad[m])
        start_of = np.concatenate(([0], ends))
        for partition in np.unique(self.partition[self.messages : full + 1]):
            of = self.partition == partition
            got = np.minimum(ends[of], stop) - np.maximum(start_of[:-1][of], self.taken)
            count = int(np.maximum(got, 0).sum())
            if count:
                samples[int(partition)] = count
        if full < len(self.offset) and (inside := stop - int(start_of[full])) > 0:
            positions[int(self.partition[full])] = Position(int(self.offset[full]), int(self.before[full]) + inside)
        table = self.table.slice(self.taken, stop - self.taken)
        self.taken, self.messages = stop, full
        return Taken(table, positions, samples, skipped)

    @property
    def empty(self) -> bool:
        """True when every row and every message has been handed out."""
        return self.messages == len(self.offset)


@dataclass(frozen=True)
class Taken:
    """A piece of a chunk: see `Batch` for the fields."""

    table: pa.Table
    positions: Mapping[int, Position]
    samples: Mapping[int, int]
    skipped: Mapping[int, int]
