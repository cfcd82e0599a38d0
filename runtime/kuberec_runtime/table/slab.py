"""The memory of a table's rows: bodies, tails, keys and dirty marks, by row number."""

import numpy as np
import numpy.typing as npt

from kuberec_runtime.table.arena import Arena, physical_memory
from kuberec_runtime.table.buckets import I64
from kuberec_runtime.table.initial import F32
from kuberec_runtime.table.layout import RowLayout
from kuberec_runtime.table.marks import ROWS_IN_WORD, words_of

_MOST_ROWS = 2**31 - 1


class Slab:
    """Arrays that reach as far as the machine's memory; pages appear as rows are written.

    Attributes:
        layout: of a row.
        rows: float32, flat, bodies, `layout.pitch` for every row.
        tails: float32, flat, `layout.tail_pitch` for every row.
        bits: `tails` as uint32.
        keys: int64, the key of each row; negative where there is none.
        dirty: uint8, marks, see `marks`; `words` is the same as int64.
        most: how many rows there is room for.
    """

    def __init__(self, layout: RowLayout) -> None:
        self.layout = layout
        bodies = Arena(min(physical_memory(), _MOST_ROWS * layout.pitch * 4))
        # One row beyond the last: vector loads and prefetches may look there, nobody writes there.
        most = min(bodies.size // (layout.pitch * 4), _MOST_ROWS) - 1
        self.rows: F32 = bodies.bytes.view(np.float32)
        self.tails: F32 = self.rows[layout.body :]
        if layout.apart:
            self.tails = Arena((most + 1) * layout.tail_pitch * 4).bytes.view(np.float32)
            most = min(most, self.tails.size // layout.tail_pitch - 1)
        self.bits: npt.NDArray[np.uint32] = self.tails.view(np.uint32)
        self.keys: I64 = Arena((most + 1) * 8).bytes.view(np.int64)
        marks = Arena(8 * words_of(most)).bytes
        self.words: I64 = marks[: marks.size // 8 * 8].view(np.int64)
        self.dirty: npt.NDArray[np.uint8] = self.words.view(np.uint8)
        self.most = min(most, self.keys.size - 1, self.words.size * ROWS_IN_WORD)

    def raw(self, used: int) -> F32:
        """A copy of the first rows, body and tail: float32, shape (used, stride)."""
        layout = self.layout
        bodies = self.rows[: used * layout.pitch].reshape(used, layout.pitch)
        if not layout.apart:
            return bodies[:, : layout.stride].copy()
        tails = self.tails[: used * layout.tail_pitch].reshape(used, layout.tail_pitch)
        return np.concatenate([bodies[:, : layout.body], tails[:, : layout.tail]], axis=1)

    def clear_tails(self, numbers: I64) -> None:
        """Zeros for the tails of some rows, where they do not lie behind the bodies."""
        if self.layout.apart:
            pitch = self.layout.tail_pitch
            self.tails[: (self.most + 1) * pitch].reshape(-1, pitch)[numbers] = 0.0
