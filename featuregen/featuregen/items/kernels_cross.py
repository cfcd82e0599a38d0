"""Kernels of operators that meet the user with an item's texts, on codes: what depends on a text is computed once.

Each makes the numbers (float64, NaN if missing) that the operator makes of the texts themselves, or the ids; what
becomes of the numbers is up to the plan. `featuregen.oracle` says what they mean.
"""

import math
from typing import Any

import numba as nb
import numpy as np

from featuregen.items.kernels_arrow import child, decimal_at, entry, float_at, list_span, text_at, user_array
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
    T_NEEDED,
    T_OF_USER,
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
    T_SECOND_STRIDE,
    T_STAMP,
    T_STD,
    T_STRIDE,
    T_USER,
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
from featuregen.layout import COMBINE_COUNT, COMBINE_MEAN, COMBINE_MIN, COMBINE_SUM

U = np.uint64
_SPREAD = U(0x9E3779B97F4A7C15)
_PART, _ITEM_PART = 16, -1
_ENTRY = 16


@jit
def _part(step: Any, user: int, part: int, scratch: int) -> Any:
    """Text of one of the user's parts of a combo."""
    place = step[T_PARTS] + _PART * part
    array = user_array(user, load_i64(place))
    if load_i64(place + 8) == 1:
        return decimal_at(array, 0, scratch)
    return text_at(array, 0)


@jit
def _parts_size(step: Any, user: int) -> int:
    """Bytes that the user's parts need, each with its joint; -1 if one is missing: then there is no combination."""
    total = step[T_PREFIX_SIZE]
    for part in range(step[T_PART_COUNT]):
        if load_i64(step[T_PARTS] + _PART * part) != _ITEM_PART:
            _, size = _part(step, user, part, step[T_BUFFER])
            if size == 0:
                return -1
            total += size + 8
    return total


@jit
def _prepare(step: Any, user: int) -> Any:
    """Writes what does not depend on the item; returns where the tail, the head and the item's text begin, and a hash.

    concat: tail "_c_d", head "a_b_". mix: the hashes of the parts behind the item's, and the chain of those before it.
    """
    mixed, tail, number, behind = cross_start(), step[T_BUFFER] + 32, step[T_BUFFER], False
    for part in range(step[T_PART_COUNT]):
        if load_i64(step[T_PARTS] + _PART * part) == _ITEM_PART:
            behind = True
        elif behind:
            text, size = _part(step, user, part, number)
            if step[T_MIX] == 1:
                store_i64(tail, nb.int64(hash_text(step[T_STD], text, size)))
                tail += 8
            else:
                store_u8(tail, 95)
                copy_bytes(tail + 1, text, size)
                tail += size + 1
    head = tail
    copy_bytes(tail, step[T_PREFIX], step[T_PREFIX_SIZE])
    end = tail + step[T_PREFIX_SIZE]
    for part in range(step[T_PART_COUNT]):
        if load_i64(step[T_PARTS] + _PART * part) == _ITEM_PART:
            break
        text, size = _part(step, user, part, number)
        if step[T_MIX] == 1:
            mixed = fingerprint_cat(mixed, hash_text(step[T_STD], text, size))
        else:
            copy_bytes(end, text, size)
            store_u8(end + size, 95)
            end += size + 1
    return step[T_BUFFER] + 32, head, end, mixed


