"""Decoded pieces of units that wait to be cut into batches, and the arithmetic of rows inside them. Pure.

A unit is a partition with one message: `Position(0, row)` is inside it, `Position(1)` behind it. Rows are counted as
they stand in the file, bad ones included, so a position means the same whatever the policy for bad records is.
"""

from collections import deque
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from kuberec_runtime.stream.source import Batch, Position

I64 = NDArray[np.int64]


@dataclass
class Piece:
    """Consecutive rows of one unit.

    Attributes:
        partition: the unit's number.
        first: the unit's row at which the piece starts; rows: how many it has, bad ones included.
        table: the good ones as samples.
        at: int64[n], where in the piece each sample stood, ascending.
        bad: int64[m], where the bad rows stood, ascending.
        last: True if the unit ends with it.
    """

    partition: int
    first: int
    rows: int
    table: pa.Table
    at: I64
    bad: I64 = field(default_factory=lambda: np.empty(0, np.int64))
    last: bool = False

    def after(self, skip: int) -> "Piece":
        """The piece without the rows before row `skip` of the unit."""
        drop = min(max(skip - self.first, 0), self.rows)
        if drop == 0:
            return self
        good = int(np.searchsorted(self.at, drop))
        bad = self.bad[self.bad >= drop] - drop
        rest = self.table.slice(good)
        return Piece(self.partition, self.first + drop, self.rows - drop, rest, self.at[good:] - drop, bad, self.last)


class PieceBuffer:
    """Pieces in order; `take` cuts batches off their front."""

    def __init__(self) -> None:
        self._pieces: deque[Piece] = deque()
        self.samples = 0

    def add(self, piece: Piece) -> None:
        """Appends a piece; the pieces of a unit follow one another."""
        self._pieces.append(piece)
        self.samples += piece.table.num_rows

    @property
    def empty(self) -> bool:
        """True if nothing waits."""
        return not self._pieces

    def take(self, limit: int) -> Batch | None:
        """Hands out the next samples, at most `limit`, and the positions behind them; None if nothing waits."""
        tables: list[pa.Table] = []
        positions: dict[int, Position] = {}
        samples: dict[int, int] = {}
        skipped: dict[int, int] = {}
        need = limit
        while self._pieces:
            piece = self._pieces[0]
            count = min(need, piece.table.num_rows)
            whole = count == piece.table.num_rows
            if count == 0 and not whole:
                break
            stop = piece.rows if whole else int(piece.at[count])  # bad rows before the next sample go along
            p = piece.partition
            positions[p] = Position(1) if whole and piece.last else Position(0, piece.first + stop)
            tables.append(piece.table.slice(0, count))
            if count:
                samples[p] = samples.get(p, 0) + count
            if bad := int(np.searchsorted(piece.bad, stop)):
                skipped[p] = skipped.get(p, 0) + bad
            need -= count
            if not whole:
                self._pieces[0] = piece.after(piece.first + stop)
                break
            self._pieces.popleft()
        if not tables:
            return None
        self.samples -= limit - need
        table = pa.concat_tables(tables).combine_chunks()
        newest = pc.max(table.column("now")).as_py() if table.num_rows else None
        return Batch(table, positions, samples, skipped, newest or 0)
