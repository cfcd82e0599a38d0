"""Loops over rows: gather, one optimizer step, scatter.

All run without the GIL and allocate nothing but a 64-byte scratch. Rows are prefetched `AHEAD` iterations before use: a
row is somewhere in gigabytes, and waiting for one line at a time would cost 100 ns each. What is only read is asked for
once: past the outer caches, so that the line beside it, which nobody wants, does not come along.

Arguments named alike mean the same: `mode` is None for vector instructions and True for scalars; `rows` begins with the
first body, `tails` with the first tail, and `bits` is the latter as uint32; `index` has int64 row numbers;
`shape` has floats from one body and from one tail to the next and of the weights, as `RowLayout.step_shape` gives them;
`dirty` has the marks of rows, see `marks`.
"""

from typing import Any

import numba as nb
import numpy as np

from kuberec_runtime.table.compiled import kernel
from kuberec_runtime.table.lanes import prefetch, prefetch_once, prefetch_to_write
from kuberec_runtime.table.marks import BOTH, mark
from kuberec_runtime.table.rowops import adagrad_row, adam_row, add_squares, copy_row, ftrl_row, sgd_row, tree_sum
from kuberec_runtime.table.sizes import LINE, fills_lines, size_of

AHEAD = 32
DIGIT, LAST_DIGIT = 256, 512
"""Base of the digits that Adam's step count is cut into, and places for each: the last one may go up to 256."""


@nb.njit(inline="always")
def _prefetch_row(rows: Any, bits: Any, row: int, grads: Any, i: int, shape: Any) -> None:
    """Prefetches a row's body and tail, and its gradient: what else is under way keeps the processor from that."""
    pitch, tail_pitch, width = size_of(shape[0]), size_of(shape[1]), size_of(shape[2])
    at = row * pitch
    for j in range(0, pitch, LINE):
        prefetch_to_write(rows, at + j)
    if not fills_lines(shape[0]):
        prefetch_to_write(rows, at + pitch - 1)
    prefetch_to_write(bits, row * tail_pitch)
    for j in range(0, width, LINE):
        prefetch(grads, i * width + j)


@nb.njit(inline="always")
def _pushed(bits: Any, dirty: Any, row: int, counters: int, now: np.uint32) -> None:
    bits[counters] += np.uint32(1)
    bits[counters + 1] = now
    mark(dirty, row, BOTH)


@kernel
def gather(mode: Any, rows: Any, index: Any, n: int, shape: Any, out: Any) -> None:
    """out[i] = the first floats of row index[i], shape (floats from row to row, floats of each); -1: out[i] stays."""
    pitch, width = size_of(shape[0]), size_of(shape[1])
    for i in range(n):
        if i + AHEAD < n:
            at = index[i + AHEAD] * pitch
            for j in range(0, width, LINE):
                prefetch_once(rows, at + j)
                prefetch_to_write(out, (i + AHEAD) * width + j)
            if not fills_lines(shape[0]):
                prefetch_once(rows, at + width - 1)
        if index[i] >= 0:
            copy_row(mode, out, i * width, rows, index[i] * pitch, width)


@kernel
def scatter(mode: Any, rows: Any, index: Any, values: Any, n: int, shape: Any) -> None:
    """The reverse of `gather`, in order: of a row named twice the later one wins."""
    pitch, width = size_of(shape[0]), size_of(shape[1])
    for i in range(n):
        copy_row(mode, rows, index[i] * pitch, values, i * width, width)


