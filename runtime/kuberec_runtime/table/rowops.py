"""What happens to one row: copy, or one step of an optimizer; vector instructions, or scalars with the same bits.

Both sides do every addition, product, root and division in the same order and never fuse them, so IEEE 754 makes the
results equal bit for bit. Which side runs is decided by the *type* of `mode`, so a kernel is compiled for each. The
mean square of RowwiseAdagrad adds in a fixed order: 16 lanes, each over every sixteenth column, then a tree of halves.
"""

from typing import Any

import numba as nb
import numpy as np
from numba.core import types
from numba.extending import overload

from kuberec_runtime.table import lanes


@nb.njit(inline="always")
def _scalar_copy(dst: Any, di: int, src: Any, si: int, n: int) -> None:
    for j in range(n):
        dst[di + j] = src[si + j]


@nb.njit(inline="always")
def _scalar_sgd(w: Any, wi: int, g: Any, gi: int, n: int, rate: np.float32) -> None:
    for j in range(n):
        w[wi + j] -= rate * g[gi + j]


@nb.njit(inline="always")
def _scalar_adagrad(w: Any, wi: int, ai: int, g: Any, gi: int, n: int, rate: np.float32, epsilon: np.float32) -> None:
    for j in range(n):
        grad = g[gi + j]
        acc = w[ai + j] + grad * grad
        w[ai + j] = acc
        w[wi + j] -= rate * grad / (np.sqrt(acc) + epsilon)


@nb.njit(inline="always")
def _scalar_adam(
    w: Any, wi: int, mi: int, vi: int, g: Any, gi: int, n: int, rate: np.float32, epsilon: np.float32,
    keep1: np.float32, take1: np.float32, keep2: np.float32, take2: np.float32,
) -> None:  # fmt: skip
    for j in range(n):
        grad = g[gi + j]
        m = keep1 * w[mi + j] + take1 * grad
        w[mi + j] = m
        v = keep2 * w[vi + j] + take2 * (grad * grad)
        w[vi + j] = v
        w[wi + j] -= rate * m / (np.sqrt(v) + epsilon)


@nb.njit(inline="always")
def _scalar_ftrl(
    w: Any, wi: int, zi: int, ni: int, g: Any, gi: int, n: int, inverse: np.float32, epsilon: np.float32,
    l1: np.float32, l2: np.float32,
) -> None:  # fmt: skip
    for j in range(n):
        grad = g[gi + j]
        old = w[ni + j]
        new = old + grad * grad
        w[ni + j] = new
        root = np.sqrt(new)
        z = w[zi + j] + (grad - (root - np.sqrt(old)) * inverse * w[wi + j])
        w[zi + j] = z
        kept = -l1 if z < -l1 else z
        kept = l1 if kept > l1 else kept
        w[wi + j] = (kept - z) / ((epsilon + root) * inverse + l2)


@nb.njit(inline="always")
def _scalar_squares(acc: Any, g: Any, gi: int, n: int) -> None:
    for j in range(n):
        acc[j & 15] += g[gi + j] * g[gi + j]


@nb.njit(inline="always")
def _vector_copy(dst: Any, di: int, src: Any, si: int, n: int) -> None:
    j = 0
    while j + 16 <= n:
        lanes.copy16(dst, di + j, src, si + j)
        j += 16
    if j + 8 <= n:
        lanes.copy8(dst, di + j, src, si + j)
        j += 8
    if j + 4 <= n:
        lanes.copy4(dst, di + j, src, si + j)
        j += 4
    while j < n:
        dst[di + j] = src[si + j]
        j += 1


@nb.njit(inline="always")
def _vector_sgd(w: Any, wi: int, g: Any, gi: int, n: int, rate: np.float32) -> None:
    j = 0
    while j + 16 <= n:
        lanes.sgd16(w, wi + j, g, gi + j, rate)
        j += 16
    if j + 8 <= n:
        lanes.sgd8(w, wi + j, g, gi + j, rate)
        j += 8
    if j + 4 <= n:
        lanes.sgd4(w, wi + j, g, gi + j, rate)
        j += 4
    while j < n:
        w[wi + j] -= rate * g[gi + j]
        j += 1


