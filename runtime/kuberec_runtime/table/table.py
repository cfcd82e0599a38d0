"""All rows of one width on a shard: pull creates what is missing, push applies the optimizer, a cut takes the changed.

Invariants:
- A row never moves; its number belongs to its key until the key is removed, and then to another key.
- Creating a row does not make it dirty: its first value is a pure function of (seed, key), so whoever lacks it can make
  it again. Only a push marks a row, for both consumers at once; each consumer's cut clears its own mark only.
- Removing a key is remembered for both consumers. At a consumer's take a removed key that has no row is a *tombstone*;
  one that came back is a row, pushed or not, since the consumer still has its former values.
- `take_dirty` clears marks after the copies exist: an error before that loses nothing.
- Every public method is atomic against the others (one lock, which pulls that create nothing share), and a refused call
  changes nothing, except that missing rows of a push or pull may already have been created.
"""

import time
from collections.abc import Sequence

import numpy as np

from kuberec_api.model import Initializer, SparseOptimizer
from kuberec_runtime.table.admission import Counts, Sketch
from kuberec_runtime.table.arena import Arena, lines, physical_memory
from kuberec_runtime.table.buckets import I64
from kuberec_runtime.table.copies import CONSUMERS, Consumer, Rows
from kuberec_runtime.table.errors import TableError, TableFull
from kuberec_runtime.table.eviction import Verdict, judge_rows
from kuberec_runtime.table.extract import MOST_PARTS, extract, live, marked
from kuberec_runtime.table.index import Index, erase_rows, find_rows, insert_rows
from kuberec_runtime.table.initial import F32, KIND_CODE, fill_rows
from kuberec_runtime.table.kernels import gather, scatter_raw
from kuberec_runtime.table.layout import RowLayout
from kuberec_runtime.table.marks import clear, count, mark_rows, words_of
from kuberec_runtime.table.mode import row_mode
from kuberec_runtime.table.optimizers import row_step
from kuberec_runtime.table.recent import Recent
from kuberec_runtime.table.room import Rooms
from kuberec_runtime.table.sharedlock import SharedLock
from kuberec_runtime.table.slab import Slab

__all__ = ["CONSUMERS", "Consumer", "Rows", "Table"]


