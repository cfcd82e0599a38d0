"""Ids to the network's input and gradients back: dedupe, pooling and its transpose, as numba kernels without the GIL.

One `Lookup` is what a batch needs from the shards: unique keys by row width, and for every slot the inverse indices. A
row is pulled once however often the batch names it, and its gradient is summed before it is pushed. Sums run in the
order of the batch, so the same batch gives the same bits.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numba as nb
import numpy as np
from numpy.typing import NDArray

from featuregen.engine import Features
from kuberec_api.layout import Layout, Slot
from kuberec_runtime.table.buckets import BUCKETS, bucket, key_of, mix64
from kuberec_runtime.table.compiled import kernel
from kuberec_runtime.table.lanes import prefetch, prefetch_to_write
from kuberec_runtime.table.mode import Mode, row_mode
from kuberec_runtime.table.rowops import add_row, sum_rows, weighted
from kuberec_runtime.table.sizes import size_of, sizes

F32 = NDArray[np.float32]
I32 = NDArray[np.int32]
I64 = NDArray[np.int64]

CHUNK = 256
AHEAD = 16


@dataclass(frozen=True)
class SlotIndex:
    """A slot's ids as indices into the unique rows of its width: inverse int32[k], offsets int32[rows + 1].

    `weights` float32[k] multiply the rows of weighted ids; None elsewhere.
    """

    slot: Slot
    inverse: I32
    offsets: I32
    weights: F32 | None = None


@dataclass(frozen=True)
class Lookup:
    """What one batch reads: `keys[w]` int64[u_w] unique, and each slot's index into them. `rows` is n."""

    rows: int
    keys: dict[int, I64]
    slots: tuple[SlotIndex, ...]


def plan_lookup(layout: Layout, features: Features, *, by_bucket: bool = False) -> Lookup:
    """Deduplicates the ids of all sparse slots of `features`, by row width.

    Args:
        layout: the network's input.
        features: of a batch or a request.
        by_bucket: unique keys come in order of their virtual bucket, hence grouped by shard however many there are: the
            wire neither splits such keys nor merges their rows. Else in order of first appearance.
    """
    by_width: dict[int, list[Slot]] = {}
    for slot in layout.sparse:
        assert slot.table is not None
        by_width.setdefault(slot.table.width, []).append(slot)
    keys, indices = {}, []
    for width, slots in by_width.items():
        parts = []
        for slot in slots:
            assert slot.table is not None
            ids = features.columns[slot.output].ids
            assert ids is not None
            parts.append(key_of(slot.table.ordinal, ids))
        joined = np.concatenate(parts) if parts else np.empty(0, np.int64)
        unique = np.empty(joined.size, np.int64)
        inverse = np.empty(joined.size, np.int32)
        count = dedupe(joined, unique, inverse)
        keys[width] = np.empty(count, np.int64)
        if by_bucket:
            group(unique, inverse, keys[width])
        else:
            keys[width][:] = unique[:count]
        at = 0
        for slot, part in zip(slots, parts, strict=True):
            column = features.columns[slot.output]
            assert column.offsets is not None
            indices.append(SlotIndex(slot, inverse[at : at + part.size], column.offsets, column.weights))
            at += part.size
    return Lookup(features.rows, keys, tuple(indices))


def assemble(layout: Layout, features: Features, lookup: Lookup, rows: Mapping[int, F32]) -> F32:
    """Returns X float32[n, D] from pulled rows (`rows[w]` float32[u_w, w]) and the dense columns of `features`.

    User-side outputs of a request have one row; it is pooled once and copied to all n.
    """
    x = np.zeros((lookup.rows, layout.dimension), np.float32)
    for index in lookup.slots:
        slot = index.slot
        assert slot.table is not None
        pool(
            rows[slot.table.width],
            index.inverse,
            index.offsets,
            index.weights,
            slot.mean,
            slot.table.linear,
            x,
            slot.column,
            slot.linear_column,
        )
    for slot in layout.dense:
        values = features.columns[slot.output].values
        assert values is not None
        squash(values, x, slot.column)
    return x


