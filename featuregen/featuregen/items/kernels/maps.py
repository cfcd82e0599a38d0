"""Kernels of lookup and match: what a user's maps have under an item's texts, by code.

Each makes the numbers that the operator makes of the texts themselves; `featuregen.oracle.numbers` says what they mean.
"""

import math

import numba as nb
import numpy as np

from featuregen.items.kernels.tables import (
    ENTRY,
    NOT_A_NUMBER,
    clear_table,
    default_of,
    dictionary_at,
    dictionary_of,
    elements_of,
    slot_of,
    span_of,
    store_number,
)
from featuregen.items.kernels.texts import (
    hash_texts,
    hashed_code,
)
from featuregen.items.table import (
    T_CODES,
    T_COMBINER,
    T_N,
    T_OUT,
    T_POOL,
    T_SCRATCH,
    T_SECOND,
    T_SECOND_DICTIONARY,
    T_SECOND_POOL,
    T_SECOND_STRIDE,
    T_SIZE,
    T_STRIDE,
    T_USER,
)
from featuregen.kernels.arrow import (
    child,
    entry,
    float_at,
    list_span,
    user_array,
)
from featuregen.kernels.layout import (
    COMBINE_COUNT,
    COMBINE_MEAN,
    COMBINE_MIN,
    COMBINE_SUM,
)
from featuregen.kernels.memory import (
    get,
    jit,
    load_f64,
    load_i32,
    load_i64,
    store_f64,
    store_i64,
)

U = np.uint64


@jit
def _fill(dictionary: int, table: int, mask: int, array: int, row: int, above: int, hashes: int) -> None:
    """Enters the numbers of a map under the codes of its keys; of equal keys the last wins.

    `hashes` is room for an int64 of each key.
    """
    entries = child(array, 0)
    keys, values = child(entries, 0), child(entries, 1)
    first, last = list_span(array, row)
    begin = entry(entries, first)
    hash_texts(dictionary, keys, begin, last - first, hashes)
    for index in range(last - first):
        code = hashed_code(dictionary, keys, begin, index, hashes)
        if code > 0:
            place = slot_of(table, mask, above | code)
            store_i64(place, above | code)
            store_f64(place + 8, float_at(values, begin + index))


@jit
def _combined(combiner: int, count: int, total: float, value: float) -> float:
    if count == 0 or combiner == COMBINE_COUNT:
        return value
    if combiner == COMBINE_SUM or combiner == COMBINE_MEAN:
        return total + value
    if combiner == COMBINE_MIN:
        return value if value < total else total
    return value if value > total else total


@jit
def _result(combiner: int, count: int, total: float) -> float:
    if count == 0:
        return float("nan")
    if combiner == COMBINE_MEAN:
        return total / count
    return float(count) if combiner == COMBINE_COUNT else total


@jit
def lookup(step: int, dictionaries: int, user: int) -> None:
    """The numbers that the user's map has under each item's texts, combined."""
    array = user_array(user, get(step, T_USER))
    first, last = list_span(array, 0)
    table, mask = get(step, T_SCRATCH), clear_table(step, last - first, 8 * (last - first), NOT_A_NUMBER)
    combiner = get(step, T_COMBINER)
    if mask < 0:
        return
    _fill(dictionary_of(dictionaries, step), table, mask, array, 0, 0, table + ENTRY * (mask + 1))
    codes, stride, pool = get(step, T_CODES), get(step, T_STRIDE), get(step, T_POOL)
    out, size, default = get(step, T_OUT), get(step, T_SIZE), default_of(step)
    if pool == 0:
        for row in range(get(step, T_N)):
            x = load_f64(slot_of(table, mask, max(load_i32(codes + stride * row), 0)) + 8)
            store_number(out, size, default, row, 1.0 if combiner == COMBINE_COUNT and not math.isnan(x) else x)
        return
    for row in range(get(step, T_N)):
        first, last = span_of(codes, stride, pool, row)
        count, total = 0, 0.0
        for element in range(first, last):
            value = load_f64(slot_of(table, mask, max(load_i32(pool + 4 * element), 0)) + 8)
            if not math.isnan(value):
                total = _combined(combiner, count, total, value)
                count += 1
        store_number(out, size, default, row, _result(combiner, count, total))


