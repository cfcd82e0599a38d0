"""Loops over rows: gather, one optimizer step, scatter, and the scans of dirty marks.

All run without the GIL and allocate nothing but a 64-byte scratch. Rows are prefetched `AHEAD` iterations before use: a
row is somewhere in gigabytes, and waiting for one line at a time would cost 100 ns each.

Arguments named alike mean the same: `mode` is None for vector instructions and True for scalars; `rows` and
`bits` are the row arena as float32 and as uint32; `index` has int64 row numbers; `pitch` is floats from row to row;
`dirty` has one byte per row.
"""

from typing import Any

import numpy as np

from kuberec_runtime.table.compiled import kernel
from kuberec_runtime.table.lanes import prefetch
from kuberec_runtime.table.rowops import adagrad_row, add_squares, copy_row, sgd_row, tree_sum

AHEAD = 32
CHECKPOINT_BIT, PUBLICATION_BIT = 1, 2
BOTH = CHECKPOINT_BIT | PUBLICATION_BIT


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
        bits[at + frequency] += np.uint32(1)
        bits[at + frequency + 1] = now
        dirty[index[i]] = np.uint8(BOTH)


@kernel
def adagrad(
    mode: Any, rows: Any, bits: Any, dirty: Any, index: Any, grads: Any, n: int, pitch: int, width: int,
    frequency: int, now: np.uint32, rate: np.float32, epsilon: np.float32,
) -> None:  # fmt: skip
    """Per column acc += g^2, then w -= rate * g / (sqrt(acc) + epsilon); counts, stamps and marks the row."""
    for i in range(n):
        if i + AHEAD < n:
            at = index[i + AHEAD] * pitch
            for j in range(0, pitch, 16):
                prefetch(rows, at + j)
            prefetch(rows, at + pitch - 1)
        at = index[i] * pitch
        adagrad_row(mode, rows, at, at + width, grads, i * width, width, rate, epsilon)
        bits[at + frequency] += np.uint32(1)
        bits[at + frequency + 1] = now
        dirty[index[i]] = np.uint8(BOTH)


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
        bits[at + frequency] += np.uint32(1)
        bits[at + frequency + 1] = now
        dirty[index[i]] = np.uint8(BOTH)


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
