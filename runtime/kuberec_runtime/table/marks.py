"""Dirty marks: two bits a row, one for each consumer, so four rows to a byte and 32 to a word.

Marks of millions of rows stay in a core's cache that way, while the rows themselves come from memory: with one byte for
a row a push of random rows took a seventh longer.

Arguments named alike mean the same: `dirty` is uint8, and `words` the same memory as int64; `bit` is a consumer's.
"""

from typing import Any

import numba as nb
import numpy as np

from kuberec_runtime.table.buckets import I64
from kuberec_runtime.table.compiled import kernel
from kuberec_runtime.table.lanes import trailing_zeros

CHECKPOINT_BIT, PUBLICATION_BIT = 1, 2
BOTH = CHECKPOINT_BIT | PUBLICATION_BIT
ROWS_IN_WORD = 32


@nb.njit(inline="always")
def mark(dirty: Any, row: Any, bits: Any) -> None:
    """Sets a row's bits. For kernels."""
    dirty[row >> 2] |= np.uint8(bits << (2 * (row & 3)))


@nb.njit(inline="always")
def unmark(dirty: Any, row: Any) -> None:
    """Clears both bits of a row. For kernels."""
    dirty[row >> 2] &= np.uint8(~(BOTH << (2 * (row & 3))))


@nb.njit(inline="always")
def _everywhere(bit: int) -> np.uint64:
    """A word with the bit of all its rows."""
    return np.uint64(bit) * np.uint64(0x5555555555555555)


@kernel
def scan(words: Any, n: int, bit: int, out: Any) -> int:
    """Writes the numbers of rows with the bit set into out, ascending; returns how many."""
    mask = np.int64(_everywhere(bit))
    found = 0
    for at in range((n + ROWS_IN_WORD - 1) // ROWS_IN_WORD):
        left = words[at] & mask
        while left != 0:
            row = ROWS_IN_WORD * at + (trailing_zeros(left) >> 1)
            if row >= n:
                break
            out[found] = row
            found += 1
            left &= left - 1
    return found


@kernel
def mark_rows(dirty: Any, index: Any, n: int, bit: int) -> None:
    """Sets the bit of the rows index[:n]; negative numbers are passed over."""
    for i in range(n):
        if index[i] >= 0:
            mark(dirty, index[i], bit)


def count(words: I64, bit: int) -> int:
    """How many rows have the bit set."""
    return int(np.bitwise_count(words.view(np.uint64) & _everywhere.py_func(bit)).sum())


def clear(words: I64, bit: int) -> None:
    """Clears the bit of all rows."""
    words.view(np.uint64)[:] &= ~_everywhere.py_func(bit)


def words_of(rows: int) -> int:
    """How many words hold the marks of so many rows."""
    return -(-rows // ROWS_IN_WORD)