@jit
def combo(step: Any, dictionaries: Any, user: int) -> None:
    """Ids of one text of each item with the user's parts; remembered by code in SCRATCH, for this STAMP only."""
    dictionary, total, memo, stamp = dictionaries[step[T_DICTIONARY]], 0, step[T_SCRATCH], step[T_STAMP] << 32
    ends, texts, ids, offsets = dictionary[D_ENDS], dictionary[D_TEXTS], step[T_OUT], step[T_OFFSETS]
    codes, stride, default, buckets = step[T_CODES], step[T_STRIDE], step[T_DEFAULT], U(step[T_BUCKETS])
    std, mix, fixed = step[T_STD], step[T_MIX] == 1, _parts_size(step, user)
    tail, head, end, mixed = step[T_BUFFER], step[T_BUFFER], step[T_BUFFER], cross_start()
    if fixed + 64 > step[T_CAPACITY]:
        step[T_NEEDED] = fixed + 64
        return
    if fixed >= 0:
        tail, head, end, mixed = _prepare(step, user)
    store_i32(offsets, 0)
    for row in range(step[T_N]):
        code, found = load_i32(codes + stride * row), nb.int64(-1)
        if code > 0 and fixed >= 0:
            place = memo + 16 * (code & (MEMO_SLOTS - 1))
            if load_i64(place) == stamp | code:
                found = load_i64(place + 8)
            else:
                start = load_i64(ends + 8 * code)
                size = load_i64(ends + 8 * code + 8) - start
                if mix:
                    hash_ = fingerprint_cat(mixed, hash_text(std, texts + start, size))
                    for at in range(tail, head, 8):
                        hash_ = fingerprint_cat(hash_, U(load_i64(at)))
                else:
                    if fixed + size + 64 > step[T_CAPACITY]:
                        step[T_NEEDED] = fixed + size + 64
                        return
                    copy_bytes(end, texts + start, size)
                    copy_bytes(end + size, tail, head - tail)
                    hash_ = hash_text(std, head, end - head + size + head - tail)
                found = nb.int64(hash_ % buckets)
                store_i64(place, stamp | code)
                store_i64(place + 8, found)
        if found < 0:
            found = default
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
def _fill(dictionary: Any, table: int, mask: int, array: int, row: int, above: int) -> None:
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
def _span(place: int, stride: int, pool: int, row: int) -> Any:
    """A row's elements: in a pool of codes, or its own code as the only one."""
    if pool == 0:
        return row, row + 1
    first = nb.int64(load_u32(place + stride * row))
    return first, first + load_i32(place + stride * row + 4)


@jit
def _elements(place: int, stride: int, pool: int) -> Any:
    """Where the codes of `_span`'s elements are, and how far apart."""
    if pool == 0:
        return place, stride
    return pool, nb.int64(4)


@jit
def _table(step: Any, entries: int) -> int:
    """Clears a table for entries (key, value) of 16 bytes; returns its mask, or -1 if SCRATCH is too small for it."""
    capacity = nb.int64(4)
    while capacity < 2 * entries:
        capacity *= 2
    if _ENTRY * capacity > step[T_CAPACITY]:
        step[T_NEEDED] = _ENTRY * capacity
        return -1
    for at in range(2 * capacity):
        store_i64(step[T_SCRATCH] + 8 * at, 0)
    return capacity - 1


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
def lookup(step: Any, dictionaries: Any, user: int) -> None:
    """The numbers that the user's map has under each item's texts, combined."""
    array = user_array(user, step[T_USER])
    first, last = list_span(array, 0)
    table, mask, combiner, out = step[T_SCRATCH], _table(step, last - first), step[T_COMBINER], step[T_OUT]
    if mask < 0:
        return
    _fill(dictionaries[step[T_DICTIONARY]], table, mask, array, 0, 0)
    codes, stride, pool = step[T_CODES], step[T_STRIDE], step[T_POOL]
    base, width = _elements(codes, stride, pool)
    for row in range(step[T_N]):
        first, last = _span(codes, stride, pool, row)
        count, total = 0, 0.0
        for element in range(first, last):
            code = load_i32(base + width * element)
            if code > 0:
                place = _slot(table, mask, code)
                if load_i64(place) != 0:
                    value = load_f64(place + 8)
                    if not math.isnan(value):
                        total = _combined(combiner, count, total, value)
                        count += 1
        store_f64(out + 8 * row, _result(combiner, count, total))


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
def _fill_nested(outer_texts: Any, inner_texts: Any, table: int, mask: int, array: int) -> None:
    """Enters the numbers of all inner maps under (outer code, inner code); of equal outer keys the last counts."""
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
                _fill(inner_texts, table, mask, inner, element, above)


