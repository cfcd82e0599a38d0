"""Kernels of operators that meet the user with an item's texts, on codes: what depends on a text is computed once.

Each makes the numbers (float64, NaN if missing) that the operator makes of the texts themselves, or the ids; what
becomes of the numbers is up to the plan. `featuregen.oracle` says what they mean.
"""

import math
from typing import Any

import numba as nb
import numpy as np

from featuregen.items.kernels_arrow import child, decimal_at, entry, float_at, list_span, text_at
from featuregen.items.kernels_texts import text_code
from featuregen.items.table import (
    D_ENDS,
    D_TEXTS,
    MEMO_SLOTS,
    T_BUCKETS,
    T_BUFFER,
    T_CAPACITY,
    T_CODES,
    T_COMBINER,
    T_DEFAULT,
    T_DICTIONARY,
    T_DONE,
    T_IS_LIST,
    T_MIX,
    T_N,
    T_OFFSETS,
    T_OUT,
    T_PART_COUNT,
    T_PARTS,
    T_POOL,
    T_PREFIX,
    T_PREFIX_SIZE,
    T_SCRATCH,
    T_SECOND,
    T_SECOND_DICTIONARY,
    T_SECOND_POOL,
    T_SECOND_SPANS,
    T_SPANS,
    T_STAMP,
    T_STD,
    T_USER,
    T_OF_USER,
)
from featuregen.kernels_hash import cross_start, fingerprint_cat, hash_text
from featuregen.kernels_memory import (
    copy_bytes,
    jit,
    load_f64,
    load_i32,
    load_i64,
    load_u32,
    store_f64,
    store_i32,
    store_i64,
    store_u8,
)

U = np.uint64
_SPREAD = U(0x9E3779B97F4A7C15)
_PART, _ITEM_PART = 16, -1
_ENTRY = 16


@jit
def _part(step: Any, user: int, part: int, scratch: int) -> Any:
    """Text of one of the user's parts of a combo."""
    place = step[T_PARTS] + _PART * part
    array = child(user, load_i64(place))
    if load_i64(place + 8) == 1:
        return decimal_at(array, 0, scratch)
    return text_at(array, 0)


@jit
def measure_combo(step: Any, user: int) -> None:
    """DONE: bytes of the user's parts, each with a joint and room for a decimal number."""
    total = step[T_PREFIX_SIZE] + 64
    for part in range(step[T_PART_COUNT]):
        if load_i64(step[T_PARTS] + _PART * part) != _ITEM_PART:
            place = step[T_PARTS] + _PART * part
            size = nb.int64(0)
            if load_i64(place + 8) == 0:
                _, size = text_at(child(user, load_i64(place)), 0)
            total += size + 32
    step[T_DONE] = total


@jit
def _combo_id(step: Any, user: int, text: int, size: int) -> int:
    """Id of the combination with one text of the item."""
    decimal, end = step[T_BUFFER], step[T_BUFFER] + 32
    start, mixed = end, cross_start()
    copy_bytes(end, step[T_PREFIX], step[T_PREFIX_SIZE])
    end += step[T_PREFIX_SIZE]
    for part in range(step[T_PART_COUNT]):
        found, length = text, size
        if load_i64(step[T_PARTS] + _PART * part) != _ITEM_PART:
            found, length = _part(step, user, part, decimal)
            if length == 0:
                return -1
        if step[T_MIX] == 1:
            mixed = fingerprint_cat(mixed, hash_text(step[T_STD], found, length))
        else:
            if part > 0:
                store_u8(end, 95)
                end += 1
            copy_bytes(end, found, length)
            end += length
    if step[T_MIX] == 0:
        mixed = hash_text(step[T_STD], start, end - start)
    return nb.int64(mixed % U(step[T_BUCKETS]))


@jit
def combo(step: Any, dictionaries: Any, user: int) -> None:
    """Ids of one text of each item with the user's parts; remembered by code in SCRATCH, for this STAMP only."""
    dictionary, total, memo, stamp = dictionaries[step[T_DICTIONARY]], 0, step[T_SCRATCH], step[T_STAMP] << 32
    ends, texts, codes, ids, offsets = dictionary[D_ENDS], dictionary[D_TEXTS], step[T_CODES], step[T_OUT], step[T_OFFSETS]
    store_i32(offsets, 0)
    for row in range(step[T_N]):
        code, found = load_i32(codes + 4 * row), nb.int64(-1)
        if code > 0:
            place = memo + 16 * (code & (MEMO_SLOTS - 1))
            if load_i64(place) == stamp | code:
                found = load_i64(place + 8)
            else:
                start = load_i64(ends + 8 * code)
                found = _combo_id(step, user, texts + start, load_i64(ends + 8 * code + 8) - start)
                store_i64(place, stamp | code)
                store_i64(place + 8, found)
        if found < 0:
            found = step[T_DEFAULT]
        store_i64(ids + 8 * total, found)
        total += 1 if found >= 0 else 0
        store_i32(offsets + 4 * row + 4, total)
    step[T_DONE] = total