@nb.njit(inline="always")
def _vector_adagrad(w: Any, wi: int, ai: int, g: Any, gi: int, n: int, rate: np.float32, epsilon: np.float32) -> None:
    j = 0
    while j + 16 <= n:
        lanes.adagrad16(w, wi + j, ai + j, g, gi + j, rate, epsilon)
        j += 16
    if j + 8 <= n:
        lanes.adagrad8(w, wi + j, ai + j, g, gi + j, rate, epsilon)
        j += 8
    if j + 4 <= n:
        lanes.adagrad4(w, wi + j, ai + j, g, gi + j, rate, epsilon)
        j += 4
    while j < n:
        grad = g[gi + j]
        acc = w[ai + j] + grad * grad
        w[ai + j] = acc
        w[wi + j] -= rate * grad / (np.sqrt(acc) + epsilon)
        j += 1


@nb.njit(inline="always")
def _vector_adam(
    w: Any, wi: int, mi: int, vi: int, g: Any, gi: int, n: int, rate: np.float32, epsilon: np.float32,
    keep1: np.float32, take1: np.float32, keep2: np.float32, take2: np.float32,
) -> None:  # fmt: skip
    j = 0
    while j + 16 <= n:
        lanes.adam16(w, wi + j, mi + j, vi + j, g, gi + j, rate, epsilon, keep1, take1, keep2, take2)
        j += 16
    if j + 8 <= n:
        lanes.adam8(w, wi + j, mi + j, vi + j, g, gi + j, rate, epsilon, keep1, take1, keep2, take2)
        j += 8
    if j + 4 <= n:
        lanes.adam4(w, wi + j, mi + j, vi + j, g, gi + j, rate, epsilon, keep1, take1, keep2, take2)
        j += 4
    _scalar_adam(w, wi + j, mi + j, vi + j, g, gi + j, n - j, rate, epsilon, keep1, take1, keep2, take2)


@nb.njit(inline="always")
def _vector_ftrl(
    w: Any, wi: int, zi: int, ni: int, g: Any, gi: int, n: int, inverse: np.float32, epsilon: np.float32,
    l1: np.float32, l2: np.float32,
) -> None:  # fmt: skip
    j = 0
    while j + 16 <= n:
        lanes.ftrl16(w, wi + j, zi + j, ni + j, g, gi + j, inverse, epsilon, l1, l2)
        j += 16
    if j + 8 <= n:
        lanes.ftrl8(w, wi + j, zi + j, ni + j, g, gi + j, inverse, epsilon, l1, l2)
        j += 8
    if j + 4 <= n:
        lanes.ftrl4(w, wi + j, zi + j, ni + j, g, gi + j, inverse, epsilon, l1, l2)
        j += 4
    _scalar_ftrl(w, wi + j, zi + j, ni + j, g, gi + j, n - j, inverse, epsilon, l1, l2)


@nb.njit(inline="always")
def _vector_squares(acc: Any, g: Any, gi: int, n: int) -> None:
    j = 0
    while j + 16 <= n:
        lanes.squares16(acc, 0, g, gi + j)
        j += 16
    lane = 0
    if j + 8 <= n:
        lanes.squares8(acc, 0, g, gi + j)
        j += 8
        lane = 8
    if j + 4 <= n:
        lanes.squares4(acc, lane, g, gi + j)
        j += 4
        lane += 4
    while j < n:
        acc[lane] += g[gi + j] * g[gi + j]
        j += 1
        lane += 1


@nb.njit(inline="always")
def _scalar_tree_sum(acc: Any) -> np.float32:
    for j in range(8):
        acc[j] += acc[j + 8]
    for j in range(4):
        acc[j] += acc[j + 4]
    return (acc[0] + acc[2]) + (acc[1] + acc[3])


@nb.njit(inline="always")
def _scalar_axpy(dst: Any, di: int, src: Any, si: int, n: int, scale: np.float32) -> None:
    for j in range(n):
        dst[di + j] += src[si + j] * scale


