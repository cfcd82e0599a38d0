"""From rows to the network's input and back: pooling and its transpose, as numba kernels without the GIL.

Slots whose every sample has one id, as most slots are, make grids: their rows are copied sample by sample, so that X is
written, and its gradient read, from the first column to the last, each line once. Other slots are pooled one at a time.
Sums of both begin with zero, so the bits of a sample's columns do not depend on which way its slot goes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numba as nb
import numpy as np
from numpy.typing import NDArray

from featuregen.results import Column
from kuberec_api.layout import Slot
from kuberec_runtime.table.buckets import I64
from kuberec_runtime.table.compiled import kernel
from kuberec_runtime.table.initial import F32
from kuberec_runtime.table.lanes import prefetch, prefetch_to_write
from kuberec_runtime.table.mode import Mode, row_mode
from kuberec_runtime.table.rowops import add_row, sum_rows, weighted
from kuberec_runtime.table.sizes import size_of, sizes

I32 = NDArray[np.int32]

AHEAD = 16


@dataclass(frozen=True)
class Grid:
    """Slots of equal rows, of which every sample has one id.

    Attributes:
        dim: columns of a slot; a row has one float more, in front, if its table has linear weights.
        width: floats of a row.
        inverse: int32, shape (n, slots): indices into the unique rows of that width.
        columns: int64, shape (slots,): where a slot begins in X.
        linear_columns: int64, shape (slots,): where its linear weight is, or -1.
    """

    dim: int
    width: int
    inverse: I32
    columns: I64
    linear_columns: I64

    @classmethod
    def of(cls, slots: Sequence[Slot], inverse: I32) -> "Grid":
        """The grid of slots of one kind of table, in order of `inverse`."""
        table = slots[0].table
        assert table is not None
        return cls(
            table.dim,
            table.width,
            inverse,
            np.array([slot.column for slot in slots], np.int64),
            np.array([slot.linear_column for slot in slots], np.int64),
        )


def fits_grid(column: Column, rows: int) -> bool:
    """Whether each of n rows of a column of ids has one id, without a weight."""
    if column.weights is not None or column.offsets is None or column.offsets.size != rows + 1:
        return False
    return column.ids.size == rows and bool(_one_each(column.offsets))


def pool_grid(rows: F32, grid: Grid, x: F32) -> None:
    """Copies the rows of a grid to x: float32 (u, width) to float32 (n, D)."""
    rows, shape = np.ascontiguousarray(rows), sizes(grid.dim, grid.dim)
    _pool_grid(row_mode(), rows, grid.inverse, shape, x, grid.columns, grid.linear_columns)


def pool_grid_backward(dx: F32, grid: Grid, out: F32) -> None:
    """Adds to `out` each row's gradient: the transpose of `pool_grid`."""
    dx, shape = np.ascontiguousarray(dx), sizes(grid.dim, grid.dim)
    _pool_grid_backward(row_mode(), dx, grid.inverse, shape, grid.columns, grid.linear_columns, out)


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
def _one_each(offsets: I32) -> bool:
    differ = np.int32(0)
    for r in range(offsets.size):
        differ |= offsets[r] ^ np.int32(r)
    return bool(differ == 0)


@kernel
def _pool_grid(mode: Mode, rows: F32, inverse: I32, shape: Any, x: F32, columns: I64, linear_columns: I64) -> None:
    """`shape` is (dim,)."""
    flat_x, flat_rows, flat_inverse = x.reshape(-1), rows.reshape(-1), inverse.reshape(-1)
    dim, pitch, across = size_of(shape[0]), rows.shape[1], x.shape[1]
    first, slots, one = pitch - dim, inverse.shape[1], np.float32(1.0)
    for r in range(inverse.shape[0]):
        for s in range(slots):
            i = r * slots + s
            if i + AHEAD < inverse.size:
                prefetch(flat_rows, np.int64(flat_inverse[i + AHEAD]) * pitch)
            at = r * across + columns[s]
            sum_rows(mode, flat_x, at, flat_rows, first, dim, pitch, flat_inverse, i, i + 1, None, one)
            if linear_columns[s] >= 0:
                x[r, linear_columns[s]] = np.float32(0.0) + rows[flat_inverse[i], 0]


@kernel
def _pool_grid_backward(
    mode: Mode, dx: F32, inverse: I32, shape: Any, columns: I64, linear_columns: I64, out: F32
) -> None:
    """`shape` is (dim,)."""
    flat_dx, flat_out, flat_inverse = dx.reshape(-1), out.reshape(-1), inverse.reshape(-1)
    dim, pitch, across = size_of(shape[0]), out.shape[1], dx.shape[1]
    first, slots = pitch - dim, inverse.shape[1]
    for r in range(inverse.shape[0]):
        for s in range(slots):
            i = r * slots + s
            if i + AHEAD < inverse.size:
                prefetch_to_write(flat_out, np.int64(flat_inverse[i + AHEAD]) * pitch)
            row = np.int64(flat_inverse[i])
            add_row(mode, flat_out, row * pitch + first, flat_dx, r * across + columns[s], dim, np.float32(1.0))
            if linear_columns[s] >= 0:
                flat_out[row * pitch] += dx[r, linear_columns[s]]
