"""Kernel of sequence: fields of visible events, or of plain lists, element by element. The oracle says what it means.

Fields stay aligned: what is missing or not encodable becomes the default, and nothing is dropped.
"""

from typing import Any

import numba as nb
import numpy as np

from featuregen.kernels import layout
from featuregen.kernels.columns import aligned, number_of, place, span, span_at
from featuregen.kernels.expression import evaluate
from featuregen.kernels.memory import get, jit, load_i32, store_f64, store_i32, store_i64
from featuregen.kernels.texts import encode_element, hash_element, is_plainly_hashed


@jit
def _elements(op: int, row: int) -> Any:
    """First and last + 1 element of a row: into the positions of events, or of the list itself."""
    length = get(op, layout.O_LENGTH)
    if get(op, layout.O_GROUP_POSITIONS) != 0:
        group = get(op, layout.O_GROUP_OFFSETS) + 4 * row * get(op, layout.O_GROUP_STEP)
        begin, end = load_i32(group), load_i32(group + 4)
        return max(begin, end - length), end
    first, last = span(get(op, layout.O_TS), row)
    return nb.int64(0), min(last - first, length)


@jit
def _position(op: int, at: int) -> int:
    """Where an element is in the lists of its row."""
    positions = get(op, layout.O_GROUP_POSITIONS)
    return load_i32(positions + 4 * at) if positions != 0 else at


@jit
def _write_ids(op: int, column: int, element: int, total: int) -> int:
    """Writes the ids of an element, at least one; returns the new number of ids. A negative element is missing."""
    before, ids = total, get(op, layout.O_IDS)
    if element >= 0 and get(op, layout.O_ELEMENTS) != 0:
        inner = get(column, layout.C_CHILD)
        first, last = span_at(inner, element)
        for value in range(first, last):
            found = encode_element(op, inner, value)
            if found >= 0:
                store_i64(ids + 8 * total, found)
                total += 1
    elif element >= 0:
        found = encode_element(op, column, element)
        if found >= 0:
            store_i64(ids + 8 * total, found)
            total += 1
    if total == before:
        store_i64(ids + 8 * total, get(op, layout.O_DEFAULT))
        total += 1
    return total


@jit
def _write_numbers(op: int, column: int, element: int, target: int) -> None:
    """Writes the numbers of an element. A negative element is missing."""
    width = get(op, layout.O_WIDTH)
    first = element
    inner = get(column, layout.C_CHILD)
    if element >= 0 and inner != 0:
        first, last = span_at(inner, element)
        if last - first != width:
            first = -1
    source = inner if inner != 0 else column
    for at in range(width):
        store_f64(target + 8 * at, number_of(source, first + at) if first >= 0 else np.nan)


@jit
def _compute(op: int, row: int, position: int, count: int) -> float:
    """The expression at a position of the row's lists of `count` elements, NaN if a variable is missing."""
    program = get(op, layout.O_EXPRESSION)
    columns, spans, wanted = get(program, layout.X_COLUMNS), get(program, layout.X_SPANS), get(program, layout.X_READ)
    for variable in range(get(program, layout.X_VARIABLES)):
        if (wanted >> variable) & 1 == 0:
            continue
        column = get(columns, variable)
        element = place(column, row)
        if get(column, layout.C_LIST) != 0:
            element = aligned(column, row, count)
            if element < 0:
                return np.nan
            element += position
        x = number_of(column, element)
        if x != x:
            return np.nan
        store_f64(get(spans, 2 * variable), x)
    return evaluate(program, nb.int64(0))


@jit
def _hashed(op: int, column: int) -> None:
    """`run_sequence` for texts that are hashed without a prefix, the common case: all fields in registers."""
    std, buckets, default = get(op, layout.O_STD), get(op, layout.O_BUCKETS), get(op, layout.O_DEFAULT)
    multiplier = get(op, layout.O_MULTIPLIER)
    texts, data = get(column, layout.C_TEXT), get(column, layout.C_DATA)
    bitmap, bit = get(column, layout.C_CHILD_VALID), get(column, layout.C_CHILD_BIT)
    ids, offsets, positions = get(op, layout.O_IDS), get(op, layout.O_OFFSETS), get(op, layout.O_GROUP_POSITIONS)
    total = 0
    store_i32(offsets, 0)
    for row in range(get(op, layout.O_ROWS)):
        first, last = span(get(op, layout.O_TS), row)
        start = aligned(column, row, last - first)
        begin, end = _elements(op, row)
        for at in range(begin, end):
            found = nb.int64(-1)
            if start >= 0:
                position = load_i32(positions + 4 * at) if positions != 0 else at
                found = hash_element(std, buckets, multiplier, texts, data, bitmap, bit, start + position)
            store_i64(ids + 8 * total, found if found >= 0 else default)
            total += 1
        if begin == end and get(op, layout.O_PAD) == 1:
            store_i64(ids + 8 * total, default)
            total += 1
        store_i32(offsets + 4 * row + 4, total)


@jit
def run_sequence(op: int) -> None:
    """Ids or numbers of the elements of each row."""
    column, numeric, computed = get(op, layout.O_A), get(op, layout.O_FOUND) != 0, get(op, layout.O_EXPRESSION) != 0
    if not numeric and get(op, layout.O_ELEMENTS) == 0 and is_plainly_hashed(op, column):
        _hashed(op, column)
        return
    multi, width = get(op, layout.O_ELEMENTS) != 0, get(op, layout.O_WIDTH)
    offsets = get(op, layout.O_FOUND_OFFSETS) if numeric else get(op, layout.O_OFFSETS)
    made, total = nb.int64(0), nb.int64(0)
    store_i32(offsets, 0)
    if multi:
        store_i32(get(op, layout.O_ELEMENTS), 0)
        store_i32(get(op, layout.O_ELEMENT_OFFSETS), 0)
    for row in range(get(op, layout.O_ROWS)):
        first, last = span(get(op, layout.O_TS), row)
        count = last - first
        start = aligned(column, row, count) if not computed else 0
        begin, end = _elements(op, row)
        padded = 1 if begin == end and get(op, layout.O_PAD) == 1 else 0
        for at in range(begin, end + padded):
            present = padded == 0 and start >= 0
            position = _position(op, at) if present else 0
            if numeric:
                target = get(op, layout.O_FOUND) + 8 * width * made
                if computed:
                    store_f64(target, _compute(op, row, position, count) if present else np.nan)
                else:
                    _write_numbers(op, column, start + position if present else -1, target)
            else:
                total = _write_ids(op, column, start + position if present else -1, total)
            made += 1
            if multi:
                store_i32(get(op, layout.O_ELEMENT_OFFSETS) + 4 * made, total)
        if multi:
            store_i32(get(op, layout.O_ELEMENTS) + 4 * row + 4, made)
        store_i32(offsets + 4 * row + 4, made if numeric else total)
