"""What happens to one row: copy, or one step of an optimizer; vector instructions, or scalars with the same bits.

Both sides do every addition, product, root and division in the same order and never fuse them, so IEEE 754 makes the
results equal bit for bit. The mean square of RowwiseAdagrad adds in a fixed order: 16 lanes, each over every sixteenth
column, then a tree of halves.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numba as nb
import numpy as np

from kuberec_runtime.table import lanes

SWITCH = "KUBEREC_SCALAR_KERNELS"
"""Environment variable; `1` chooses the scalar kernels."""


@dataclass(frozen=True)
class RowOps:
    """The row operations that kernels are built from; each is a jitted function of flat float32 arrays and offsets.

    Attributes:
        copy: (dst, di, src, si, n): copies n floats.
        sgd: (w, wi, g, gi, n, rate): w -= rate * g.
        adagrad: (w, wi, ai, g, gi, n, rate, epsilon): per-column accumulator at w[ai:].
        squares: (acc16, g, gi, n): acc16[j % 16] += g[j]^2; acc16 has 16 floats.
    """

    copy: Callable[..., Any]
    sgd: Callable[..., Any]
    adagrad: Callable[..., Any]
    squares: Callable[..., Any]


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
def tree_sum(acc: Any) -> np.float32:
    """Sum of 16 floats by halves: lanes l and l + 8, then l and l + 4, l + 2, l + 1."""
    for j in range(8):
        acc[j] += acc[j + 8]
    for j in range(4):
        acc[j] += acc[j + 4]
    return (acc[0] + acc[2]) + (acc[1] + acc[3])


SCALAR = RowOps(_scalar_copy, _scalar_sgd, _scalar_adagrad, _scalar_squares)
VECTOR = RowOps(_vector_copy, _vector_sgd, _vector_adagrad, _vector_squares)


def scalar_wanted() -> bool:
    """Whether the environment asks for scalar kernels (`KUBEREC_SCALAR_KERNELS=1`)."""
    return os.environ.get(SWITCH, "") == "1"
