"""Loops over rows: gather, one optimizer step, scatter, and the scans of dirty marks.

All run without the GIL and allocate nothing but a 64-byte scratch. Rows are prefetched `AHEAD` iterations before use: a
row is somewhere in gigabytes, and waiting for one line at a time would cost 100 ns each.

Arguments named alike mean the same: `mode` is None for vector instructions and True for scalars; `rows` and
`bits` are the row arena as float32 and as uint32; `index` has int64 row numbers; `pitch` is floats from row to row;
`dirty` has one byte per row.
"""

from typing import Any

import numba as nb
import numpy as np

from kuberec_runtime.table.compiled import kernel
from kuberec_runtime.table.lanes import prefetch
from kuberec_runtime.table.rowops import adagrad_row, adam_row, add_squares, copy_row, ftrl_row, sgd_row, tree_sum

AHEAD = 32
CHECKPOINT_BIT, PUBLICATION_BIT = 1, 2
BOTH = CHECKPOINT_BIT | PUBLICATION_BIT
DIGIT, LAST_DIGIT = 256, 512
"""Base of the digits that Adam's step count is cut into, and places for each: the last one may go up to 256."""


@nb.njit(inline="always")
def _prefetch_row(rows: Any, at: int, pitch: int) -> None:
    for j in range(0, pitch, 16):
        prefetch(rows, at + j)
    prefetch(rows, at + pitch - 1)


@nb.njit(inline="always")
def _pushed(bits: Any, dirty: Any, row: int, counters: int, now: np.uint32) -> None:
    bits[counters] += np.uint32(1)
    bits[counters + 1] = now
    dirty[row] = np.uint8(BOTH)


@kernel
def gather(mode: Any, rows: Any, index: Any, n: int, pitch: int, width: int, out: Any) -> None:
    """out[i] = the first `width` floats of row index[i]; a negative number leaves out[i] alone."""
    for i in range(n):
        if i + AHEAD < n:
            at = index[i + AHEAD] * pitch
            prefetch(rows, at)
            prefetch(rows, at + width - 1)
        if index[i] >= 0:
            copy_row(mode, out, i * width, rows, index[i] * pitch, width)


@kernel
def scatter(mode: Any, rows: Any, index: Any, raw: Any, n: int, pitch: int, stride: int) -> None:
    """Row index[i] = raw[i], `stride` floats each, in order: of a row named twice the later one wins."""
    for i in range(n):
        copy_row(mode, rows, index[i] * pitch, raw, i * stride, stride)


@kernel
def rowwise_adagrad(
    mode: Any, rows: Any, bits: Any, dirty: Any, index: Any, grads: Any, n: int, pitch: int, width: int,
    frequency: int, now: np.uint32, rate: np.float32, epsilon: np.float32,
) -> None:  # fmt: skip
    """Adds mean(g^2) to the row's accumulator, then w -= rate / (sqrt(acc) + epsilon) * g; counts, stamps, marks."""
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
        add_squares(mode, acc, grads, i * width, width)
        state = rows[at + width] + tree_sum(acc) * share
        rows[at + width] = state
        sgd_row(mode, rows, at, grads, i * width, width, rate / (np.sqrt(state) + epsilon))
        _pushed(bits, dirty, index[i], at + frequency, now)


@kernel
def adagrad(
    mode: Any, rows: Any, bits: Any, dirty: Any, index: Any, grads: Any, n: int, pitch: int, width: int,
    frequency: int, now: np.uint32, rate: np.float32, epsilon: np.float32,
) -> None:  # fmt: skip
    """Per column acc += g^2, then w -= rate * g / (sqrt(acc) + epsilon); counts, stamps and marks the row."""
    for i in range(n):
        if i + AHEAD < n:
            _prefetch_row(rows, index[i + AHEAD] * pitch, pitch)
        at = index[i] * pitch
        adagrad_row(mode, rows, at, at + width, grads, i * width, width, rate, epsilon)
        _pushed(bits, dirty, index[i], at + frequency, now)


