"""The replica's hot rows of one width: a set-associative cache in flat arrays, read by compiled loops.

A set is eight keys, one cache line. A full set gives up its least used row, so a burst of cold ids fights for one place
and leaves the hot ones alone; one admission in sixteen ages the whole set, so that what was hot once goes too. Ids
without a row in the tier are remembered as absent (zeros): the delta stream names them when they appear. Nothing
expires by time: a hit is at most one publication old.

Refreshes and admissions race: a row read before a refresh must not be admitted after it. `generation` rises before a
refresh reads the tier, and an admission under an older generation is dropped.
"""

import threading

import numpy as np
from numpy.typing import NDArray

from kuberec_runtime.table.buckets import mix64
from kuberec_runtime.table.compiled import kernel

F32 = NDArray[np.float32]
I64 = NDArray[np.int64]
U8 = NDArray[np.uint8]
Flags = NDArray[np.bool_]

WAYS = 8
EMPTY = np.int64(-1)
_MOST = 15


class RowCache:
    """At most `capacity` rows (rounded up to a power of two, at least 8) of `width` floats. Safe for threads."""

    def __init__(self, width: int, capacity: int) -> None:
        sets = 1
        while sets * WAYS < capacity:
            sets *= 2
        self.width = width
        self.generation = 0
        self._lock = threading.Lock()
        self._keys = np.full(sets * WAYS, EMPTY, np.int64)
        self._uses = np.zeros(sets * WAYS, np.uint8)
        self._absent = np.zeros(sets * WAYS, np.bool_)
        self._rows = np.zeros((sets * WAYS, width), np.float32)

    def read(self, keys: I64) -> tuple[F32, I64, int]:
        """Looks keys int64[n] up.

        Returns:
            rows float32[n, width] (zeros where missing or absent), positions of the misses int64[m], and the number of
            hits that are known to be absent.
        """
        rows = np.zeros((keys.size, self.width), np.float32)
        misses = np.empty(keys.size, np.int64)
        with self._lock:
            count, absent = _read(keys, self._keys, self._uses, self._absent, self._rows, rows, misses)
        return rows, misses[:count], absent

    def admit(self, keys: I64, rows: F32, found: Flags, generation: int) -> None:
        """Adds rows that were read under `generation`; dropped if a refresh began since."""
        with self._lock:
            if generation == self.generation:
                _admit(keys, rows, found, self._keys, self._uses, self._absent, self._rows)

    def begin_refresh(self) -> None:
        """Call before the rows of a refresh are read."""
        with self._lock:
            self.generation += 1

    def refresh(self, keys: I64, rows: F32, found: Flags) -> None:
        """Overwrites the rows of those keys that are cached."""
        with self._lock:
            _refresh(keys, rows, found, self._keys, self._absent, self._rows)

    def cached(self, keys: I64 | None = None) -> I64:
        """Returns those of `keys` that are cached; all cached keys without an argument."""
        with self._lock:
            if keys is None:
                return self._keys[self._keys != EMPTY]
            return keys[_contains(keys, self._keys)]

    def __len__(self) -> int:
        return int((self._keys != EMPTY).sum())


@kernel
def _first(key: int, size: int) -> int:
    return np.int64(mix64(np.uint64(key)) & np.uint64(size // WAYS - 1)) * WAYS  # type: ignore[return-value]


@kernel
def _find(key: int, tags: I64) -> int:
    first = _first(key, tags.size)
    for at in range(first, first + WAYS):
        if tags[at] == key:
            return at
    return -1


@kernel
def _read(keys: I64, tags: I64, uses: U8, absent: Flags, stored: F32, out: F32, misses: I64) -> tuple[int, int]:
    missed = 0
    gone = 0
    for i in range(keys.size):
        at = _find(keys[i], tags)
        if at < 0:
            misses[missed] = i
            missed += 1
            continue
        if uses[at] < _MOST:
            uses[at] += np.uint8(1)
        if absent[at]:
            gone += 1
            continue
        for d in range(out.shape[1]):
            out[i, d] = stored[at, d]
    return missed, gone


@kernel
def _admit(keys: I64, rows: F32, found: Flags, tags: I64, uses: U8, absent: Flags, stored: F32) -> None:
    for i in range(keys.size):
        first = _first(keys[i], tags.size)
        victim = first
        for at in range(first, first + WAYS):
            if tags[at] == keys[i]:
                victim = at
                break
            if tags[at] == EMPTY:
                victim = at
                break
            if uses[at] < uses[victim]:
                victim = at
        if tags[victim] != keys[i] and tags[victim] != EMPTY:
            ageing = uses[victim] + np.uint8(keys[i] & 15 == 0)
            for at in range(first, first + WAYS):
                uses[at] -= min(uses[at], ageing)
        if tags[victim] != keys[i]:
            uses[victim] = np.uint8(0)
        tags[victim] = keys[i]
        absent[victim] = not found[i]
        for d in range(rows.shape[1]):
            stored[victim, d] = rows[i, d]


@kernel
def _refresh(keys: I64, rows: F32, found: Flags, tags: I64, absent: Flags, stored: F32) -> None:
    for i in range(keys.size):
        at = _find(keys[i], tags)
        if at < 0:
            continue
        absent[at] = not found[i]
        for d in range(rows.shape[1]):
            stored[at, d] = rows[i, d]


@kernel
def _contains(keys: I64, tags: I64) -> Flags:
    out = np.zeros(keys.size, np.bool_)
    for i in range(keys.size):
        out[i] = _find(keys[i], tags) >= 0
    return out
