"""Elements of columns as texts, keys and numbers: the only kernels that know how an Arrow array lies in memory.

A column is the address of its row in the column table. Of a map the elements are its keys; its items are another
column, `C_CHILD`, whose rows are the entries. Inner lists are such a column as well.
"""

from typing import Any

import numba as nb
import numpy as np

from featuregen.kernels import layout
from featuregen.kernels.memory import (
    equal_bytes,
    get,
    is_valid,
    jit,
    load_f64,
    load_i32,
    load_i64,
    store_i64,
    write_decimal,
)


@jit
def place(column: int, row: int) -> int:
    """Where a column has the value of a row of the operation."""
    return row * get(column, layout.C_STEP)


@jit
def span_at(column: int, at: int) -> Any:
    """First and last + 1 element at a place: of a list, or the place itself in a plain column."""
    offsets = get(column, layout.C_LIST)
    if offsets == 0:
        return at, at + 1
    if not is_valid(get(column, layout.C_VALID), get(column, layout.C_VALID_BIT) + at):
        return nb.int64(0), nb.int64(0)
    return load_i32(offsets + 4 * at), load_i32(offsets + 4 * at + 4)


@jit
def span(column: int, row: int) -> Any:
    """First and last + 1 element of a row."""
    return span_at(column, place(column, row))


@jit
def aligned(column: int, row: int, count: int) -> int:
    """First element of a list that must have `count` elements, -1 if it has not: the whole list is missing."""
    first, last = span(column, row)
    return first if last - first == count else -1


@jit
def text_of(column: int, element: int, scratch: int) -> Any:
    """Address and length of an element's text, length 0 if it is missing. An integer is written to `scratch`."""
    if not is_valid(get(column, layout.C_CHILD_VALID), get(column, layout.C_CHILD_BIT) + element):
        return nb.int64(0), nb.int64(0)
    data = get(column, layout.C_DATA)
    if get(column, layout.C_KIND) == layout.KIND_INT:
        return scratch, write_decimal(scratch, load_i64(data + 8 * element))
    texts = get(column, layout.C_TEXT)
    start, end = load_i32(texts + 4 * element), load_i32(texts + 4 * element + 4)
    return data + start, end - start


@jit
def key_of(column: int, element: int) -> Any:
    """An element as two numbers: (address, length) of a text, (value, -1) of an integer, (0, 0) if missing."""
    if not is_valid(get(column, layout.C_CHILD_VALID), get(column, layout.C_CHILD_BIT) + element):
        return nb.int64(0), nb.int64(0)
    data = get(column, layout.C_DATA)
    if get(column, layout.C_KIND) == layout.KIND_INT:
        return load_i64(data + 8 * element), nb.int64(-1)
    texts = get(column, layout.C_TEXT)
    start, end = load_i32(texts + 4 * element), load_i32(texts + 4 * element + 4)
    return data + start, end - start


@jit
def same_key(a: int, size_a: int, b: int, size_b: int) -> bool:
    """Says whether two keys of the same type are equal."""
    return size_a == size_b and (a == b or (size_a > 0 and equal_bytes(a, b, size_a)))


@jit
def number_of(column: int, element: int) -> float:
    """An element as float64, NaN if it is missing."""
    if not is_valid(get(column, layout.C_CHILD_VALID), get(column, layout.C_CHILD_BIT) + element):
        return np.nan
    data = get(column, layout.C_DATA)
    if get(column, layout.C_KIND) == layout.KIND_INT:
        return float(load_i64(data + 8 * element))
    return load_f64(data + 8 * element)


@jit
def gather_texts(column: int, row: int, target: int) -> int:
    """Writes the texts of a row that are not missing, `TEXT_BYTES` each; returns their number."""
    first, last = span(column, row)
    count = 0
    for element in range(first, last):
        record = target + layout.TEXT_BYTES * count
        text, size = text_of(column, element, record + 16)
        if size > 0:
            store_i64(record, text)
            store_i64(record + 8, size)
            count += 1
    return count


@jit
def is_last_of_its_key(column: int, entry: int, last: int) -> bool:
    """Says whether a map's entry exists: its key is not empty and no later entry before `last` has the same."""
    data, texts = get(column, layout.C_DATA), get(column, layout.C_TEXT)
    start = load_i32(texts + 4 * entry)
    size = load_i32(texts + 4 * entry + 4) - start
    return size > 0 and last_of_key(column, entry, last, data + start, size) == entry


@jit
def last_of_key(column: int, first: int, last: int, text: int, size: int) -> int:
    """The entry of a map that has a key, -1 if none has: the last of equal keys counts."""
    data, texts = get(column, layout.C_DATA), get(column, layout.C_TEXT)
    end = load_i32(texts + 4 * last)
    for entry in range(last - 1, first - 1, -1):
        start = load_i32(texts + 4 * entry)
        if end - start == size and equal_bytes(data + start, text, size):
            return entry
        end = start
    return -1