@kernel
def adam(
    mode: Any, rows: Any, bits: Any, dirty: Any, index: Any, grads: Any, n: int, pitch: int, width: int,
    frequency: int, now: np.uint32, rate: float, epsilon: float, keep1: np.float32, take1: np.float32,
    keep2: np.float32, take2: np.float32, powers: Any,
) -> None:  # fmt: skip
    """Lazy Adam (Kingma & Ba 2015, algorithm 1): moments and the step count t are the row's own.

    m = beta1 m + (1 - beta1) g, v = beta2 v + (1 - beta2) g^2, and with r = sqrt(1 - beta2^t)
    w -= rate r / (1 - beta1^t) * m / (sqrt(v) + epsilon r): the algorithm's m^ / (sqrt(v^) + epsilon), both corrections
    pulled out of the columns, computed in float64 and rounded once. `powers` is of `optimizers.powers`. t is kept as a
    float32 and stays at 2^24, where the corrections of any beta up to 0.999999 have long been 1.
    """
    for i in range(n):
        if i + AHEAD < n:
            _prefetch_row(rows, index[i + AHEAD] * pitch, pitch)
        at = index[i] * pitch
        count = rows[at + 3 * width] + np.float32(1.0)
        rows[at + 3 * width] = count
        t = np.int64(count)
        low, middle, high = t & (DIGIT - 1), (t >> 8) & (DIGIT - 1), (t >> 16) & (LAST_DIGIT - 1)
        left = 1.0 - powers[0, low, 0] * powers[1, middle, 0] * powers[2, high, 0]
        root = np.sqrt(1.0 - powers[0, low, 1] * powers[1, middle, 1] * powers[2, high, 1])
        adam_row(
            mode, rows, at, at + width, at + 2 * width, grads, i * width, width, np.float32(rate * root / left),
            np.float32(epsilon * root), keep1, take1, keep2, take2,
        )  # fmt: skip
        _pushed(bits, dirty, index[i], at + frequency, now)


@kernel
def ftrl(
    mode: Any, rows: Any, bits: Any, dirty: Any, index: Any, grads: Any, n: int, pitch: int, width: int,
    frequency: int, now: np.uint32, inverse: np.float32, epsilon: np.float32, l1: np.float32, l2: np.float32,
) -> None:  # fmt: skip
    """FTRL-Proximal (McMahan et al. 2013, algorithm 1): z and n per column, `inverse` is 1 / rate, `epsilon` its beta.

    sigma = (sqrt(n + g^2) - sqrt(n)) / rate, z += g - sigma w, n += g^2, and
    w = (clip(z, -l1, l1) - z) / ((epsilon + sqrt(n)) / rate + l2), which is 0 where |z| <= l1.
    """
    for i in range(n):
        if i + AHEAD < n:
            _prefetch_row(rows, index[i + AHEAD] * pitch, pitch)
        at = index[i] * pitch
        ftrl_row(mode, rows, at, at + width, at + 2 * width, grads, i * width, width, inverse, epsilon, l1, l2)
        _pushed(bits, dirty, index[i], at + frequency, now)


@kernel
def sgd(
    mode: Any, rows: Any, bits: Any, dirty: Any, index: Any, grads: Any, n: int, pitch: int, width: int,
    frequency: int, now: np.uint32, rate: np.float32, epsilon: np.float32,
) -> None:  # fmt: skip
    """Per column w -= rate * g; counts, stamps and marks the row. `epsilon` is not used."""
    for i in range(n):
        if i + AHEAD < n:
            at = index[i + AHEAD] * pitch
            prefetch(rows, at)
            prefetch(rows, at + pitch - 1)
        at = index[i] * pitch
        sgd_row(mode, rows, at, grads, i * width, width, rate)
        _pushed(bits, dirty, index[i], at + frequency, now)


@kernel
def scan_dirty(dirty: Any, words: Any, n: int, bit: np.uint8, out: Any) -> int:
    """Writes the numbers of rows with `bit` set into out, ascending; returns how many. `words` is `dirty` as int64.

    `out` needs room for one number more than there are: a number is written first and counted afterwards, as a branch
    that is right half of the time costs more than a store.
    """
    mask = np.int64(0)
    for j in range(8):
        mask |= np.int64(bit) << np.int64(8 * j)
    found = 0
    for block in range((n + 7) // 8):
        if words[block] & mask == 0:
            continue
        for i in range(8 * block, min(8 * block + 8, n)):
            out[found] = i
            found += int(dirty[i] & bit != 0)
    return found


@kernel
def scan_live(keys: Any, n: int, out: Any) -> int:
    """Writes the numbers of rows that have a key (>= 0) into out, ascending; returns how many. Room as `scan_dirty`."""
    found = 0
    for i in range(n):
        out[found] = i
        found += int(keys[i] >= 0)
    return found


@kernel
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


@kernel
def clear_bit(dirty: Any, index: Any, n: int, bit: np.uint8) -> None:
    """Clears `bit` of the rows index[:n]."""
    keep = np.uint8(~bit)
    for i in range(n):
        dirty[index[i]] &= keep


@kernel
def set_bit(dirty: Any, index: Any, n: int, bit: np.uint8) -> None:
    """Sets `bit` of the rows index[:n]; negative numbers are passed over."""
    for i in range(n):
        if index[i] >= 0:
            dirty[index[i]] |= bit