class Table:
    """Rows of one width under one optimizer, initializer and seed.

    Args:
        width: weights of a row (an embedding's dim, plus one if its table has a linear weight, which is column 0).
        optimizer: applied by `push`; its state lives in the row.
        initializer: first weights of a row.
        seed: the model's; with the key it decides a row's first weights.
        scalar: True for scalar kernels, False for vector kernels, None to follow `KUBEREC_SCALAR_KERNELS`.
        published: whether anybody takes for the publication; if not, nothing is remembered for it but marks.
        min_count: a key gets its row at that push which names it; below 2 also a pull creates rows.
    """

    def __init__(
        self,
        width: int,
        optimizer: SparseOptimizer,
        initializer: Initializer,
        seed: int,
        *,
        scalar: bool | None = None,
        published: bool = True,
        min_count: int = 0,
    ) -> None:
        self.layout = RowLayout.of(width, optimizer.kind)
        self._optimizer, self._initializer = optimizer, initializer
        self._seed = np.uint64(seed & 0xFFFFFFFFFFFFFFFF)
        self._lock = SharedLock()
        self._remembering: tuple[Consumer, ...] = ("checkpoint", "publication") if published else ("checkpoint",)
        self._min_count = min_count
        self._open()
        self._mode = row_mode(scalar)
        self._step, self._constants = row_step(optimizer)
        self._weights_shape, self._step_shape = self.layout.weights_shape, self.layout.step_shape
        self._warm_up()

    def _open(self) -> None:
        self._slab = Slab(self.layout)
        self._index = Index(4 * physical_memory())
        # How many row numbers were ever used, and the one that was freed last (-1: none); see `insert_rows`.
        self._ends: I64 = np.array([0, -1], np.int64)
        self._free = 0
        self._gone: dict[Consumer, list[I64]] = {consumer: [] for consumer in self._remembering}
        self._sketch = Sketch(self._min_count) if self._min_count > 1 else None
        self.dropped = 0
        """Gradients of keys that have no row yet."""
        self._clock = 0
        self._recent = Recent()
        self._fresh: I64 = np.empty(0, np.int64)
        self._reach = 0
        # Kept, because touching fresh pages would cost as much as the scan; committed only as far as takes reach.
        self._numbers: I64 = Arena((self._slab.most + MOST_PARTS) * 8).bytes.view(np.int64)
        self._rooms = {consumer: Rooms(self._slab.most, self.layout.row_bytes) for consumer in CONSUMERS}

    def _warm_up(self) -> None:
        """Compiles every kernel before the shard says it is ready, on a row that is thrown away."""
        keys = np.array([7], np.int64)
        grads = np.zeros((1, self.layout.width), np.float32)
        self.pull(keys)
        self.push(keys, grads)
        self.restore(keys, np.zeros((1, self.layout.stride), np.float32))
        self.push(keys, grads)
        self.take_dirty("checkpoint")
        self.redirty("checkpoint", keys)
        self._index.grow(7)
        self.sweep(0, 1, Verdict())
        self.remove(keys)
        self.take_dirty("checkpoint", full=True)
        self._open()

    def __len__(self) -> int:
        return self._used - self._free

    @property
    def _used(self) -> int:
        """Row numbers that were ever given; those beyond hold zeros."""
        return int(self._ends[0])

    @property
    def width(self) -> int:
        """Weights of a row."""
        return self.layout.width

    @property
    def row_bytes(self) -> int:
        """Bytes of a row and its key."""
        return self.layout.row_bytes + 8

    @property
    def memory_bytes(self) -> int:
        """Bytes of rows, keys, marks, the index, and what is kept for takes; address space beyond is free."""
        rows = -(-self._used * self.row_bytes // 4096) * 4096 + 8 * words_of(self._used) + self._reach * 8
        rows += sum(room.committed for room in self._rooms.values()) + self._recent.memory_bytes
        gone = sum(keys.nbytes for parts in self._gone.values() for keys in parts)
        return rows + self._index.memory_bytes + gone + (self._sketch.memory_bytes if self._sketch else 0)

    @property
    def index_bytes(self) -> int:
        """Bytes of the index, a part of `memory_bytes`."""
        return self._index.memory_bytes

    @property
    def content_bytes(self) -> int:
        """Bytes of what the rows say and of their keys: what `memory_bytes` is measured against."""
        return len(self) * (8 + 4 * self.layout.stride)

    def pull(self, keys: I64, *, out: F32 | None = None) -> F32:
        """Weights of `keys`; missing rows are created, or under admission their first values are answered.

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
            out = lines(np.float32, n, width)
        elif out.shape != (n, width) or out.dtype != np.float32 or not out.flags.c_contiguous:
            raise TableError(f"out must be C-ordered float32 of shape {(n, width)}, got {out.dtype} {out.shape}")
        flat = out.reshape(-1)
        with self._lock.shared():
            numbers, absent = self._find(keys)
            if absent == 0 or self._sketch is not None:
                self._gather(keys, numbers, flat)
                return out
        # Searched for again: others may have created or removed rows meanwhile.
        with self._lock:
            self._gather(keys, self._rows_of(keys), flat)
        return out

    def _gather(self, keys: I64, numbers: I64, flat: F32) -> None:
        """Copies rows into `flat`; of those that are absent (-1), their first values."""
        gather(self._mode, self._slab.rows, numbers, keys.size, self._weights_shape, flat)
        if self._sketch is None:
            # A search is slow in large tables only, where this comes to a byte a row.
            self._recent.note(keys, numbers, self._used // 16)
        else:
            absent = np.flatnonzero(numbers < 0)
            self._fill(flat, absent, keys[absent], self.layout.width)

    def push(self, keys: I64, grads: F32, *, now: int | None = None) -> None:
        """One optimizer step on each row; missing rows are created first, those that are not admitted yet left out.

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
        n, width, slab = keys.size, self.layout.width, self._slab
        if grads.shape != (n, width) or grads.dtype != np.float32:
            raise TableError(f"gradients must be float32 of shape {(n, width)}, got {grads.dtype} {grads.shape}")
        flat = np.ascontiguousarray(grads).reshape(-1)
        stamp = np.uint32((int(time.time()) if now is None else now) & 0xFFFFFFFF)
        with self._lock:
            _refuse_other_than_keys(keys)
            index = self._recent.take(keys)
            if index is None:
                index = self._rows_of(keys, admit=self._sketch is not None)
            if self._sketch is not None:
                kept = np.flatnonzero(index >= 0)
                if kept.size < n:
                    self.dropped += n - kept.size
                    index, flat, n = index[kept], grads[kept].reshape(-1), kept.size
            self._clock = max(self._clock, int(stamp))
            self._step(
                self._mode, slab.rows, slab.tails, slab.bits, slab.dirty, index, flat, n, self._step_shape, stamp,
                *self._constants,
            )  # fmt: skip

    def take_dirty(self, consumer: Consumer, full: bool = False) -> Rows:
        """Copies the rows pushed since this consumer's last take (all if `full`) and clears this consumer's marks."""
        bit, slab = CONSUMERS[consumer], self._slab
        with self._lock:
            used = self._used
            removed = self._removed(consumer, bit)
            if full and not self._free:
                keys, raw = slab.keys[:used].copy(), slab.raw(used)
            else:
                wanted = live(slab.keys) if full else marked(slab.words, bit)
                keys, raw = extract(self._mode, slab, used, wanted, self._numbers, self._rooms[consumer])
                self._reach = max(self._reach, keys.size)
            clear(slab.words[: words_of(used)], bit)
            if consumer in self._gone:
                self._gone[consumer] = []
            counts = self._sketch.copy() if self._sketch is not None and consumer == "checkpoint" else None
        return Rows(keys, raw, np.unique(removed), counts)

    def _removed(self, consumer: Consumer, bit: int) -> I64:
        """Removed keys without a row, some of them twice; those that came back are marked."""
        parts = list(self._gone.get(consumer, ()))
        mine = sum(keys.size for keys in parts)
        if consumer == "checkpoint":
            parts += self._gone.get("publication", [])
        if not parts:
            return np.zeros(0, np.int64)
        keys = np.concatenate(parts)
        numbers, _ = self._find(keys)
        mark_rows(self._slab.dirty, numbers, mine, bit)
        return keys[numbers < 0]

    def dirty(self, consumer: Consumer) -> int:
        """Number of rows with the consumer's mark."""
        with self._lock.shared():
            return count(self._slab.words[: words_of(self._used)], CONSUMERS[consumer])

    def redirty(self, consumer: Consumer, keys: I64) -> None:
        """Marks rows again that were taken but not written; keys that have no row count as removed."""
        with self._lock:
            numbers, absent = self._find(keys)
            mark_rows(self._slab.dirty, numbers, keys.size, CONSUMERS[consumer])
            if absent and consumer in self._gone:
                self._gone[consumer].append(keys[numbers < 0])

    def mark_all_dirty(self, consumer: Consumer) -> None:
        """Marks every row: the consumer's next take copies the whole table."""
        with self._lock:
            rows = np.flatnonzero(self._slab.keys[: self._used] >= 0)
            mark_rows(self._slab.dirty, rows, rows.size, CONSUMERS[consumer])

    def remove(self, keys: I64, consumers: Sequence[Consumer] = ("checkpoint", "publication")) -> int:
        """Removes the rows of `keys`, and remembers all of them for `consumers`; returns how many rows there were.

        A key that comes back starts from its first value.
        """
        with self._lock:
            return self._remove(keys, consumers)

    def sweep(self, start: int, most: int, verdict: Verdict) -> tuple[int, int]:
        """Looks at `most` row numbers from `start` on and removes the rows that a verdict dooms.

        Returns:
            (the row number to go on from, or 0 after the last; rows removed).
        """
        slab, layout = self._slab, self.layout
        with self._lock:
            stop = min(start + most, self._used)
            doomed = np.empty(max(stop - start, 0), np.int64)
            n = int(
                judge_rows(
                    slab.bits, slab.keys, start, stop, layout.tail_pitch, layout.scalars, self._clock,
                    verdict.idle_s, verdict.half_life_s, verdict.least, verdict.quota, verdict.counts, doomed,
                )
            )  # fmt: skip
            if n:
                self._remove(doomed[:n].copy(), self._remembering)
            return (stop if stop < self._used else 0), n

    def _remove(self, keys: I64, consumers: Sequence[Consumer]) -> int:
        index = self._index
        gone = int(
            erase_rows(
                index.table, index.numbers, index.base, index.size, index.count, index.erased, keys, self._ends,
                self._slab.keys, self._slab.dirty,
            )
        )  # fmt: skip
        self._free += gone
        self._recent.clear()
        for consumer in consumers:
            if consumer in self._gone:
                self._gone[consumer].append(keys)
        return gone

    def restore(self, keys: I64, raw: F32) -> None:
        """Sets rows as they were taken; existing ones are overwritten, marks stay as they are.

        Args:
            keys: int64, shape (n,); of a key given twice the later row wins.
            raw: float32, shape (n, stride).

        Raises:
            TableError: `raw` has another stride: it was written for another width or optimizer.
        """
        n, layout, stride = keys.size, self.layout, self.layout.stride
        if raw.shape != (n, stride) or raw.dtype != np.float32:
            raise TableError(
                f"rows of width {self.layout.width} under {self._optimizer.kind.value} must be float32 of shape "
                f"{(n, stride)}, got {raw.dtype} {raw.shape}; were they written for another width or optimizer?"
            )
        flat = np.ascontiguousarray(raw).reshape(-1)
        with self._lock:
            index = self._rows_of(keys, fill=False)
            scatter_raw(self._mode, self._slab.rows, self._slab.tails, index, flat, n, layout.raw_shape)
            if n:
                seen = np.ascontiguousarray(raw[:, self.layout.last_seen]).view(np.uint32)
                self._clock = max(self._clock, int(seen.max()))

    def restore_counts(self, counts: Counts) -> None:
        """Sets how often keys without a row were pushed; passed over by a table without admission."""
        if self._sketch is not None:
            with self._lock:
                self._sketch.restore(counts)

    def _find(self, keys: I64) -> tuple[I64, int]:
        """Row numbers, -1 of absent keys, and how many are absent."""
        _refuse_other_than_keys(keys)
        index, numbers = self._index, np.empty(keys.size, np.int64)
        absent = int(find_rows(index.table, index.numbers, index.base, index.size, keys, numbers))
        if absent < 0:
            raise TableError(f"key {keys[-1 - absent]} at position {-1 - absent} is negative")
        return numbers, absent

    def _rows_of(self, keys: I64, *, fill: bool = True, admit: bool = False) -> I64:
        """Row numbers of all keys; missing rows are created (with first values, unless they are overwritten anyway).

        With `admit` only keys that have been counted often enough get a row, the others' row number is -2.
        """
        numbers, absent = self._find(keys)
        if absent and admit and self._sketch is not None:
            absent = self._sketch.admit(keys, numbers)
        if absent == 0:
            return numbers
        if self._used - self._free + absent > self._slab.most:
            raise TableFull(
                f"a table of width {self.layout.width} holds {len(self)} rows and has room for {self._slab.most}; "
                f"{absent} more do not fit: add parameter servers"
            )
        if self._fresh.size < absent:
            self._fresh = np.empty(max(absent, 2 * self._fresh.size), np.int64)
        index, slab, at, made, used = self._index, self._slab, 0, 0, self._used
        try:
            while True:
                at, made = insert_rows(
                    index.table, index.numbers, index.base, index.size, index.count, index.erased, index.limit,
                    keys, numbers, at, self._ends, self._slab.keys, self._fresh, made,
                )  # fmt: skip
                if at == keys.size:
                    break
                index.grow(int(keys[at]))
        finally:
            # Whatever happened, the rows that got a number also get their values.
            self._free -= made - (self._used - used)
            fresh = self._fresh[:made]
            slab.clear_tails(fresh)
            self._fill(slab.rows, fresh, slab.keys[fresh], self.layout.pitch, fill)
        return numbers

    def _fill(self, rows: F32, places: I64, keys: I64, pitch: int, values: bool = True) -> None:
        """First values (or zeros) of `keys` at `places` of an array of rows."""
        kind = KIND_CODE[self._initializer.kind] if values else 0
        fill_rows(rows, places, keys, self.layout.width, pitch, kind, float(self._initializer.stddev), self._seed)


def _refuse_other_than_keys(keys: I64) -> None:
    if keys.dtype != np.int64 or keys.ndim != 1:
        raise TableError(f"keys must be int64 of one dimension, got {keys.dtype} of {keys.ndim}")
