"""From key to row: buckets of one cache line (5 keys and 5 row numbers), two choices, growth in small steps.

256 partitions by hash, each an array of buckets that grows by half on its own when two thirds full. Their first sizes
are spread over one growth cycle, so a table that doubles pays in hundreds of sub-millisecond steps, not in one long
pause, and its memory stays near the average load. A key goes to its first bucket, else to its second, else to the next
one with room after the second.

A slot holds `~key`: always negative for a valid key (keys are >= 0), so fresh zero pages are an empty index. A bucket
whose last slot is 0 was never full, and ends a search. Removing a key from one that was leaves `ERASED`, which ends
nothing and may be taken by another key. Keys and erased slots together stay within the limit, so a search always ends:
a partition that reaches it is rebuilt, in place if erased slots fill it, else larger.
"""

from typing import Any

import numba as nb
import numpy as np
import numpy.typing as npt

from kuberec_runtime.table.arena import PAGE, Arena
from kuberec_runtime.table.buckets import I64, mix64
from kuberec_runtime.table.compiled import kernel
from kuberec_runtime.table.errors import TableFull
from kuberec_runtime.table.lanes import prefetch
from kuberec_runtime.table.marks import unmark

PARTITIONS = 256
SLOTS = 5
LOAD = 2 / 3
GROWTH = 1.5
AHEAD = 32
ERASED = 1
_FIRST = 64  # buckets of the smallest partition: one page
_WORTH_CLEANING = 0.8  # of the limit: with more keys than that, a rebuild in place would soon be followed by another


@nb.njit(inline="always")
def _partition(h: np.uint64) -> np.int64:
    return np.int64((h >> np.uint64(48)) & np.uint64(255))


@nb.njit(inline="always")
def _first(h: np.uint64, n: np.int64) -> np.int64:
    return np.int64((((h >> np.uint64(16)) & np.uint64(0xFFFFFFFF)) * np.uint64(n)) >> np.uint64(32))


@nb.njit(inline="always")
def _second(h: np.uint64, n: np.int64) -> np.int64:
    return np.int64(((h & np.uint64(0xFFFFFFFF)) * np.uint64(n)) >> np.uint64(32))


@nb.njit(inline="always")
def _slot(table: Any, p: np.int64, stored: np.int64) -> Any:
    """Slot 0-4 of `stored` in the bucket at word p, or -1; without branches, as a mispredicted one costs more."""
    return (
        np.int64(table[p] == stored) * 1
        + np.int64(table[p + 1] == stored) * 2
        + np.int64(table[p + 2] == stored) * 3
        + np.int64(table[p + 3] == stored) * 4
        + np.int64(table[p + 4] == stored) * 5
        - 1
    )


@nb.njit(inline="always")
def _free(table: Any, p: np.int64) -> int:
    for j in range(5):
        if table[p + j] >= 0:
            return j
    return -1


@nb.njit(inline="always")
def _locate(table: Any, base: np.int64, n: np.int64, h: np.uint64, key: np.int64) -> np.int64:
    """Word of the slot that holds `key`, or -1."""
    stored = ~key
    p = (base + _first(h, n)) * 8
    j = _slot(table, p, stored)
    if j >= 0:
        return np.int64(p + j)
    if table[p + 4] == 0:
        return np.int64(-1)
    b = _second(h, n)
    while True:
        p = (base + b) * 8
        j = _slot(table, p, stored)
        if j >= 0:
            return np.int64(p + j)
        if table[p + 4] == 0:
            return np.int64(-1)
        b = b + 1 if b + 1 < n else 0


@nb.njit(inline="always")
def _number(numbers: Any, at: np.int64) -> np.int64:
    """Row number of the slot at word `at`."""
    return np.int64(numbers[(at & ~np.int64(7)) * 2 + 10 + (at & 7)])


@nb.njit(inline="always")
def _search(table: Any, numbers: Any, base: np.int64, n: np.int64, h: np.uint64, key: np.int64) -> np.int64:
    at = _locate(table, base, n, h, key)
    return _number(numbers, at) if at >= 0 else np.int64(-1)


