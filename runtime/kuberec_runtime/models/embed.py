"""Ids to the network's input and gradients back: dedupe, pooling and its transpose, as numba kernels without the GIL.

One `Lookup` is what a batch needs from the shards: unique keys by row width, and for every slot the inverse indices. A
row is pulled once however often the batch names it, and its gradient is summed before it is pushed. Sums run in the
order of the batch, so the same batch gives the same bits.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featuregen.engine import Features
from kuberec_api.layout import Layout, Slot
from kuberec_runtime.table.buckets import key_of, mix64
from kuberec_runtime.table.compiled import kernel
from kuberec_runtime.table.mode import Mode, row_mode
from kuberec_runtime.table.rowops import add_row

F32 = NDArray[np.float32]
I32 = NDArray[np.int32]
I64 = NDArray[np.int64]


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


def plan_lookup(layout: Layout, features: Features) -> Lookup:
    """Deduplicates the ids of all sparse slots of `features`, by row width."""
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
        keys[width] = unique[:count].copy()
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
    """Writes the distinct keys in order of first appearance and each key's index among them; returns their number."""
    capacity = 16
    while capacity < 2 * keys.size:
        capacity *= 2
    mask = capacity - 1
    slots = np.full(capacity, -1, np.int32)
    count = 0
    for i in range(keys.size):
        key = keys[i]
        p = np.int64(mix64(np.uint64(key)) & np.uint64(mask))
        while True:
            at = slots[p]
            if at < 0:
                slots[p] = count
                unique[count] = key
                inverse[i] = count
                count += 1
                break
            if unique[at] == key:
                inverse[i] = at
                break
            p = (p + 1) & mask
    return count


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
    _pool(row_mode(), np.ascontiguousarray(rows), inverse, offsets, weights, mean, has_linear, x, column, linear_column)


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
    rows = np.ascontiguousarray(dx)
    _pool_backward(row_mode(), rows, inverse, offsets, weights, mean, has_linear, column, linear_column, out)


@kernel
def _pool(
    mode: Mode,
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
    """Compiled for the type of `weights`: without them its branches do not exist."""
    flat_x, flat_rows = x.reshape(-1), rows.reshape(-1)
    one = np.float32(1.0)
    first = 1 if has_linear else 0
    dim = rows.shape[1] - first
    for r in range(offsets.size - 1):
        start, stop = offsets[r], offsets[r + 1]
        if start == stop:
            continue
        linear = np.float32(0.0)
        for j in range(start, stop):
            row = np.int64(inverse[j])
            weight = one if weights is None else weights[j]
            add_row(mode, flat_x, r * x.shape[1] + column, flat_rows, row * rows.shape[1] + first, dim, weight)
            if has_linear:
                linear += rows[row, 0] if weights is None else rows[row, 0] * weight
        scale = np.float32(1.0) / np.float32(stop - start) if mean else np.float32(1.0)
        if mean:
            for d in range(dim):
                x[r, column + d] *= scale
        if linear_column >= 0:
            x[r, linear_column] = linear * scale
    if offsets.size == 2:
        for r in range(1, x.shape[0]):
            for d in range(dim):
                x[r, column + d] = x[0, column + d]
            if linear_column >= 0:
                x[r, linear_column] = x[0, linear_column]


@kernel
def _pool_backward(
    mode: Mode,
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
    flat_dx, flat_out = dx.reshape(-1), out.reshape(-1)
    first = 1 if has_linear else 0
    dim = out.shape[1] - first
    for r in range(offsets.size - 1):
        start, stop = offsets[r], offsets[r + 1]
        scale = np.float32(1.0) / np.float32(max(stop - start, 1)) if mean else np.float32(1.0)
        for j in range(start, stop):
            row = np.int64(inverse[j])
            share = scale if weights is None else scale * weights[j]
            add_row(mode, flat_out, row * out.shape[1] + first, flat_dx, r * dx.shape[1] + column, dim, share)
            if linear_column >= 0:
                out[row, 0] += dx[r, linear_column] * share


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
