"""Columns that records cannot hold (maps, lists of numbers) stay in Arrow arrays, in the order of their slots.

Chunks are merged like the digits of a binary counter: there are few of them, and each value is copied few times.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from featuregen.plan import Input

Chunks = tuple[pa.RecordBatch, ...]
"""Batches one after the other; each is at least twice as long as the next, but for the last few."""


_MERGED_UP_TO = 1 << 30
"""Bytes; the offsets of an Arrow array do not reach further than 2 GiB."""


class ArrowStore:
    """Appended to by one thread; what readers hold is never changed."""

    def __init__(self, columns: Sequence[Input]) -> None:
        self._names = [column.name for column in columns]
        self._chunks: Chunks = ()

    @property
    def nbytes(self) -> int:
        """Bytes that are in use."""
        return sum(int(chunk.nbytes) for chunk in self._chunks)

    def chunks(self) -> Chunks:
        """Returns what is there now."""
        return self._chunks

    def append(self, columns: Mapping[str, pa.Array], rows: int) -> None:
        """Appends rows."""
        if not self._names or not rows:
            return
        chunks = [*self._chunks, pa.RecordBatch.from_arrays([columns[name] for name in self._names], self._names)]
        while len(chunks) > 1 and chunks[-2].num_rows < 2 * chunks[-1].num_rows and chunks[-2].nbytes < _MERGED_UP_TO:
            last, before = chunks.pop(), chunks.pop()
            joined = [pa.concat_arrays([before.column(name), last.column(name)]) for name in self._names]
            chunks.append(pa.RecordBatch.from_arrays(joined, self._names))
        self._chunks = tuple(chunks)


def take(chunks: Chunks, name: str, slots: NDArray[np.int32]) -> pa.Array:
    """Returns a column's values of some slots."""
    if len(chunks) == 1:
        return chunks[0].column(name).take(pa.array(slots))
    starts = np.cumsum([0, *(chunk.num_rows for chunk in chunks)])
    which = np.searchsorted(starts, slots, side="right") - 1
    order = np.argsort(which, kind="stable")
    parts = [
        chunk.column(name).take(pa.array(slots[which == index] - starts[index]))
        for index, chunk in enumerate(chunks)
        if (which == index).any()
    ]
    back = np.empty(len(slots), np.int64)
    back[order] = np.arange(len(slots))
    return pa.concat_arrays(parts).take(pa.array(back)) if parts else chunks[0].column(name).slice(0, 0)