@nb.njit(inline="always")
def _vector_axpy(dst: Any, di: int, src: Any, si: int, n: int, scale: np.float32) -> None:
    j = 0
    while j + 16 <= n:
        lanes.axpy16(dst, di + j, src, si + j, scale)
        j += 16
    if j + 8 <= n:
        lanes.axpy8(dst, di + j, src, si + j, scale)
        j += 8
    if j + 4 <= n:
        lanes.axpy4(dst, di + j, src, si + j, scale)
        j += 4
    while j < n:
        dst[di + j] += src[si + j] * scale
        j += 1


def weighted(term: Any, weights: Any, j: int) -> Any:
    """A term times weights[j], or as it is without weights (None)."""


@overload(weighted, inline="always", strict=False)
def _weighted(term: Any, weights: Any, j: int) -> Any:
    return (lambda term, weights, j: term) if weights == types.none else (lambda term, weights, j: term * weights[j])


@nb.njit(inline="always")
def _scalar_sum(
    dst: Any, di: int, src: Any, si: int, n: int, pitch: int, index: Any, start: int, stop: int,
    weights: Any, scale: Any,
) -> None:  # fmt: skip
    for d in range(n):
        total = np.float32(0.0)
        for j in range(start, stop):
            total += weighted(src[si + np.int64(index[j]) * pitch + d], weights, j)
        dst[di + d] = total * scale


@nb.njit(inline="always")
def _vector_sum(
    dst: Any, di: int, src: Any, si: int, n: int, pitch: int, index: Any, start: int, stop: int,
    weights: Any, scale: Any,
) -> None:  # fmt: skip
    d = 0
    while d + 16 <= n:
        lanes.sum16(dst, di + d, src, si + d, pitch, index, start, stop, weights, scale)
        d += 16
    if d + 8 <= n:
        lanes.sum8(dst, di + d, src, si + d, pitch, index, start, stop, weights, scale)
        d += 8
    if d + 4 <= n:
        lanes.sum4(dst, di + d, src, si + d, pitch, index, start, stop, weights, scale)
        d += 4
    _scalar_sum(dst, di + d, src, si + d, n - d, pitch, index, start, stop, weights, scale)


def copy_row(mode: Any, dst: Any, di: int, src: Any, si: int, n: int) -> None:
    """Copies n floats. `mode`, here and below: None for vector instructions, True for scalars."""


def add_row(mode: Any, dst: Any, di: int, src: Any, si: int, n: int, scale: Any) -> None:
    """Adds a row: dst += src * scale, n floats; product and sum are rounded each."""


def sum_rows(
    mode: Any, dst: Any, di: int, src: Any, si: int, n: int, pitch: int, index: Any, start: int, stop: int,
    weights: Any, scale: Any,
) -> None:  # fmt: skip
    """Sums rows: dst = scale * the sum of n floats at src[si + pitch * index[j]], `weighted`, in order of j."""


def sgd_row(mode: Any, w: Any, wi: int, g: Any, gi: int, n: int, rate: Any) -> None:
    """One step of SGD: w -= rate * g."""


def adagrad_row(mode: Any, w: Any, wi: int, ai: int, g: Any, gi: int, n: int, rate: Any, epsilon: Any) -> None:
    """One step of Adagrad with its accumulator per column at w[ai:]."""


def adam_row(
    mode: Any, w: Any, wi: int, mi: int, vi: int, g: Any, gi: int, n: int, rate: Any, epsilon: Any,
    keep1: Any, take1: Any, keep2: Any, take2: Any,
) -> None:  # fmt: skip
    """One step of Adam, moments at w[mi:] and w[vi:]; `rate` and `epsilon` hold the row's bias correction."""


def ftrl_row(
    mode: Any, w: Any, wi: int, zi: int, ni: int, g: Any, gi: int, n: int, inverse: Any, epsilon: Any, l1: Any, l2: Any
) -> None:
    """One step of FTRL-Proximal, z at w[zi:] and n at w[ni:]."""


