"""The tail of all operators that make numbers, and the kernels of raw and combine. The oracle says what they mean.

An operator writes float64 numbers, NaN where one is missing; the tail rescales them, puts the default in place of what
is missing, and makes ids of buckets, ids of whole numbers, or float32 of them.
"""

import math

import numba as nb
import numpy as np

from featuregen.kernels import layout
from featuregen.kernels.columns import number_of, place, span, text_of
from featuregen.kernels.expression import evaluate
from featuregen.kernels.index import find, payload
from featuregen.kernels.memory import (
    get,
    jit,
    load_f64,
    load_i32,
    load_i64,
    store_f32,
    store_f64,
    store_i32,
    store_i64,
)


@jit
def _rescale(op: int, x: float) -> float:
    """A known number in the tail's scale."""
    kind = get(op, layout.O_RESCALE)
    if kind == layout.RESCALE_EXPRESSION:
        program = get(op, layout.O_RESCALE_BY)
        store_f64(load_i64(get(program, layout.X_SPANS)), x)
        return evaluate(program, nb.int64(0))
    a, b = load_f64(get(op, layout.O_NUMBERS)), load_f64(get(op, layout.O_NUMBERS) + 8)
    if kind == layout.RESCALE_LOG10:
        return math.log10(x) if x > a else b
    if kind == layout.RESCALE_ZSCORE:
        return (x - a) / b
    return (x - a) / (b - a)


@jit
def _number_id(op: int, x: float) -> int:
    """The number of boundaries <= x, or x truncated to an id; -1 if x is missing or not an id."""
    if x != x:
        return -1
    high = get(op, layout.O_BOUND_COUNT)
    if high < 0:
        whole = np.trunc(x)
        return nb.int64(whole) if whole >= 0.0 and whole < float(get(op, layout.O_BUCKETS)) else -1
    low, bounds = 0, get(op, layout.O_BOUNDS)
    while low < high:
        middle = (low + high) >> 1
        if load_f64(bounds + 8 * middle) <= x:
            low = middle + 1
        else:
            high = middle
    return low


@jit
def _settle(op: int, first: int, last: int) -> None:
    """Rescales the found numbers from `first` to `last` and replaces those that are missing by the defaults."""
    found, width, defaults = get(op, layout.O_FOUND), get(op, layout.O_WIDTH), get(op, layout.O_DEFAULTS)
    rescaled = get(op, layout.O_RESCALE) != layout.RESCALE_NONE
    if not rescaled and defaults == 0:
        return
    at = 0
    for number in range(first, last):
        x = load_f64(found + 8 * number)
        if rescaled and x == x:
            x = _rescale(op, x)
        if x != x and defaults != 0:
            x = load_f64(defaults + 8 * at)
        store_f64(found + 8 * number, x)
        at = at + 1 if at + 1 < width else 0


@jit
def _number_ids(op: int) -> None:
    """Ids of the settled numbers of each row."""
    rows, width, found = get(op, layout.O_ROWS), get(op, layout.O_WIDTH), get(op, layout.O_FOUND)
    ids, offsets, ragged = get(op, layout.O_IDS), get(op, layout.O_OFFSETS), get(op, layout.O_FOUND_OFFSETS)
    defaults, total, end = get(op, layout.O_DEFAULTS), 0, 0
    store_i32(offsets, 0)
    for row in range(rows):
        start = end
        end = width * load_i32(ragged + 4 * row + 4) if ragged != 0 else start + width
        for number in range(start, end):
            found_id = _number_id(op, load_f64(found + 8 * number))
            if found_id < 0 and defaults != 0:
                found_id = _number_id(op, load_f64(defaults + 8 * ((number - start) % width)))
            if found_id >= 0:
                store_i64(ids + 8 * total, found_id)
                total += 1
        store_i32(offsets + 4 * row + 4, total)


@jit
def finish_numbers(op: int) -> None:
    """The tail: writes the output of the found numbers, `width` of them in a row or as many as their offsets say."""
    rows, ragged = get(op, layout.O_ROWS), get(op, layout.O_FOUND_OFFSETS)
    count = get(op, layout.O_WIDTH) * (load_i32(ragged + 4 * rows) if ragged != 0 else rows)
    _settle(op, 0, count)
    values = get(op, layout.O_VALUES)
    if values == 0:
        _number_ids(op)
        return
    found = get(op, layout.O_FOUND)
    for number in range(count):
        x = load_f64(found + 8 * number)
        store_f32(values + 4 * number, np.float32(x if x == x else 0.0))
    if ragged != 0:
        for row in range(rows + 1):
            store_i32(get(op, layout.O_OFFSETS) + 4 * row, load_i32(ragged + 4 * row))


@jit
def combined(combiner: int, count: int, held: float, x: float) -> float:
    """Combines x with `count` numbers that are combined already; `result_of` divides for the mean."""
    if count == 0:
        return x
    if combiner == layout.COMBINE_MIN:
        return x if x < held else held
    if combiner == layout.COMBINE_MAX:
        return x if x > held else held
    return held + x


@jit
def result_of(combiner: int, count: int, held: float) -> float:
    """What `count` combined numbers are, NaN if there are none."""
    if count == 0:
        return np.nan
    if combiner == layout.COMBINE_COUNT:
        return float(count)
    return held / count if combiner == layout.COMBINE_MEAN else held


@jit
def run_raw(op: int) -> None:
    """A number column, or a list that has exactly `width` numbers."""
    column, found, width = get(op, layout.O_A), get(op, layout.O_FOUND), get(op, layout.O_WIDTH)
    plain = get(column, layout.C_LIST) == 0
    for row in range(get(op, layout.O_ROWS)):
        if plain:
            store_f64(found + 8 * row, number_of(column, place(column, row)))
            continue
        first, last = span(column, row)
        for at in range(width):
            x = number_of(column, first + at) if last - first == width else np.nan
            store_f64(found + 8 * (row * width + at), x)


@jit
def run_combine(op: int) -> None:
    """One number of all that a row has, or that its texts stand for."""
    column, found, combiner = get(op, layout.O_A), get(op, layout.O_FOUND), get(op, layout.O_METHOD)
    words = op + 8 * layout.O_WORDS
    mapped = get(words, layout.I_SLOTS) != 0
    for row in range(get(op, layout.O_ROWS)):
        first, last = span(column, row)
        count, held = 0, 0.0
        for element in range(first, last):
            x = np.nan
            if mapped:
                text, size = text_of(column, element, get(op, layout.O_SCRATCH))
                number = find(words, text, size) if size > 0 else 0
                if number > 0:
                    x = load_f64(payload(words, number))
            else:
                x = number_of(column, element)
            if x == x:
                held = combined(combiner, count, held, x)
                count += 1
        store_f64(found + 8 * row, result_of(combiner, count, held))