@nb.njit(inline="always")
def _place(table: Any, numbers: Any, base: np.int64, n: np.int64, h: np.uint64, key: np.int64, row: np.int64) -> Any:
    """Puts an absent key into a free slot; returns what the slot held: 0 or ERASED."""
    p = (base + _first(h, n)) * 8
    j = _free(table, p)
    if j < 0:
        b = _second(h, n)
        while True:
            p = (base + b) * 8
            j = _free(table, p)
            if j >= 0:
                break
            b = b + 1 if b + 1 < n else 0
    held = table[p + j]
    table[p + j] = ~key
    numbers[p * 2 + 10 + j] = np.int32(row)
    return held


@nb.njit(inline="always")
def _fetch(table: Any, base: I64, size: I64, key: np.int64) -> None:
    """Prefetches the first bucket of a key."""
    h = mix64(np.uint64(key))
    part = _partition(h)
    prefetch(table, (base[part] + _first(h, size[part])) * 8)


@kernel
def find_rows(table: Any, numbers: Any, base: I64, size: I64, keys: I64, out: I64) -> int:
    """Row number of each key, -1 where there is none; returns the number of those, or -1 - i if key i is negative.

    Args:
        table: the index arena as int64; bucket b of a partition starts at `(base + b) * 8`.
        numbers: the same memory as int32; row numbers of a bucket are its words 10-14.
        base: int64, shape (256,), first bucket of each partition.
        size: int64, shape (256,), buckets of each partition.
        keys: int64, shape (n,).
        out: int64, shape (>= n,), overwritten.
    """
    n = keys.size
    for i in range(min(AHEAD, n)):
        _fetch(table, base, size, keys[i])
    absent = 0
    for i in range(n):
        if i + AHEAD < n:
            _fetch(table, base, size, keys[i + AHEAD])
        key = keys[i]
        if key < 0:
            return -1 - i
        h = mix64(np.uint64(key))
        part = _partition(h)
        row = _search(table, numbers, base[part], size[part], h, key)
        out[i] = row
        if row < 0:
            absent += 1
    return absent


@kernel
def insert_rows(
    table: Any, numbers: Any, base: I64, size: I64, count: I64, erased: I64, limit: I64, keys: I64, out: I64,
    start: int, ends: I64, key_of_row: I64, fresh: I64, made: int,
) -> tuple[int, int]:  # fmt: skip
    """Gives a row to each key whose `out` is -1, from position `start` on; a key given twice gets one row.

    Args:
        table: as of `find_rows`, and so are the next three.
        numbers: as there.
        base: as there.
        size: as there.
        count: int64, shape (256,), keys by partition.
        erased: int64, shape (256,), erased slots by partition.
        limit: int64, shape (256,), the largest sum of both.
        keys: int64, shape (n,).
        out: int64, shape (>= n,), row numbers.
        start: position to begin at.
        ends: int64, shape (2,): the number of the next new row, and of the row that was freed last (-1: none). Freed
            rows are used first.
        key_of_row: int64; the key of a row, or `-2 - (the row freed before)` of a free one.
        fresh: int64; numbers of the rows made, appended from `made` on.
        made: how many are in it.

    Returns:
        (position, made): position is keys.size when done, else the key whose partition must be rebuilt first.
    """
    for i in range(start, keys.size):
        if out[i] != -1:
            continue
        key = keys[i]
        h = mix64(np.uint64(key))
        part = _partition(h)
        row = _search(table, numbers, base[part], size[part], h, key)
        if row < 0:
            if count[part] + erased[part] >= limit[part]:
                return i, made
            row = ends[1]
            if row >= 0:
                ends[1] = -2 - key_of_row[row]
            else:
                row = ends[0]
                ends[0] += 1
            held = _place(table, numbers, base[part], size[part], h, key, row)
            count[part] += 1
            erased[part] -= held
            key_of_row[row] = key
            fresh[made] = row
            made += 1
        out[i] = row
    return keys.size, made