@kernel
def gather_raw(
    mode: Any, rows: Any, tails: Any, keys: Any, index: Any, n: int, shape: Any, raw: Any, taken: Any
) -> None:
    """raw[i] = body and tail of row index[i], and taken[i] its key; `keys` has the key of each row.

    `shape` is (floats from body to body, from tail to tail, of a body, of a tail).
    """
    pitch, tail_pitch, body, tail = shape
    stride = body + tail
    for i in range(n):
        if i + AHEAD < n:
            ahead = index[i + AHEAD]
            for j in range(0, body, LINE):
                prefetch(rows, ahead * pitch + j)
                prefetch_to_write(raw, (i + AHEAD) * stride + j)
            prefetch(rows, ahead * pitch + body - 1)
            prefetch(tails, ahead * tail_pitch)
            prefetch(keys, ahead)
        taken[i] = keys[index[i]]
        copy_row(mode, raw, i * stride, rows, index[i] * pitch, body)
        for j in range(tail):
            raw[i * stride + body + j] = tails[index[i] * tail_pitch + j]


@kernel
def scatter_raw(mode: Any, rows: Any, tails: Any, index: Any, raw: Any, n: int, shape: Any) -> None:
    """The reverse of `gather_raw` but for keys, in order: of a row named twice the later one wins."""
    pitch, tail_pitch, body, tail = shape
    stride = body + tail
    for i in range(n):
        copy_row(mode, rows, index[i] * pitch, raw, i * stride, body)
        for j in range(tail):
            tails[index[i] * tail_pitch + j] = raw[i * stride + body + j]


@kernel
def rowwise_adagrad(
    mode: Any, rows: Any, tails: Any, bits: Any, dirty: Any, index: Any, grads: Any, n: int, shape: Any,
    now: np.uint32, rate: np.float32, epsilon: np.float32,
) -> None:  # fmt: skip
    """Adds mean(g^2) to the row's accumulator, then w -= rate / (sqrt(acc) + epsilon) * g; counts, stamps, marks."""
    pitch, tail_pitch, width = size_of(shape[0]), size_of(shape[1]), size_of(shape[2])
    acc = np.empty(16, np.float32)
    share = np.float32(1.0) / np.float32(width)
    for i in range(n):
        if i + AHEAD < n:
            _prefetch_row(rows, bits, index[i + AHEAD], grads, i + AHEAD, shape)
        at, tail = index[i] * pitch, index[i] * tail_pitch
        for j in range(16):
            acc[j] = np.float32(0.0)
        add_squares(mode, acc, grads, i * width, width)
        state = tails[tail] + tree_sum(mode, acc) * share
        tails[tail] = state
        sgd_row(mode, rows, at, grads, i * width, width, rate / (np.sqrt(state) + epsilon))
        _pushed(bits, dirty, index[i], tail + 1, now)


@kernel
def adagrad(
    mode: Any, rows: Any, tails: Any, bits: Any, dirty: Any, index: Any, grads: Any, n: int, shape: Any,
    now: np.uint32, rate: np.float32, epsilon: np.float32,
) -> None:  # fmt: skip
    """Per column acc += g^2, then w -= rate * g / (sqrt(acc) + epsilon); counts, stamps and marks the row."""
    pitch, tail_pitch, width = size_of(shape[0]), size_of(shape[1]), size_of(shape[2])
    for i in range(n):
        if i + AHEAD < n:
            _prefetch_row(rows, bits, index[i + AHEAD], grads, i + AHEAD, shape)
        at = index[i] * pitch
        adagrad_row(mode, rows, at, at + width, grads, i * width, width, rate, epsilon)
        _pushed(bits, dirty, index[i], index[i] * tail_pitch, now)