@jit
def match(step: Any, dictionaries: Any, user: int) -> None:
    """The numbers that the user's map of maps has under every pair of each item's outer and inner texts, combined."""
    array = user_array(user, step[T_USER])
    table, mask, combiner = step[T_SCRATCH], _table(step, _nested_entries(array)), step[T_COMBINER]
    if mask < 0:
        return
    _fill_nested(dictionaries[step[T_DICTIONARY]], dictionaries[step[T_SECOND_DICTIONARY]], table, mask, array)
    outer_codes, outer_stride, outer_pool = step[T_CODES], step[T_STRIDE], step[T_POOL]
    inner_codes, inner_stride, inner_pool = step[T_SECOND], step[T_SECOND_STRIDE], step[T_SECOND_POOL]
    outer_base, outer_width = _elements(outer_codes, outer_stride, outer_pool)
    inner_base, inner_width = _elements(inner_codes, inner_stride, inner_pool)
    for row in range(step[T_N]):
        first, last = _span(outer_codes, outer_stride, outer_pool, row)
        begin, end = _span(inner_codes, inner_stride, inner_pool, row)
        count, total = 0, 0.0
        for outer in range(first, last):
            above = load_i32(outer_base + outer_width * outer) << 32
            if above <= 0:
                continue
            for inner in range(begin, end):
                code = load_i32(inner_base + inner_width * inner)
                if code > 0:
                    place = _slot(table, mask, above | code)
                    if load_i64(place) != 0:
                        value = load_f64(place + 8)
                        if not math.isnan(value):
                            total = _combined(combiner, count, total, value)
                            count += 1
        store_f64(step[T_OUT] + 8 * row, _result(combiner, count, total))


@jit
def _mark_words(dictionary: Any, table: int, mask: int, words: int, first: int, last: int) -> int:
    """Enters how often each of the user's words occurs; returns the number of words."""
    count = 0
    for element in range(first, last):
        text, size = text_at(words, element)
        if size == 0:
            continue
        count += 1
        code = text_code(dictionary, text, size)
        if code > 0:
            place = _slot(table, mask, code)
            store_i64(place, code)
            store_i64(place + 8, load_i64(place + 8) + 1)
    return count


@jit
def overlap(step: Any, dictionaries: Any, user: int) -> None:
    """The share of common words: of the item's words, or (OF_USER) of the user's; repeated words count again."""
    words = user_array(user, step[T_USER])
    first, last = nb.int64(0), nb.int64(1)
    if step[T_IS_LIST] == 1:
        first, last = list_span(words, 0)
        words = child(words, 0)
    table, mask = step[T_SCRATCH], _table(step, last - first)
    if mask < 0:
        return
    known = _mark_words(dictionaries[step[T_DICTIONARY]], table, mask, words, first, last)
    codes, stride, pool, of_user = step[T_CODES], step[T_STRIDE], step[T_POOL], step[T_OF_USER] == 1
    base, width = _elements(codes, stride, pool)
    for row in range(step[T_N]):
        first, last = _span(codes, stride, pool, row)
        common, length = 0, 0
        for element in range(first, last):
            code = load_i32(base + width * element)
            if code <= 0:
                continue
            length += 1
            place = _slot(table, mask, code)
            if load_i64(place) == 0:
                continue
            if not of_user:
                common += 1
            elif load_i64(place + 8) >> 32 != row + 1:  # the upper half says in which row the word was seen last
                times = load_i64(place + 8) & 0xFFFFFFFF
                common += times
                store_i64(place + 8, ((row + 1) << 32) | times)
        share = float("nan")
        if known > 0 and length > 0:
            share = common / known if of_user else common / length
        store_f64(step[T_OUT] + 8 * row, share)


@jit
def events(step: Any, dictionaries: Any, user: int) -> None:
    """Codes of an attribute of the user's events, DONE; DEFAULT for one that is missing or that no item has."""
    dictionary, array = dictionaries[step[T_DICTIONARY]], user_array(user, step[T_USER])
    words = child(array, 0)
    first, last = list_span(array, 0)
    if last - first > step[T_CAPACITY]:
        step[T_NEEDED] = last - first
        return
    step[T_DONE] = last - first
    for index in range(last - first):
        text, size = text_at(words, first + index)
        code = text_code(dictionary, text, size)
        store_i64(step[T_OUT] + 8 * index, code if code > 0 else step[T_DEFAULT])