@jit
def _slot(table: int, mask: int, key: int) -> int:
    """Address of the entry (key, 8 bytes) that has a key, or is free for it: its key is 0."""
    at = nb.int64((U(key) * _SPREAD) >> U(40)) & mask
    while True:
        held = load_i64(table + _ENTRY * at)
        if held == key or held == 0:
            return table + _ENTRY * at
        at = (at + 1) & mask


@jit
def _clear(table: int, capacity: int) -> None:
    for at in range(capacity):
        store_i64(table + _ENTRY * at, 0)


@jit
def measure_map(step: Any, user: int) -> None:
    """DONE: number of entries of a map, and of the maps in it."""
    array = child(user, step[T_USER])
    first, last = list_span(array, 0)
    total = last - first
    if step[T_SECOND] != 0:
        entries = child(array, 0)
        inner = child(entries, 1)
        for index in range(first, last):
            begin, end = list_span(inner, entry(entries, index))
            total += end - begin
    step[T_DONE] = total


@jit
def _fill(step: Any, dictionary: Any, table: int, mask: int, array: int, row: int, above: int) -> None:
    """Enters the numbers of a map under the codes of its keys; of equal keys the last wins."""
    entries = child(array, 0)
    keys, values = child(entries, 0), child(entries, 1)
    first, last = list_span(array, row)
    for index in range(first, last):
        element = entry(entries, index)
        text, size = text_at(keys, element)
        code = text_code(dictionary, text, size)
        if code > 0:
            place = _slot(table, mask, above | code)
            store_i64(place, above | code)
            store_f64(place + 8, float_at(values, element))


@jit
def _span(codes: int, spans: int, row: int) -> Any:
    """Elements of a row in a pool of codes; without spans the row's own code is the only one."""
    if spans == 0:
        return row, row + 1
    first = nb.int64(load_u32(spans + 8 * row))
    return first, first + load_i32(spans + 8 * row + 4)


@jit
def _combined(combiner: int, count: int, total: float, value: float) -> float:
    if count == 0 or combiner == 4:
        return value
    if combiner <= 1:
        return total + value
    if combiner == 2:
        return value if value < total else total
    return value if value > total else total


@jit
def _result(combiner: int, count: int, total: float) -> float:
    if count == 0:
        return float("nan")
    if combiner == 1:
        return total / count
    return float(count) if combiner == 4 else total


@jit
def lookup(step: Any, dictionaries: Any, user: int) -> None:
    """The numbers that the user's map has under each item's texts, combined."""
    table, mask, combiner = step[T_SCRATCH], step[T_CAPACITY] - 1, step[T_COMBINER]
    codes, spans, out = step[T_CODES], step[T_SPANS], step[T_OUT]
    _clear(table, step[T_CAPACITY])
    _fill(step, dictionaries[step[T_DICTIONARY]], table, mask, child(user, step[T_USER]), 0, 0)
    pool = codes if spans == 0 else step[T_POOL]
    for row in range(step[T_N]):
        first, last = _span(codes, spans, row)
        count, total = 0, 0.0
        for element in range(first, last):
            code = load_i32(pool + 4 * element)
            if code > 0:
                place = _slot(table, mask, code)
                if load_i64(place) != 0:
                    value = load_f64(place + 8)
                    if not math.isnan(value):
                        total = _combined(combiner, count, total, value)
                        count += 1
        store_f64(out + 8 * row, _result(combiner, count, total))


@jit
def _fill_nested(step: Any, dictionaries: Any, array: int) -> None:
    """Enters the numbers of all inner maps under (outer code, inner code); of equal outer keys the last counts."""
    table, mask = step[T_SCRATCH], step[T_CAPACITY] - 1
    outer_texts, inner_texts = dictionaries[step[T_DICTIONARY]], dictionaries[step[T_SECOND_DICTIONARY]]
    entries = child(array, 0)
    keys, inner = child(entries, 0), child(entries, 1)
    first, last = list_span(array, 0)
    for index in range(last - 1, first - 1, -1):
        element = entry(entries, index)
        text, size = text_at(keys, element)
        above = text_code(outer_texts, text, size) << 32
        if above > 0:
            place = _slot(table, mask, above)
            if load_i64(place) == 0:
                store_i64(place, above)
                _fill(step, inner_texts, table, mask, inner, element, above)


