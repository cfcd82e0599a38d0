"""Loops over rows, built once for vector and once for scalar row operations: gather, update, scan, scatter.

All run without the GIL and allocate nothing but a 64-byte scratch. Rows are prefetched `AHEAD` iterations before use: a
row is somewhere in gigabytes, and waiting for one line at a time would cost 100 ns each.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

import numba as nb
import numpy as np

from kuberec_runtime.table.lanes import prefetch
from kuberec_runtime.table.rowops import SCALAR, VECTOR, RowOps, tree_sum

AHEAD = 32
CHECKPOINT_BIT, PUBLICATION_BIT = 1, 2
BOTH = CHECKPOINT_BIT | PUBLICATION_BIT


@dataclass(frozen=True)
class Kernels:
    """Compiled loops; arguments named alike mean the same everywhere.

    rows/bits: the row arena as float32 and as uint32; index: int64 row numbers; pitch: floats from row to row.

    Attributes:
        gather: (rows, index, n, pitch, width, out): out[i] = weights of row index[i]; index < 0 is left alone.
        gather_at: (rows, index, at, n, pitch, width, out): the same for positions at[:n] only.
        scatter: (rows, index, raw, n, pitch, stride): row index[i] = raw[i].
        rowwise_adagrad, adagrad, sgd: (rows, bits, dirty, index, grads, n, pitch, width, frequency column, now, rate,
            epsilon): one optimizer step per row; counts, stamps and marks the row dirty for both consumers.
    """

    gather: Any
    gather_at: Any
    scatter: Any
    rowwise_adagrad: Any
    adagrad: Any
    sgd: Any


def _build(ops: RowOps) -> Kernels:
    copy, sgd_row, adagrad_row, squares = ops.copy, ops.sgd, ops.adagrad, ops.squares

    @nb.njit(nogil=True, boundscheck=False)
    def gather(rows: Any, index: Any, n: int, pitch: int, width: int, out: Any) -> None:
        for i in range(n):
            if i + AHEAD < n:
                at = index[i + AHEAD] * pitch
                prefetch(rows, at)
                prefetch(rows, at + width - 1)
            if index[i] >= 0:
                copy(out, i * width, rows, index[i] * pitch, width)

    @nb.njit(nogil=True, boundscheck=False)
    def gather_at(rows: Any, index: Any, at: Any, n: int, pitch: int, width: int, out: Any) -> None:
        for i in range(n):
            copy(out, at[i] * width, rows, index[at[i]] * pitch, width)

    @nb.njit(nogil=True, boundscheck=False)
    def scatter(rows: Any, index: Any, raw: Any, n: int, pitch: int, stride: int) -> None:
        for i in range(n):
            copy(rows, index[i] * pitch, raw, i * stride, stride)

    @nb.njit(nogil=True, boundscheck=False)
    def rowwise_adagrad(
        rows: Any, bits: Any, dirty: Any, index: Any, grads: Any, n: int, pitch: int, width: int,
        frequency: int, now: np.uint32, rate: np.float32, epsilon: np.float32,
    ) -> None:  # fmt: skip
        acc = np.empty(16, np.float32)
        share = np.float32(1.0) / np.float32(width)
        for i in range(n):
            if i + AHEAD < n:
                at = index[i + AHEAD] * pitch
                prefetch(rows, at)
                prefetch(rows, at + pitch - 1)
            at = index[i] * pitch
            for j in range(16):
                acc[j] = np.float32(0.0)
            squares(acc, grads, i * width, width)
            state = rows[at + width] + tree_sum(acc) * share
            rows[at + width] = state
            sgd_row(rows, at, grads, i * width, width, rate / (np.sqrt(state) + epsilon))
            bits[at + frequency] += np.uint32(1)
            bits[at + frequency + 1] = now
            dirty[index[i]] = np.uint8(BOTH)

    @nb.njit(nogil=True, boundscheck=False)
    def adagrad(
        rows: Any, bits: Any, dirty: Any, index: Any, grads: Any, n: int, pitch: int, width: int,
        frequency: int, now: np.uint32, rate: np.float32, epsilon: np.float32,
    ) -> None:  # fmt: skip
        for i in range(n):
            if i + AHEAD < n:
                at = index[i + AHEAD] * pitch
                for j in range(0, pitch, 16):
                    prefetch(rows, at + j)
                prefetch(rows, at + pitch - 1)
            at = index[i] * pitch
            adagrad_row(rows, at, at + width, grads, i * width, width, rate, epsilon)
            bits[at + frequency] += np.uint32(1)
            bits[at + frequency + 1] = now
            dirty[index[i]] = np.uint8(BOTH)

    @nb.njit(nogil=True, boundscheck=False)
    def sgd(
        rows: Any, bits: Any, dirty: Any, index: Any, grads: Any, n: int, pitch: int, width: int,
        frequency: int, now: np.uint32, rate: np.float32, epsilon: np.float32,
    ) -> None:  # fmt: skip
        for i in range(n):
            if i + AHEAD < n:
                at = index[i + AHEAD] * pitch
                prefetch(rows, at)
                prefetch(rows, at + pitch - 1)
            at = index[i] * pitch
            sgd_row(rows, at, grads, i * width, width, rate)
            bits[at + frequency] += np.uint32(1)
            bits[at + frequency + 1] = now
            dirty[index[i]] = np.uint8(BOTH)

    return Kernels(gather, gather_at, scatter, rowwise_adagrad, adagrad, sgd)


@cache
def kernels(scalar: bool) -> Kernels:
    """The loops over scalar or over vector row operations; compiled on first use, once per process."""
    return _build(SCALAR if scalar else VECTOR)


@nb.njit(nogil=True, boundscheck=False)
def scan_dirty(dirty: Any, words: Any, n: int, bit: np.uint8, out: Any) -> int:
    """Writes the numbers of rows with `bit` set into out, ascending; returns how many. `words` is `dirty` as int64."""
    mask = np.int64(0)
    for j in range(8):
        mask |= np.int64(bit) << np.int64(8 * j)
    found = 0
    for block in range((n + 7) // 8):
        if words[block] & mask == 0:
            continue
        for i in range(8 * block, min(8 * block + 8, n)):
            if dirty[i] & bit:
                out[found] = i
                found += 1
    return found


@nb.njit(nogil=True, boundscheck=False)
def count_dirty(dirty: Any, words: Any, n: int, bit: np.uint8) -> int:
    """Number of rows with `bit` set among the first n."""
    mask = np.int64(0)
    for j in range(8):
        mask |= np.int64(bit) << np.int64(8 * j)
    found = 0
    for block in range((n + 7) // 8):
        if words[block] & mask == 0:
            continue
        for i in range(8 * block, min(8 * block + 8, n)):
            if dirty[i] & bit:
                found += 1
    return found


@nb.njit(nogil=True, boundscheck=False)
def clear_bit(dirty: Any, index: Any, n: int, bit: np.uint8) -> None:
    """Clears `bit` of the rows index[:n]."""
    keep = np.uint8(~bit)
    for i in range(n):
        dirty[index[i]] &= keep


@nb.njit(nogil=True, boundscheck=False)
def set_bit(dirty: Any, index: Any, n: int, bit: np.uint8) -> None:
    """Sets `bit` of the rows index[:n]; negative numbers are passed over."""
    for i in range(n):
        if index[i] >= 0:
            dirty[index[i]] |= bit


@nb.njit(nogil=True, boundscheck=False)
def missing(index: Any, n: int, out: Any) -> int:
    """Writes the positions of index[:n] that are negative into out; returns how many."""
    found = 0
    for i in range(n):
        if index[i] < 0:
            out[found] = i
            found += 1
    return found