@jit
def _nested_entries(array: int) -> int:
    """Number of entries of a map, and of the maps in it."""
    first, last = list_span(array, 0)
    total, entries = last - first, child(array, 0)
    inner = child(entries, 1)
    for index in range(first, last):
        begin, end = list_span(inner, entry(entries, index))
        total += end - begin
    return total


@jit
def _fill_nested(outer_texts: int, inner_texts: int, table: int, mask: int, array: int, hashes: int) -> None:
    """Enters the numbers of all inner maps under (outer code, inner code); of equal outer keys the last counts.

    `hashes` is room for an int64 of each key, the outer and the inner ones.
    """
    entries = child(array, 0)
    keys, inner = child(entries, 0), child(entries, 1)
    first, last = list_span(array, 0)
    begin, of_inner = entry(entries, first), hashes + 8 * (last - first)
    hash_texts(outer_texts, keys, begin, last - first, hashes)
    for index in range(last - first - 1, -1, -1):
        above = hashed_code(outer_texts, keys, begin, index, hashes) << 32
        if above > 0:
            place = slot_of(table, mask, above)
            if load_i64(place) == 0:
                store_i64(place, above)  # its number stays missing
                _fill(inner_texts, table, mask, inner, begin + index, above, of_inner)


@jit
def match(step: int, dictionaries: int, user: int) -> None:
    """The numbers that the user's map of maps has under every pair of each item's outer and inner texts, combined."""
    array = user_array(user, get(step, T_USER))
    table, combiner = get(step, T_SCRATCH), get(step, T_COMBINER)
    keys = _nested_entries(array)
    mask = clear_table(step, keys, 8 * keys, NOT_A_NUMBER)
    if mask < 0:
        return
    outer_texts, inner_texts = dictionary_of(dictionaries, step), dictionary_at(dictionaries, step, T_SECOND_DICTIONARY)
    _fill_nested(outer_texts, inner_texts, table, mask, array, table + ENTRY * (mask + 1))
    outer_codes, outer_stride, outer_pool = get(step, T_CODES), get(step, T_STRIDE), get(step, T_POOL)
    inner_codes, inner_stride, inner_pool = get(step, T_SECOND), get(step, T_SECOND_STRIDE), get(step, T_SECOND_POOL)
    outer_base, outer_width = elements_of(outer_codes, outer_stride, outer_pool)
    inner_base, inner_width = elements_of(inner_codes, inner_stride, inner_pool)
    out, size, default = get(step, T_OUT), get(step, T_SIZE), default_of(step)
    if outer_pool == 0 and inner_pool == 0:
        for row in range(get(step, T_N)):
            above, code = load_i32(outer_codes + outer_stride * row), load_i32(inner_codes + inner_stride * row)
            key = above << 32 | code if above > 0 and code > 0 else nb.int64(0)
            x = load_f64(slot_of(table, mask, key) + 8)
            store_number(out, size, default, row, 1.0 if combiner == COMBINE_COUNT and not math.isnan(x) else x)
        return
    for row in range(get(step, T_N)):
        first, last = span_of(outer_codes, outer_stride, outer_pool, row)
        begin, end = span_of(inner_codes, inner_stride, inner_pool, row)
        count, total = 0, 0.0
        for outer in range(first, last):
            above = load_i32(outer_base + outer_width * outer) << 32
            for inner in range(begin, end):
                code = load_i32(inner_base + inner_width * inner)
                value = load_f64(slot_of(table, mask, above | code if above > 0 and code > 0 else nb.int64(0)) + 8)
                if not math.isnan(value):
                    total = _combined(combiner, count, total, value)
                    count += 1
        store_number(out, size, default, row, _result(combiner, count, total))
