"""Elements of columns as texts and keys: the part of the kernels that every operator shares."""

from typing import Any

import numba as nb
import numpy as np

from featuregen.kernels_hash import farm64
from featuregen.kernels_memory import equal_bytes, is_valid, jit, load_i32, load_i64, write_decimal
from featuregen.layout import (
    C_CHILD_BIT,
    C_CHILD_VALID,
    C_DATA,
    C_KIND,
    C_LIST,
    C_STEP,
    C_TEXT,
    C_VALID,
    C_VALID_BIT,
    KIND_INT,
)

U = np.uint64

_SPREAD = U(0x9E3779B97F4A7C15)


@jit
def span(column: Any, row: int) -> Any:
    """First and last + 1 element of a row: of a list, or of the row itself."""
    at = row * column[C_STEP]
    if column[C_LIST] == 0:
        return at, at + 1
    if not is_valid(column[C_VALID], column[C_VALID_BIT] + at):
        return nb.int64(0), nb.int64(0)
    return load_i32(column[C_LIST] + 4 * at), load_i32(column[C_LIST] + 4 * at + 4)


@jit
def text_of(kind: int, data: int, texts: int, bitmap: int, bit: int, element: int, scratch: int) -> Any:
    """Address and length of an element's text, length 0 if it is missing. An integer is written to `scratch`."""
    if not is_valid(bitmap, bit + element):
        return nb.int64(0), nb.int64(0)
    if kind == KIND_INT:
        return scratch, write_decimal(scratch, load_i64(data + 8 * element))
    start, end = load_i32(texts + 4 * element), load_i32(texts + 4 * element + 4)
    return data + start, end - start


@jit
def element_text(column: Any, element: int, scratch: int) -> Any:
    """`text_of` for a row of the column table; hot loops hoist the fields and pass scalars, which is much cheaper."""
    return text_of(
        column[C_KIND],
        column[C_DATA],
        column[C_TEXT],
        column[C_CHILD_VALID],
        column[C_CHILD_BIT],
        element,
        scratch,
    )


@jit
def key_of(kind: int, data: int, texts: int, bitmap: int, bit: int, element: int) -> Any:
    """An element as two numbers: (address, length) of a text, (value, -1) of an integer, (0, 0) if missing."""
    if not is_valid(bitmap, bit + element):
        return nb.int64(0), nb.int64(0)
    if kind == KIND_INT:
        return load_i64(data + 8 * element), nb.int64(-1)
    start, end = load_i32(texts + 4 * element), load_i32(texts + 4 * element + 4)
    return data + start, end - start


@jit
def same_key(a: int, size_a: int, b: int, size_b: int) -> bool:
    """Says whether two keys of the same type are equal."""
    return size_a == size_b and (a == b or (size_a > 0 and equal_bytes(a, b, size_a)))


@jit
def hash_key(a: int, size: int) -> int:
    """A hash for tables that live as long as one call; never seen outside."""
    if size < 0:
        return nb.int64((nb.uint64(a) * _SPREAD) >> U(20))
    return nb.int64(farm64(a, size))


@jit
def find_text(slots: int, capacity: int, offsets: int, data: int, text: int, size: int) -> int:
    """Index of a text in an open-addressing table over Arrow texts, -1 if it is not there."""
    at = nb.int64(farm64(text, size)) & (capacity - 1)
    while True:
        found = load_i32(slots + 4 * at) - 1
        if found < 0:
            return -1
        start = load_i32(offsets + 4 * found)
        if load_i32(offsets + 4 * found + 4) - start == size and equal_bytes(data + start, text, size):
            return found
        at = (at + 1) & (capacity - 1)
