"""How often a key was pushed before it has a row: a count-min sketch for each of the 256 virtual buckets.

A key gets its row at the k-th push that names it; until then a pull answers its first value, which needs no row, and
its gradients are dropped. Counts live with the bucket that the key falls into, so they move with it to another number
of shards and stay exactly what they were: nothing has to be merged, and memory is the model's, not a shard's.

A bucket has 4 rows of 2^14 counters of one byte. A key's count is the least of its four, and only the least ones rise
(Estan & Varghese 2002, conservative update), so until the counters are halved it is never too low; it may be too high:
a key is then admitted early. Once a bucket has counted 2^14 pushes, all its counters are halved: what came rarely is
forgotten, and a bucket never fills up.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kuberec_runtime.table.buckets import BUCKETS, I64, mix64
from kuberec_runtime.table.compiled import kernel

U8 = npt.NDArray[np.uint8]

DEPTH, COUNTERS = 4, 1 << 14
BUCKET_BYTES = DEPTH * COUNTERS
_SALT = 0x6B75626572656321


@dataclass(frozen=True)
class Counts:
    """Counters of some buckets, as copied out of a sketch.

    Attributes:
        buckets: uint8, shape (b,), which.
        added: int64, shape (b,), pushes counted since the last halving, and half of those before.
        counters: uint8, shape (b, 65536).
    """

    buckets: U8
    added: I64
    counters: U8


@kernel
def admit_keys(counters: U8, added: I64, keys: I64, rows: I64, least: int) -> int:
    """Counts each key without a row; writes -2 for its row number where it is still below `least`.

    Args:
        counters: uint8, flat, 256 * 65536.
        added: int64, shape (256,).
        keys: int64, shape (n,).
        rows: int64, shape (>= n,), row numbers, -1 where there is none.
        least: pushes for a row, at most 255.

    Returns:
        How many keys without a row may have one now.
    """
    admitted = 0
    for i in range(keys.size):
        if rows[i] >= 0:
            continue
        h = mix64(np.uint64(keys[i]))
        bucket = np.int64(h >> np.uint64(56))
        base = bucket * BUCKET_BYTES
        spread = mix64(h ^ np.uint64(_SALT))
        count = np.uint8(255)
        for d in range(DEPTH):
            at = base + d * COUNTERS + np.int64((spread >> np.uint64(14 * d)) & np.uint64(COUNTERS - 1))
            count = min(count, counters[at])
        if count < 255:
            for d in range(DEPTH):
                at = base + d * COUNTERS + np.int64((spread >> np.uint64(14 * d)) & np.uint64(COUNTERS - 1))
                if counters[at] == count:
                    counters[at] = count + np.uint8(1)
        added[bucket] += 1
        if added[bucket] >= COUNTERS:
            added[bucket] //= 2
            for j in range(base, base + BUCKET_BYTES):
                counters[j] >>= np.uint8(1)
        if np.int64(count) + 1 >= least:
            admitted += 1
        else:
            rows[i] = -2
    return admitted


class Sketch:
    """The counters of one table. Not safe for threads: the table's lock guards it."""

    def __init__(self, least: int) -> None:
        if not 2 <= least <= 255:
            raise ValueError(f"a key can be admitted at its 2nd to 255th push, not {least}")
        self.least = least
        self._counters: U8 = np.zeros(BUCKETS * BUCKET_BYTES, np.uint8)
        self._added: I64 = np.zeros(BUCKETS, np.int64)

    @property
    def memory_bytes(self) -> int:
        """Bytes of buckets that have counted anything; the others were never touched."""
        return int((self._added > 0).sum()) * BUCKET_BYTES

    def admit(self, keys: I64, rows: I64) -> int:
        """See `admit_keys`."""
        return int(admit_keys(self._counters, self._added, keys, rows, self.least))

    def copy(self) -> Counts:
        """The counters of all buckets that have counted anything."""
        used = np.flatnonzero(self._added)
        counters = self._counters.reshape(BUCKETS, BUCKET_BYTES)[used]
        return Counts(used.astype(np.uint8), self._added[used], counters)

    def restore(self, counts: Counts) -> None:
        """Sets the counters of the given buckets."""
        self._counters.reshape(BUCKETS, BUCKET_BYTES)[counts.buckets] = counts.counters
        self._added[counts.buckets] = counts.added
