"""All rows of one width on a shard: pull creates what is missing, push applies the optimizer, a cut takes the changed.

Invariants:
- A row never moves and never changes its number; the index maps a key to it for the life of the table.
- Creating a row does not make it dirty: its first value is a pure function of (seed, key), so whoever lacks it can make
  it again. Only a push marks a row, for both consumers at once; each consumer's cut clears its own mark only.
- `take_dirty` clears marks after the copies exist: an error before that loses nothing.
- Every public method is atomic against the others (one lock), and a refused call changes nothing, except that missing
  rows of a push or pull may already have been created.
"""

import threading
import time
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from kuberec_api.model import Initializer, SparseOptimizer
from kuberec_runtime.table.arena import Arena, physical_memory
from kuberec_runtime.table.buckets import I64
from kuberec_runtime.table.errors import TableError, TableFull
from kuberec_runtime.table.index import Index, find_rows, insert_rows
from kuberec_runtime.table.initial import F32, KIND_CODE, fill_rows
from kuberec_runtime.table.kernels import (
    CHECKPOINT_BIT,
    PUBLICATION_BIT,
    clear_bit,
    count_dirty,
    gather,
    scan_dirty,
    scatter,
    set_bit,
)
from kuberec_runtime.table.layout import RowLayout
from kuberec_runtime.table.mode import row_mode
from kuberec_runtime.table.optimizers import row_step

Consumer = Literal["checkpoint", "publication"]
CONSUMERS: dict[str, int] = {"checkpoint": CHECKPOINT_BIT, "publication": PUBLICATION_BIT}
_MOST_ROWS = 2**31 - 1


@dataclass(frozen=True)
class Rows:
    """Rows copied out of a table.

    Attributes:
        keys: int64, shape (n,), in order of creation.
        raw: float32, shape (n, stride): `[weights | optimizer state | frequency | last seen]`; the last two are uint32.
    """

    keys: I64
    raw: F32


