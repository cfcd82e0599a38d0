"""Which part of a request belongs to which shard: rows are split by bucket, and merged in the caller's order."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kuberec_runtime.table.buckets import BUCKETS, I64, mix64
from kuberec_runtime.table.compiled import kernel
from kuberec_runtime.table.initial import F32
from kuberec_runtime.table.kernels import gather, scatter
from kuberec_runtime.table.mode import row_mode


@kernel
def _split(keys: Any, shards: int, owner: Any, bounds: Any, order: Any, grouped: Any) -> None:
    """Stable counting sort of keys by shard."""
    bounds[:] = 0
    for i in range(keys.size):
        bucket = np.int64(mix64(np.uint64(keys[i])) >> np.uint64(56))
        shard = bucket * shards // BUCKETS
        owner[i] = shard
        bounds[shard + 1] += 1
    for s in range(shards):
        bounds[s + 1] += bounds[s]
    for i in range(keys.size):
        at = bounds[owner[i]]
        bounds[owner[i]] += 1
        order[at] = i
        grouped[at] = keys[i]
    for s in range(shards, 0, -1):
        bounds[s] = bounds[s - 1]
    bounds[0] = 0


@dataclass(frozen=True)
class Route:
    """How n keys fall on the shards.

    Attributes:
        order: int64, shape (n,): position in the caller's keys of each grouped key.
        bounds: shape (shards + 1,): shard s has grouped positions [bounds[s], bounds[s + 1]).
        keys: int64, shape (n,), grouped by shard, the caller's order within.
    """

    order: I64
    bounds: Sequence[int]
    keys: I64

    def part(self, shard: int) -> slice:
        """Grouped positions of one shard."""
        return slice(self.bounds[shard], self.bounds[shard + 1])


def route(keys: I64, shards: int) -> Route:
    """Groups keys (int64, shape (n,)) by the shard that owns them."""
    n = keys.size
    order, grouped = np.empty(n, np.int64), np.empty(n, np.int64)
    bounds = np.zeros(shards + 1, np.int64)
    _split(np.ascontiguousarray(keys, np.int64), shards, np.empty(n, np.uint8), bounds, order, grouped)
    return Route(order, bounds.tolist(), grouped)


def group_rows(rows: F32, order: I64, out: F32 | None = None) -> F32:
    """Row order[i] at i: float32, shape (n, width), in `out` if given."""
    width = rows.shape[1]
    out = np.empty((order.size, width), np.float32) if out is None else out
    flat = np.ascontiguousarray(rows).reshape(-1)
    gather(row_mode(), flat, order, order.size, width, width, out.reshape(-1))
    return out


def merge_rows(rows: F32, order: I64, out: F32) -> None:
    """Writes rows[i] to out[order[i]]; both float32 of the same width."""
    width = rows.shape[1]
    scatter(row_mode(), out.reshape(-1), order, rows.reshape(-1), order.size, width, width)


def dense_slice(size: int, shard: int, shards: int) -> slice:
    """The shard's part of a flat vector of `size` floats, as `np.array_split` cuts it."""
    share, rest = divmod(size, shards)
    start = shard * share + min(shard, rest)
    return slice(start, start + share + (1 if shard < rest else 0))