def gradients(lookup: Lookup, dx: F32) -> dict[int, F32]:
    """Returns the gradient of every unique row, float32[u_w, w] by width, from dX float32[n, D]."""
    out = {}
    for width, keys in lookup.keys.items():
        out[width] = np.zeros((keys.size, width), np.float32)
    for index in lookup.slots:
        slot = index.slot
        assert slot.table is not None
        pool_backward(
            dx,
            index.inverse,
            index.offsets,
            index.weights,
            slot.mean,
            slot.table.linear,
            slot.column,
            slot.linear_column,
            out[slot.table.width],
        )
    return out


@kernel
def dedupe(keys: I64, unique: I64, inverse: I32) -> int:
    """Writes the distinct keys in order of first appearance and each key's index among them; returns their number.

    Works in chunks. A first pass writes down what the hash table says and counts what is wrong without a branch, since
    whether a key was seen before is what a processor cannot guess; a second pass goes through those only. The table is
    sized for a batch that repeats its keys, and grows if it does not.
    """
    capacity = 1024
    while capacity < keys.size:
        capacity *= 2
    slots = np.full(capacity, -1, np.int32)
    hashes, misses = np.empty(CHUNK, np.uint64), np.empty(CHUNK, np.int64)
    count = 0
    for start in range(0, keys.size, CHUNK):
        stop = min(start + CHUNK, keys.size)
        if 4 * (count + stop - start) > 3 * capacity:
            capacity *= 2
            slots = _rehashed(unique, count, capacity)
        mask = np.uint64(capacity - 1)
        for i in range(start, stop):
            h = mix64(np.uint64(keys[i]))
            hashes[i - start] = h
            prefetch(slots, np.int64(h & mask))
        missed = 0
        for i in range(start, stop):
            at = slots[np.int64(hashes[i - start] & mask)]
            inverse[i] = at
            misses[missed] = i
            missed += int(unique[max(at, 0)] != keys[i]) | int(at < 0)
        for k in range(missed):
            i = misses[k]
            key = keys[i]
            p = np.int64(hashes[i - start] & mask)
            at = slots[p]
            while at >= 0 and unique[at] != key:
                p = (p + 1) & (capacity - 1)
                at = slots[p]
            if at < 0:
                at = slots[p] = count
                unique[count] = key
                count += 1
            inverse[i] = at
    return count


@kernel
def _rehashed(unique: I64, count: int, capacity: int) -> I32:
    slots = np.full(capacity, -1, np.int32)
    for i in range(count):
        p = np.int64(mix64(np.uint64(unique[i])) & np.uint64(capacity - 1))
        while slots[p] >= 0:
            p = (p + 1) & (capacity - 1)
        slots[p] = i
    return slots


@kernel
def group(unique: I64, inverse: I32, grouped: I64) -> None:
    """Writes unique[:n] in order of their buckets into grouped, shape (n,), and renumbers `inverse` accordingly."""
    n = grouped.size
    buckets, places = np.empty(n, np.uint8), np.empty(n, np.int32)
    nexts = np.zeros(BUCKETS + 1, np.int32)
    for i in range(n):
        buckets[i] = np.uint8(bucket(unique[i]))
        nexts[np.int64(buckets[i]) + 1] += 1
    for b in range(BUCKETS):
        nexts[b + 1] += nexts[b]
    for i in range(n):
        places[i] = nexts[buckets[i]]
        nexts[buckets[i]] += 1
        grouped[places[i]] = unique[i]
    for k in range(inverse.size):
        inverse[k] = places[inverse[k]]


def pool(
    rows: F32,
    inverse: I32,
    offsets: I32,
    weights: F32 | None,
    mean: bool,
    has_linear: bool,
    x: F32,
    column: int,
    linear_column: int,
) -> None:
    """Pools the rows of each sample into x[:, column:]; a single pooled row is copied to all of x's rows.

    A row of the table counts `weights[k]` times, once without them; the linear weight as well.
    """
    dim = rows.shape[1] - int(has_linear)
    _pool(
        row_mode(), np.ascontiguousarray(rows), inverse, offsets, weights, mean, sizes(dim, dim), x, column,
        linear_column,
    )  # fmt: skip