class Table:
    """Rows of one width under one optimizer, initializer and seed.

    Args:
        width: weights of a row (an embedding's dim, plus one if its table has a linear weight, which is column 0).
        optimizer: applied by `push`; its state lives in the row.
        initializer: first weights of a row.
        seed: the model's; with the key it decides a row's first weights.
        scalar: True for scalar kernels, False for vector kernels, None to follow `KUBEREC_SCALAR_KERNELS`.
    """

    def __init__(
        self,
        width: int,
        optimizer: SparseOptimizer,
        initializer: Initializer,
        seed: int,
        *,
        scalar: bool | None = None,
    ) -> None:
        self.layout = RowLayout.of(width, optimizer.kind)
        self._optimizer, self._initializer = optimizer, initializer
        self._seed = np.uint64(seed & 0xFFFFFFFFFFFFFFFF)
        self._lock = threading.Lock()
        self._open()
        self._mode = row_mode(scalar)
        self._step, self._constants = row_step(optimizer)
        self._warm_up()

    def _open(self) -> None:
        memory = physical_memory()
        pitch = self.layout.pitch
        arena = Arena(min(memory, _MOST_ROWS * pitch * 4))
        self._most = min(arena.size // (pitch * 4), _MOST_ROWS)
        # One row beyond the last: vector loads and prefetches may look there, nobody writes there.
        self._most -= 1
        self._rows: F32 = arena.bytes.view(np.float32)
        self._bits: npt.NDArray[np.uint32] = arena.bytes.view(np.uint32)
        self._index = Index(4 * memory)
        self._keys: I64 = Arena((self._most + 1) * 8).bytes.view(np.int64)
        self._dirty = Arena(self._most + 8).bytes
        self._words: I64 = self._dirty[: self._dirty.size // 8 * 8].view(np.int64)
        self._most = min(self._most, self._keys.size - 1, self._words.size * 8)
        self._count = 0
        self._scratch: I64 = np.empty(0, np.int64)
        self._reach = 0
        # Kept, because touching fresh pages would cost as much as the scan; committed only as far as takes reach.
        self._numbers: I64 = Arena((self._most + 1) * 8).bytes.view(np.int64)

    def _warm_up(self) -> None:
        """Compiles every kernel before the shard says it is ready, on a row that is thrown away."""
        keys = np.array([7], np.int64)
        grads = np.zeros((1, self.layout.width), np.float32)
        self.pull(keys)
        self.push(keys, grads)
        rows = self.take_dirty("checkpoint")
        self.restore(rows.keys, rows.raw)
        self.redirty("checkpoint", keys)
        self._index.grow(7)
        self._open()

    def __len__(self) -> int:
        return self._count

    @property
    def width(self) -> int:
        """Weights of a row."""
        return self.layout.width

    @property
    def memory_bytes(self) -> int:
        """Bytes of rows, keys, marks, the largest take's row numbers and the index; address space beyond is free."""
        per_row = self.layout.pitch * 4 + 8 + 1
        return -(-self._count * per_row // 4096) * 4096 + self._reach * 8 + self._index.memory_bytes

    def pull(self, keys: I64, *, out: F32 | None = None) -> F32:
        """Weights of `keys`; missing rows are created.

        Args:
            keys: int64, shape (n,), each >= 0.
            out: float32, shape (n, width), C order; a new array if None.

        Returns:
            float32, shape (n, width): `out`.

        Raises:
            TableError: a key is negative, or `out` has another shape.
            TableFull: no room for a new row.
        """
        n, width = keys.size, self.layout.width
        if out is None:
            out = np.empty((n, width), np.float32)
        elif out.shape != (n, width) or out.dtype != np.float32 or not out.flags.c_contiguous:
            raise TableError(f"out must be C-ordered float32 of shape {(n, width)}, got {out.dtype} {out.shape}")
        flat = out.reshape(-1)
        with self._lock:
            index = self._rows_of(keys)
            gather(self._mode, self._rows, index, n, self.layout.pitch, width, flat)
        return out

    def push(self, keys: I64, grads: F32, *, now: int | None = None) -> None:
        """One optimizer step on each row; missing rows are created first.

        The row's frequency rises by one, its last-seen becomes `now`, and it is dirty for both consumers. A key given
        twice takes two steps, in order.

        Args:
            keys: int64, shape (n,), each >= 0.
            grads: float32, shape (n, width).
            now: seconds since the epoch; the clock's if None.

        Raises:
            TableError: a key is negative, or `grads` has another shape.
            TableFull: no room for a new row.
        """
        n, layout = keys.size, self.layout
        if grads.shape != (n, layout.width) or grads.dtype != np.float32:
            raise TableError(f"gradients must be float32 of shape {(n, layout.width)}, got {grads.dtype} {grads.shape}")
        flat = np.ascontiguousarray(grads).reshape(-1)
        stamp = np.uint32((int(time.time()) if now is None else now) & 0xFFFFFFFF)
        with self._lock:
            index = self._rows_of(keys)
            self._step(
                self._mode, self._rows, self._bits, self._dirty, index, flat, n, layout.pitch, layout.width,
                layout.frequency, stamp, *self._constants,
            )  # fmt: skip

    def take_dirty(self, consumer: Consumer, full: bool = False) -> Rows:
        """Copies the rows pushed since this consumer's last take (all if `full`) and clears this consumer's marks."""
        bit = np.uint8(CONSUMERS[consumer])
        layout = self.layout
        with self._lock:
            count = self._count
            if full:
                raw = self._rows[: count * layout.pitch].reshape(count, layout.pitch)[:, : layout.stride].copy()
                rows = Rows(self._keys[:count].copy(), raw)
                self._dirty[:count] &= ~bit
                return rows
            n = int(scan_dirty(self._dirty, self._words, count, bit, self._numbers))
            index = self._numbers[:n]
            self._reach = max(self._reach, n)
            raw = np.empty((n, layout.stride), np.float32)
            gather(self._mode, self._rows, index, n, layout.pitch, layout.stride, raw.reshape(-1))
            rows = Rows(self._keys[index], raw)
            clear_bit(self._dirty, index, n, bit)
            return rows

    def dirty(self, consumer: Consumer) -> int:
        """Number of rows that the consumer's next take would copy."""
        with self._lock:
            return int(count_dirty(self._dirty, self._words, self._count, np.uint8(CONSUMERS[consumer])))

    def redirty(self, consumer: Consumer, keys: I64) -> None:
        """Marks rows again that were taken but not written; keys without a row are passed over."""
        with self._lock:
            self._find(keys)
            set_bit(self._dirty, self._scratch, keys.size, np.uint8(CONSUMERS[consumer]))

    def mark_all_dirty(self, consumer: Consumer) -> None:
        """Marks every row: the consumer's next take copies the whole table."""
        with self._lock:
            self._dirty[: self._count] |= np.uint8(CONSUMERS[consumer])

    def restore(self, keys: I64, raw: F32) -> None:
        """Sets rows as they were taken; existing ones are overwritten, marks stay as they are.

        Args:
            keys: int64, shape (n,); of a key given twice the later row wins.
            raw: float32, shape (n, stride).

        Raises:
            TableError: `raw` has another stride: it was written for another width or optimizer.
        """
        n, stride = keys.size, self.layout.stride
        if raw.shape != (n, stride) or raw.dtype != np.float32:
            raise TableError(
                f"rows of width {self.layout.width} under {self._optimizer.kind.value} must be float32 of shape "
                f"{(n, stride)}, got {raw.dtype} {raw.shape}; were they written for another width or optimizer?"
            )
        flat = np.ascontiguousarray(raw).reshape(-1)
        with self._lock:
            index = self._rows_of(keys, fill=False)
            scatter(self._mode, self._rows, index, flat, n, self.layout.pitch, stride)

    def _find(self, keys: I64) -> int:
        """Fills the scratch with row numbers; returns how many are absent."""
        if keys.dtype != np.int64 or keys.ndim != 1:
            raise TableError(f"keys must be int64 of one dimension, got {keys.dtype} of {keys.ndim}")
        if self._scratch.size < keys.size:
            self._scratch = np.empty(max(keys.size, 2 * self._scratch.size), np.int64)
        index = self._index
        absent = int(find_rows(index.table, index.numbers, index.base, index.size, keys, self._scratch))
        if absent < 0:
            raise TableError(f"key {keys[-1 - absent]} at position {-1 - absent} is negative")
        return absent

    def _rows_of(self, keys: I64, *, fill: bool = True) -> I64:
        """Row numbers of all keys; missing rows are created (with first values, unless they are overwritten anyway)."""
        absent = self._find(keys)
        if absent == 0:
            return self._scratch
        if self._count + absent > self._most:
            raise TableFull(
                f"a table of width {self.layout.width} holds {self._count} rows and has room for {self._most}; "
                f"{absent} more do not fit: add parameter servers"
            )
        first = self._count
        index, at, count = self._index, 0, first
        try:
            while True:
                at, count = insert_rows(
                    index.table, index.numbers, index.base, index.size, index.count, index.limit,
                    keys, self._scratch, at, count, self._keys,
                )  # fmt: skip
                if at == keys.size:
                    break
                index.grow(int(keys[at]))
        finally:
            # Whatever happened, the rows that got a number also get their values.
            layout, kind = self.layout, KIND_CODE[self._initializer.kind]
            fill_rows(
                self._rows, first, self._keys[first:count], layout.width, layout.pitch, kind if fill else 0,
                float(self._initializer.stddev), self._seed,
            )  # fmt: skip
            self._count = count
        return self._scratch