@kernel
def erase_rows(
    table: Any, numbers: Any, base: I64, size: I64, count: I64, erased: I64, keys: I64, ends: I64, key_of_row: I64,
    dirty: Any,
) -> int:  # fmt: skip
    """Takes keys out of the index, frees their rows and clears their marks; returns how many there were.

    Arguments as of `insert_rows`; `dirty` has the marks of rows, see `marks`. Absent keys are passed over.
    """
    n = keys.size
    gone = 0
    for i in range(min(AHEAD, n)):
        _fetch(table, base, size, keys[i])
    for i in range(n):
        if i + AHEAD < n:
            _fetch(table, base, size, keys[i + AHEAD])
        key = keys[i]
        h = mix64(np.uint64(key))
        part = _partition(h)
        at = _locate(table, base[part], size[part], h, key)
        if at < 0:
            continue
        row = _number(numbers, at)
        held = np.int64(table[(at & ~np.int64(7)) + 4] != 0)
        table[at] = held * ERASED
        erased[part] += held
        count[part] -= 1
        key_of_row[row] = -2 - ends[1]
        ends[1] = row
        unmark(dirty, row)
        gone += 1
    return gone


@kernel
def move_partition(
    source: Any, source_numbers: Any, base: int, size: int, table: Any, numbers: Any, new_base: int, new_size: int
) -> None:
    """Copies every key of a partition into zeroed buckets at `new_base`."""
    for b in range(size):
        p = (base + b) * 8
        for j in range(5):
            stored = source[p + j]
            if stored < 0:
                key = ~stored
                row = np.int64(source_numbers[p * 2 + 10 + j])
                _place(table, numbers, new_base, new_size, mix64(np.uint64(key)), key, row)


def _first_sizes() -> I64:
    # Bit reversal spreads neighbouring partitions over the growth cycle.
    turn = np.array([int(f"{p:08b}"[::-1], 2) for p in range(PARTITIONS)]) / PARTITIONS
    return np.floor(_FIRST * GROWTH**turn).astype(np.int64)


class Index:
    """Row numbers by key. Not safe for threads: the table's lock guards it."""

    def __init__(self, reserve: int) -> None:
        self._arena = Arena(reserve)
        words = self._arena.size // 64 * 64
        self.table: I64 = self._arena.bytes[:words].view(np.int64)
        self.numbers: npt.NDArray[np.int32] = self._arena.bytes[:words].view(np.int32)
        self.size = _first_sizes()
        self.base = np.zeros(PARTITIONS, np.int64)
        self.count = np.zeros(PARTITIONS, np.int64)
        self.erased = np.zeros(PARTITIONS, np.int64)
        self._end = 0
        for part in range(PARTITIONS):
            self.base[part] = self._take(int(self.size[part]))
        self.limit = self._limits()

    def _limits(self) -> I64:
        return (self.size * SLOTS * LOAD).astype(np.int64)

    def _take(self, buckets: int) -> int:
        start = self._end
        end = start + -(-buckets * 64 // PAGE) * PAGE // 64
        if end * 64 > self._arena.size:
            raise TableFull(
                f"the index of a table has used up its {self._arena.size} bytes of address space; add parameter servers"
            )
        self._end = end
        return start

    def grow(self, key: int) -> None:
        """Makes room in the partition of `key`: by half, or in place; a failure leaves the index as it was."""
        part = int(_partition_of(key))
        old_base, old_size = int(self.base[part]), int(self.size[part])
        if self.erased[part] and self.count[part] < _WORTH_CLEANING * self.limit[part]:
            self._clean(part, old_base, old_size)
            return
        new_size = int(old_size * GROWTH) + 1
        new_base = self._take(new_size)
        move_partition(self.table, self.numbers, old_base, old_size, self.table, self.numbers, new_base, new_size)
        self.base[part], self.size[part] = new_base, new_size
        self.erased[part] = 0
        self.limit[part] = int(new_size * SLOTS * LOAD)
        self._arena.release(old_base * 64, old_size * 64)

    def _clean(self, part: int, base: int, size: int) -> None:
        """Puts the keys of a partition back without the erased slots between them."""
        here = self.table[base * 8 : (base + size) * 8]
        copy = here.copy()
        here[:] = 0
        move_partition(copy, copy.view(np.int32), 0, size, self.table, self.numbers, base, size)
        self.erased[part] = 0

    @property
    def memory_bytes(self) -> int:
        """Bytes of buckets in use, in whole pages."""
        return int((-(-self.size * 64 // PAGE) * PAGE).sum())


def _partition_of(key: int) -> int:
    # Plain integers: numpy warns about the overflow that the hash wants.
    x = key & 0xFFFFFFFFFFFFFFFF
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    x ^= x >> 31
    return (x >> 48) & 255