def add_squares(mode: Any, acc: Any, g: Any, gi: int, n: int) -> None:
    """Column j adds g[j]^2 to acc[j % 16]; acc has 16 floats."""


def tree_sum(mode: Any, acc: Any) -> Any:
    """Sum of 16 floats by halves: lanes l and l + 8, then l and l + 4, l + 2, l + 1. May change `acc`."""


@overload(copy_row, inline="always", strict=False)
def _copy_row(mode: Any, dst: Any, di: int, src: Any, si: int, n: int) -> Any:
    row = _vector_copy if mode == types.none else _scalar_copy
    return lambda mode, dst, di, src, si, n: row(dst, di, src, si, n)


@overload(add_row, inline="always", strict=False)
def _add_row(mode: Any, dst: Any, di: int, src: Any, si: int, n: int, scale: Any) -> Any:
    row = _vector_axpy if mode == types.none else _scalar_axpy
    return lambda mode, dst, di, src, si, n, scale: row(dst, di, src, si, n, scale)


@overload(sum_rows, inline="always", strict=False)
def _sum_rows(
    mode: Any, dst: Any, di: int, src: Any, si: int, n: int, pitch: int, index: Any, start: int, stop: int,
    weights: Any, scale: Any,
) -> Any:  # fmt: skip
    row = _vector_sum if mode == types.none else _scalar_sum
    return lambda mode, dst, di, src, si, n, pitch, index, start, stop, weights, scale: row(
        dst, di, src, si, n, pitch, index, start, stop, weights, scale
    )


@overload(sgd_row, inline="always", strict=False)
def _sgd_row(mode: Any, w: Any, wi: int, g: Any, gi: int, n: int, rate: Any) -> Any:
    row = _vector_sgd if mode == types.none else _scalar_sgd
    return lambda mode, w, wi, g, gi, n, rate: row(w, wi, g, gi, n, rate)


@overload(adagrad_row, inline="always", strict=False)
def _adagrad_row(mode: Any, w: Any, wi: int, ai: int, g: Any, gi: int, n: int, rate: Any, epsilon: Any) -> Any:
    row = _vector_adagrad if mode == types.none else _scalar_adagrad
    return lambda mode, w, wi, ai, g, gi, n, rate, epsilon: row(w, wi, ai, g, gi, n, rate, epsilon)


@overload(adam_row, inline="always", strict=False)
def _adam_row(
    mode: Any, w: Any, wi: int, mi: int, vi: int, g: Any, gi: int, n: int, rate: Any, epsilon: Any,
    keep1: Any, take1: Any, keep2: Any, take2: Any,
) -> Any:  # fmt: skip
    row = _vector_adam if mode == types.none else _scalar_adam
    return lambda mode, w, wi, mi, vi, g, gi, n, rate, epsilon, keep1, take1, keep2, take2: row(
        w, wi, mi, vi, g, gi, n, rate, epsilon, keep1, take1, keep2, take2
    )


@overload(ftrl_row, inline="always", strict=False)
def _ftrl_row(
    mode: Any, w: Any, wi: int, zi: int, ni: int, g: Any, gi: int, n: int, inverse: Any, epsilon: Any, l1: Any, l2: Any
) -> Any:
    row = _vector_ftrl if mode == types.none else _scalar_ftrl
    return lambda mode, w, wi, zi, ni, g, gi, n, inverse, epsilon, l1, l2: row(
        w, wi, zi, ni, g, gi, n, inverse, epsilon, l1, l2
    )


@overload(add_squares, inline="always", strict=False)
def _add_squares(mode: Any, acc: Any, g: Any, gi: int, n: int) -> Any:
    row = _vector_squares if mode == types.none else _scalar_squares
    return lambda mode, acc, g, gi, n: row(acc, g, gi, n)


@overload(tree_sum, inline="always", strict=False)
def _tree_sum(mode: Any, acc: Any) -> Any:
    if mode == types.none:
        return lambda mode, acc: lanes.tree16(acc)
    return lambda mode, acc: _scalar_tree_sum(acc)