@jit
def match(step: Any, dictionaries: Any, user: int) -> None:
    """The numbers that the user's map of maps has under every pair of each item's outer and inner texts, combined."""
    table, mask, combiner = step[T_SCRATCH], step[T_CAPACITY] - 1, step[T_COMBINER]
    outer_codes, outer_spans, inner_codes, inner_spans = step[T_CODES], step[T_SPANS], step[T_SECOND], step[T_SECOND_SPANS]
    _clear(table, step[T_CAPACITY])
    _fill_nested(step, dictionaries, child(user, step[T_USER]))
    outer_pool = outer_codes if outer_spans == 0 else step[T_POOL]
    inner_pool = inner_codes if inner_spans == 0 else step[T_SECOND_POOL]
    for row in range(step[T_N]):
        first, last = _span(outer_codes, outer_spans, row)
        begin, end = _span(inner_codes, inner_spans, row)
        count, total = 0, 0.0
        for outer in range(first, last):
            above = load_i32(outer_pool + 4 * outer) << 32
            if above <= 0:
                continue
            for inner in range(begin, end):
                code = load_i32(inner_pool + 4 * inner)
                if code > 0:
                    place = _slot(table, mask, above | code)
                    if load_i64(place) != 0:
                        value = load_f64(place + 8)
                        if not math.isnan(value):
                            total = _combined(combiner, count, total, value)
                            count += 1
        store_f64(step[T_OUT] + 8 * row, _result(combiner, count, total))


@jit
def measure_words(step: Any, user: int) -> None:
    """DONE: number of the user's words."""
    array = child(user, step[T_USER])
    first, last = list_span(array, 0) if step[T_IS_LIST] == 1 else (nb.int64(0), nb.int64(1))
    step[T_DONE] = last - first


@jit
def _mark_words(step: Any, dictionary: Any, user: int) -> int:
    """Enters how often each of the user's words occurs; returns the number of words. IS_INT: they are a list."""
    array = child(user, step[T_USER])
    words, first, last = array, nb.int64(0), nb.int64(1)
    if step[T_IS_LIST] == 1:
        words = child(array, 0)
        first, last = list_span(array, 0)
    count = 0
    for element in range(first, last):
        text, size = text_at(words, element)
        if size == 0:
            continue
        count += 1
        code = text_code(dictionary, text, size)
        if code > 0:
            place = _slot(step[T_SCRATCH], step[T_CAPACITY] - 1, code)
            store_i64(place, code)
            store_i64(place + 8, load_i64(place + 8) + 1)
    return count


@jit
def overlap(step: Any, dictionaries: Any, user: int) -> None:
    """The share of common words: of the item's words, or (OF_USER) of the user's. Words count as often as they occur."""
    table, capacity = step[T_SCRATCH], step[T_CAPACITY]
    codes, spans = step[T_CODES], step[T_SPANS]
    pool = codes if spans == 0 else step[T_POOL]
    for at in range(capacity):
        store_i64(table + _ENTRY * at, 0)
        store_i64(table + _ENTRY * at + 8, 0)
    words = _mark_words(step, dictionaries[step[T_DICTIONARY]], user)
    of_user = step[T_OF_USER] == 1
    for row in range(step[T_N]):
        first, last = _span(codes, spans, row)
        common, length = 0, 0
        for element in range(first, last):
            code = load_i32(pool + 4 * element)
            if code <= 0:
                continue
            length += 1
            place = _slot(table, capacity - 1, code)
            if load_i64(place) == 0:
                continue
            if not of_user:
                common += 1
            elif load_i64(place + 8) >> 32 != row + 1:  # the upper half says in which row the word was seen last
                times = load_i64(place + 8) & 0xFFFFFFFF
                common += times
                store_i64(place + 8, ((row + 1) << 32) | times)
        share = float("nan")
        if words > 0 and length > 0:
            share = common / words if of_user else common / length
        store_f64(step[T_OUT] + 8 * row, share)


@jit
def events(step: Any, dictionaries: Any, user: int) -> None:
    """Codes of an attribute of the user's events; DEFAULT for one that is missing or that no item has."""
    dictionary, array = dictionaries[step[T_DICTIONARY]], child(user, step[T_USER])
    words = child(array, 0)
    first, _ = list_span(array, 0)
    for index in range(step[T_N]):
        text, size = text_at(words, first + index)
        code = text_code(dictionary, text, size)
        store_i64(step[T_OUT] + 8 * index, code if code > 0 else step[T_DEFAULT])
