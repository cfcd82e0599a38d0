"""Which part of a request belongs to which shard: rows are split by bucket, and merged in the caller's order."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from kuberec_runtime.table.buckets import I64, bucket, first_bucket, outside
from kuberec_runtime.table.compiled import kernel
from kuberec_runtime.table.initial import F32
from kuberec_runtime.table.kernels import gather, scatter
from kuberec_runtime.table.mode import row_mode
from kuberec_runtime.table.sizes import sizes

I32 = npt.NDArray[np.int32]

FEW = 4
"""Up to so many shards, each gets room for all keys, which saves the pass that counts."""


@kernel
def _owners(keys: Any, shards: int, owner: Any) -> None:
    for i in range(keys.size):
        owner[i] = np.uint8(bucket(keys[i]) * shards >> 8)


@kernel
def _grouped(keys: Any, shards: int, ends: Any) -> bool:
    """Whether keys come grouped; then `ends[s + 1]` is where shard s' part ends, and `ends[0]` is 0.

    The ends are searched for as if they did, and then every part is looked at.
    """
    ends[0] = 0
    for shard in range(shards):
        first, beyond = first_bucket(shard, shards), first_bucket(shard + 1, shards)
        low, high = ends[shard], keys.size
        while low < high:
            middle = (low + high) // 2
            if bucket(keys[middle]) < beyond:
                low = middle + 1
            else:
                high = middle
        part, signs = keys[ends[shard] : low], np.int64(0)
        for i in range(part.size):
            signs |= outside(part[i], first, beyond - 1)
        if signs < 0:
            return False
        ends[shard + 1] = low
    return True


@kernel
def _split(keys: Any, owner: Any, ends: Any, order: Any, grouped: Any) -> None:
    """Appends each key and its position where its shard's part ends; `ends` begins as where the parts begin."""
    for i in range(keys.size):
        shard = owner[i]
        at = ends[shard]
        ends[shard] = at + 1
        order[at] = np.int32(i)
        grouped[at] = keys[i]


@dataclass(frozen=True)
class Route:
    """How n keys fall on the shards. Between the parts of two shards there may be a gap.

    Attributes:
        keys: int64, grouped by shard, the caller's order within.
        order: int32: position in the caller's keys of each grouped key; None if the caller's keys are grouped.
        starts: shard s has grouped positions [starts[s], ends[s]).
        ends: see there.
    """

    keys: I64
    order: I32 | None
    starts: Sequence[int]
    ends: Sequence[int]

    def part(self, shard: int) -> slice:
        """Grouped positions of one shard."""
        return slice(self.starts[shard], self.ends[shard])


def route(keys: I64, shards: int, room: I64 | None = None) -> Route:
    """Groups keys by the shard that owns them; keys that come grouped, as those of one shard do, cost only a look.

    Args:
        keys: int64, shape (n,).
        shards: how many there are.
        room: where the grouped keys go and then their positions: int64 words, shape (route_words(n, shards),).

    Raises:
        ValueError: there are 2^31 keys or more.
    """
    n = keys.size
    if n >= 1 << 31:
        raise ValueError(f"a request may name {2**31 - 1} keys at most, got {n}")
    keys = np.ascontiguousarray(keys, np.int64)
    if shards == 1:
        return Route(_copied(keys, room), None, [0], [n])
    bounds = np.empty(shards + 1, np.int64)
    if _grouped(keys, shards, bounds):
        at = bounds.tolist()
        return Route(_copied(keys, room), None, at[:-1], at[1:])
    owner = np.empty(n, np.uint8)
    _owners(keys, shards, owner)
    positions = n * shards if shards <= FEW else n
    room = np.empty(route_words(n, shards), np.int64) if room is None else room
    grouped, order = room[:positions], room[positions:].view(np.int32)[:positions]
    if shards <= FEW:
        ends = np.arange(0, n * shards, n)
    else:
        counts = np.bincount(owner, minlength=shards)
        ends = np.cumsum(counts) - counts
    starts = ends.tolist()
    _split(keys, owner, ends, order, grouped)
    return Route(grouped, order, starts, ends.tolist())


def route_words(keys: int, shards: int) -> int:
    """Words of 8 bytes that `route` needs for the grouped keys and their positions."""
    positions = keys * shards if shards <= FEW else keys
    return positions + (positions + 1) // 2


def _copied(keys: I64, room: I64 | None) -> I64:
    if room is None:
        return keys
    room[: keys.size] = keys
    return room[: keys.size]


def group_rows(rows: F32, order: I32, out: F32 | None = None) -> F32:
    """Row order[i] at i: float32, shape (n, width), in `out` if given."""
    width = rows.shape[1]
    out = np.empty((order.size, width), np.float32) if out is None else out
    flat = np.ascontiguousarray(rows).reshape(-1)
    gather(row_mode(), flat, order, order.size, sizes(width, width, width), out.reshape(-1))
    return out


def merge_rows(rows: F32, order: I32, out: F32) -> None:
    """Writes rows[i] to out[order[i]]; both float32 of the same width. Every position must be within `out`."""
    width = rows.shape[1]
    scatter(row_mode(), out.reshape(-1), order, rows.reshape(-1), order.size, sizes(width, width, width))


def dense_slice(size: int, shard: int, shards: int) -> slice:
    """The shard's part of a flat vector of `size` floats, as `np.array_split` cuts it."""
    share, rest = divmod(size, shards)
    start = shard * share + min(shard, rest)
    return slice(start, start + share + (1 if shard < rest else 0))