@kernel
def adam(
    mode: Any, rows: Any, tails: Any, bits: Any, dirty: Any, index: Any, grads: Any, n: int, shape: Any,
    now: np.uint32, rate: float, epsilon: float, keep1: np.float32, take1: np.float32,
    keep2: np.float32, take2: np.float32, powers: Any,
) -> None:  # fmt: skip
    """Lazy Adam (Kingma & Ba 2015, algorithm 1): moments and the step count t are the row's own.

    m = beta1 m + (1 - beta1) g, v = beta2 v + (1 - beta2) g^2, and with r = sqrt(1 - beta2^t)
    w -= rate r / (1 - beta1^t) * m / (sqrt(v) + epsilon r): the algorithm's m^ / (sqrt(v^) + epsilon), both corrections
    pulled out of the columns, computed in float64 and rounded once. `powers` is of `optimizers.powers`. t is kept as a
    float32 and stays at 2^24, where the corrections of any beta up to 0.999999 have long been 1.
    """
    pitch, tail_pitch, width = size_of(shape[0]), size_of(shape[1]), size_of(shape[2])
    for i in range(n):
        if i + AHEAD < n:
            _prefetch_row(rows, bits, index[i + AHEAD], grads, i + AHEAD, shape)
        at, tail = index[i] * pitch, index[i] * tail_pitch
        count = tails[tail] + np.float32(1.0)
        tails[tail] = count
        t = np.int64(count)
        low, middle, high = t & (DIGIT - 1), (t >> 8) & (DIGIT - 1), (t >> 16) & (LAST_DIGIT - 1)
        left = 1.0 - powers[0, low, 0] * powers[1, middle, 0] * powers[2, high, 0]
        root = np.sqrt(1.0 - powers[0, low, 1] * powers[1, middle, 1] * powers[2, high, 1])
        adam_row(
            mode, rows, at, at + width, at + 2 * width, grads, i * width, width, np.float32(rate * root / left),
            np.float32(epsilon * root), keep1, take1, keep2, take2,
        )  # fmt: skip
        _pushed(bits, dirty, index[i], tail + 1, now)


@kernel
def ftrl(
    mode: Any, rows: Any, tails: Any, bits: Any, dirty: Any, index: Any, grads: Any, n: int, shape: Any,
    now: np.uint32, inverse: np.float32, epsilon: np.float32, l1: np.float32, l2: np.float32,
) -> None:  # fmt: skip
    """FTRL-Proximal (McMahan et al. 2013, algorithm 1): z and n per column, `inverse` is 1 / rate, `epsilon` its beta.

    sigma = (sqrt(n + g^2) - sqrt(n)) / rate, z += g - sigma w, n += g^2, and
    w = (clip(z, -l1, l1) - z) / ((epsilon + sqrt(n)) / rate + l2), which is 0 where |z| <= l1.
    """
    pitch, tail_pitch, width = size_of(shape[0]), size_of(shape[1]), size_of(shape[2])
    for i in range(n):
        if i + AHEAD < n:
            _prefetch_row(rows, bits, index[i + AHEAD], grads, i + AHEAD, shape)
        at = index[i] * pitch
        ftrl_row(mode, rows, at, at + width, at + 2 * width, grads, i * width, width, inverse, epsilon, l1, l2)
        _pushed(bits, dirty, index[i], index[i] * tail_pitch, now)


@kernel
def sgd(
    mode: Any, rows: Any, tails: Any, bits: Any, dirty: Any, index: Any, grads: Any, n: int, shape: Any,
    now: np.uint32, rate: np.float32, epsilon: np.float32,
) -> None:  # fmt: skip
    """Per column w -= rate * g; counts, stamps and marks the row. `epsilon` is not used."""
    pitch, tail_pitch, width = size_of(shape[0]), size_of(shape[1]), size_of(shape[2])
    for i in range(n):
        if i + AHEAD < n:
            _prefetch_row(rows, bits, index[i + AHEAD], grads, i + AHEAD, shape)
        at = index[i] * pitch
        sgd_row(mode, rows, at, grads, i * width, width, rate)
        _pushed(bits, dirty, index[i], index[i] * tail_pitch, now)


@kernel
def scan_live(keys: Any, n: int, out: Any) -> int:
    """Writes the numbers of rows that have a key (>= 0) into out, ascending; returns how many.

    `out` needs room for one number more than there are: a number is written first and counted afterwards, as a branch
    that is right half of the time costs more than a store.
    """
    found = 0
    for i in range(n):
        out[found] = i
        found += int(keys[i] >= 0)
    return found
