"""Ids to the network's input and gradients back: what a batch reads, each row of it once, and where its sums go.

One `Lookup` is what a batch needs from the shards: unique keys by row width, and for every slot the inverse indices. A
row is pulled once however often the batch names it, and its gradient is summed before it is pushed. Sums run in the
order of the batch, so the same batch gives the same bits.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from featuregen.engine import Features
from kuberec_api.layout import Layout, Slot
from kuberec_runtime.models.pooling import I32, Grid, fits_grid, pool, pool_backward, pool_grid, pool_grid_backward
from kuberec_runtime.table.buckets import BUCKETS, I64, bucket, key_of, mix64
from kuberec_runtime.table.compiled import kernel
from kuberec_runtime.table.initial import F32
from kuberec_runtime.table.lanes import prefetch

CHUNK = 256


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
    """What one batch reads.

    Attributes:
        rows: n.
        keys: unique, int64[u_w], by row width.
        grids: the slots of which every sample has one id, as most have, and their indices into the keys.
        slots: the other slots and theirs.
    """

    rows: int
    keys: dict[int, I64]
    grids: tuple[Grid, ...]
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
    keys: dict[int, I64] = {}
    grids: list[Grid] = []
    indices: list[SlotIndex] = []
    n = features.rows
    for width, slots in by_width.items():
        fitting, others = _sorted_out(slots, features)
        parts = [_grid_keys(alike, features) for alike in fitting] + [_keys_of(slot, features) for slot in others]
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
        for alike in fitting:
            grids.append(Grid.of(alike, inverse[at : at + n * len(alike)].reshape(n, len(alike))))
            at += n * len(alike)
        for slot in others:
            column = features.columns[slot.output]
            indices.append(SlotIndex(slot, inverse[at : at + column.ids.size], column.offsets, column.weights))
            at += column.ids.size
    return Lookup(n, keys, tuple(grids), tuple(indices))


def _sorted_out(slots: Sequence[Slot], features: Features) -> tuple[list[list[Slot]], list[Slot]]:
    """Slots that make a grid, by kind of row, and the others."""
    alike: dict[int, list[Slot]] = {}
    others: list[Slot] = []
    for slot in slots:
        assert slot.table is not None
        if fits_grid(features.columns[slot.output], features.rows):
            alike.setdefault(slot.table.dim, []).append(slot)
        else:
            others.append(slot)
    return list(alike.values()), others


def _keys_of(slot: Slot, features: Features) -> I64:
    assert slot.table is not None
    return key_of(slot.table.ordinal, features.columns[slot.output].ids)


def _grid_keys(slots: Sequence[Slot], features: Features) -> I64:
    """Sample by sample."""
    keys = np.empty((features.rows, len(slots)), np.int64)
    for i, slot in enumerate(slots):
        keys[:, i] = _keys_of(slot, features)
    return keys.reshape(-1)


def assemble(layout: Layout, features: Features, lookup: Lookup, rows: Mapping[int, F32]) -> F32:
    """Returns X float32[n, D] from pulled rows (`rows[w]` float32[u_w, w]) and the dense columns of `features`.

    User-side outputs of a request have one row; it is pooled once and copied to all n.
    """
    x = np.zeros((lookup.rows, layout.dimension), np.float32)
    for grid in lookup.grids:
        pool_grid(rows[grid.width], grid, x)
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
    for grid in lookup.grids:
        pool_grid_backward(dx, grid, out[grid.width])
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
