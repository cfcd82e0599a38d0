"""Where a key lives: one hash, 256 virtual buckets, and the shard that owns a bucket.

A key is exact (`table ordinal << 48 | id`), so two features never collide; only its *place* is hashed. Buckets are the
unit of resharding: a checkpoint written by any number of shards can be restored by any other number, because
`shard_of` depends on the bucket alone.
"""

import numba as nb
import numpy as np
import numpy.typing as npt

from kuberec_runtime.table.compiled import kernel

I64 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint8]

BUCKETS = 256
"""Number of virtual buckets; also the largest number of shards."""
ID_BITS = 48


@nb.njit(inline="always")
def mix64(value: np.uint64) -> np.uint64:
    """Finalizer of splitmix64 (Steele, Lea, Flood 2014): a bijection of 64 bits in which every bit depends on all."""
    x = np.uint64(value)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


@nb.njit(inline="always")
def bucket(key: np.int64) -> np.int64:
    """Virtual bucket of a key: the top 8 bits of its hash. For kernels."""
    return np.int64(mix64(np.uint64(key)) >> np.uint64(56))


def bucket_of(keys: I64) -> U8:
    """Virtual bucket of each key.

    Args:
        keys: int64, shape (n,).

    Returns:
        uint8, shape (n,): the top 8 bits of `mix64(key)`.
    """
    x = np.ascontiguousarray(keys, np.int64).view(np.uint64)
    return (mix64.py_func(x) >> np.uint64(56)).astype(np.uint8)


def shard_of(keys: I64, shards: int) -> U8:
    """Shard that owns each key, uint8, shape (n,): bucket b belongs to shard `b * shards // 256`."""
    if not 1 <= shards <= BUCKETS:
        raise ValueError(f"shards must be between 1 and {BUCKETS}, got {shards}")
    return (bucket_of(keys).astype(np.int64) * shards // BUCKETS).astype(np.uint8)


def key_of(ordinal: int, ids: I64) -> I64:
    """Keys of the ids of one table, int64, shape (n,).

    Args:
        ordinal: position of the table in the sorted names of the plan's tables, below 2^15.
        ids: shape (n,), each in [0, 2^47).
    """
    if not 0 <= ordinal < 1 << 15:
        raise ValueError(f"table ordinal must be below {1 << 15}, got {ordinal}")
    return np.asarray(ids, np.int64) | np.int64(ordinal << ID_BITS)


def split_key(keys: I64) -> tuple[I64, I64]:
    """Inverse of `key_of`: (ordinals, ids), each int64, shape (n,)."""
    return keys >> np.int64(ID_BITS), keys & np.int64((1 << ID_BITS) - 1)


@nb.njit(inline="always")
def first_bucket(shard: int, shards: int) -> int:
    """The lowest bucket of a shard; that of shard `shards` is `BUCKETS`."""
    return (shard * BUCKETS + shards - 1) // shards


@nb.njit(inline="always")
def outside(key: np.int64, first: int, last: int) -> np.int64:
    """Negative if the key's bucket is not one of `first` to `last`; without a branch, so that loops of it vectorize."""
    at = bucket(key)
    return (at - first) | (last - at)


@kernel
def foreign_key(keys: I64, shard: int, shards: int) -> int:
    """Position of the first key that is negative or owned by another shard, or -1. Allocates nothing."""
    first, last = first_bucket(shard, shards), first_bucket(shard + 1, shards) - 1
    signs = np.int64(0)
    for i in range(keys.size):
        signs |= keys[i] | outside(keys[i], first, last)
    if signs >= 0:
        return -1
    for i in range(keys.size):
        if keys[i] | outside(keys[i], first, last) < 0:
            return i
    return -1