def pool_backward(
    dx: F32,
    inverse: I32,
    offsets: I32,
    weights: F32 | None,
    mean: bool,
    has_linear: bool,
    column: int,
    linear_column: int,
    out: F32,
) -> None:
    """Adds to `out` each row's gradient: the transpose of `pool` for n rows."""
    dim = out.shape[1] - int(has_linear)
    _pool_backward(
        row_mode(), np.ascontiguousarray(dx), inverse, offsets, weights, mean, sizes(dim, dim), column, linear_column,
        out,
    )  # fmt: skip


@nb.njit(inline="always")
def _share(start: int, stop: int, mean: bool) -> np.float32:
    """What each of a sample's ids counts."""
    return np.float32(1.0) / np.float32(max(stop - start, 1)) if mean else np.float32(1.0)


@kernel
def _pool(
    mode: Mode, rows: F32, inverse: I32, offsets: I32, weights: F32 | None, mean: bool, shape: Any, x: F32,
    column: int, linear_column: int,
) -> None:  # fmt: skip
    """Compiled for the type of `weights`: without them its branches do not exist. `shape` is (dim,)."""
    flat_x, flat_rows = x.reshape(-1), rows.reshape(-1)
    dim, pitch = size_of(shape[0]), rows.shape[1]
    first = pitch - dim
    for r in range(offsets.size - 1):
        start, stop = int(offsets[r]), int(offsets[r + 1])
        if start + AHEAD < inverse.size:
            prefetch(flat_rows, np.int64(inverse[start + AHEAD]) * pitch)
        scale = _share(start, stop, mean)
        at = r * x.shape[1] + column
        sum_rows(mode, flat_x, at, flat_rows, first, dim, pitch, inverse, start, stop, weights, scale)
        if linear_column >= 0:
            sum_rows(
                True, flat_x, r * x.shape[1] + linear_column, flat_rows, 0, 1, pitch, inverse, start, stop, weights,
                scale,
            )  # fmt: skip
    if offsets.size == 2:
        for r in range(1, x.shape[0]):
            for d in range(dim):
                x[r, column + d] = x[0, column + d]
            if linear_column >= 0:
                x[r, linear_column] = x[0, linear_column]


@kernel
def _pool_backward(
    mode: Mode, dx: F32, inverse: I32, offsets: I32, weights: F32 | None, mean: bool, shape: Any, column: int,
    linear_column: int, out: F32,
) -> None:  # fmt: skip
    """Compiled as `_pool`."""
    flat_dx, flat_out = dx.reshape(-1), out.reshape(-1)
    dim, pitch = size_of(shape[0]), out.shape[1]
    first = pitch - dim
    for r in range(offsets.size - 1):
        start, stop = int(offsets[r]), int(offsets[r + 1])
        scale = _share(start, stop, mean)
        for j in range(start, stop):
            if j + AHEAD < inverse.size:
                prefetch_to_write(flat_out, np.int64(inverse[j + AHEAD]) * pitch)
            row = np.int64(inverse[j])
            share = weighted(scale, weights, j)
            add_row(mode, flat_out, row * pitch + first, flat_dx, r * dx.shape[1] + column, dim, share)
            if linear_column >= 0:
                flat_out[row * pitch] += dx[r, linear_column] * share


@kernel
def squash(values: F32, x: F32, column: int) -> None:
    """Writes sign(v) * log(1 + |v|) to x[:, column:], in float64 inside; one row is copied to all of x's rows."""
    n = x.shape[0]
    for r in range(n):
        source = r if values.shape[0] == n else 0
        for d in range(values.shape[1]):
            v = np.float64(values[source, d])
            y = np.log1p(abs(v))
            x[r, column + d] = np.float32(y if v >= 0 else -y)
