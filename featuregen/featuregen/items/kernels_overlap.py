"""Kernel of overlap's shares: the user's words are few and marked once; an item's words are looked up by code."""

from typing import Any

import numba as nb
import numpy as np

from featuregen.items.kernels_tables import (
    ENTRY,
    clear_table,
    default_of,
    dictionary_of,
    elements_of,
    slot_of,
    span_of,
    store_number,
)
from featuregen.items.kernels_texts import (
    text_code,
)
from featuregen.items.table import (
    T_CODES,
    T_IS_LIST,
    T_N,
    T_OF_USER,
    T_OUT,
    T_POOL,
    T_SCRATCH,
    T_SIZE,
    T_STRIDE,
    T_USER,
)
from featuregen.kernels_arrow import (
    child,
    list_span,
    text_at,
    user_array,
)
from featuregen.kernels_memory import (
    get,
    jit,
    load_i32,
    load_i64,
    pop_count,
    store_i64,
    trailing_zeros,
)

U = np.uint64


@jit
def _mark_words(step: int, dictionary: int, mask: int, words: int, first: int, last: int) -> Any:
    """Numbers the distinct words of the user that items have; returns how many words there are, and how many of those.

    Behind the table: int64[distinct], how often each occurs.
    """
    table = get(step, T_SCRATCH)
    times = table + ENTRY * (mask + 1)
    count, distinct = 0, 0
    for element in range(first, last):
        text, size = text_at(words, element)
        if size == 0:
            continue
        count += 1
        code = text_code(dictionary, text, size)
        if code > 0:
            place = slot_of(table, mask, code)
            if load_i64(place) == 0:
                store_i64(place, code)
                store_i64(place + 8, distinct)
                store_i64(times + 8 * distinct, 0)
                distinct += 1
            at = times + 8 * load_i64(place + 8)
            store_i64(at, load_i64(at) + 1)
    return count, distinct


@jit
def _weight(times: int, begin: int, bits: int) -> int:
    """How often the words of some bits occur."""
    total = 0
    while bits != 0:
        total += load_i64(times + 8 * (begin + trailing_zeros(bits)))
        bits &= bits - 1
    return total


@jit
def _user_share(step: int, mask: int, known: int, distinct: int) -> None:
    """The share of the user's words that each item has. Each distinct word is a bit; 64 are looked for at a time."""
    table, rows = get(step, T_SCRATCH), get(step, T_N)
    times = table + ENTRY * (mask + 1)
    common = times + 8 * distinct  # of each row, the words that earlier rounds have found
    codes, stride, pool = get(step, T_CODES), get(step, T_STRIDE), get(step, T_POOL)
    base, width = elements_of(codes, stride, pool)
    out, size, default = get(step, T_OUT), get(step, T_SIZE), default_of(step)
    plain = known == distinct  # every word occurs once
    for begin in range(0, max(distinct, 1), 64):
        for row in range(rows):
            first, last = span_of(codes, stride, pool, row)
            seen, length = U(0), 0
            at, end = base + width * first, base + width * last
            while at < end:
                code = max(load_i32(at), 0)
                length += nb.int64(code > 0)
                bit = load_i64(slot_of(table, mask, code) + 8) - begin
                seen |= U(1) << U(bit) if 0 <= bit < 64 else U(0)
                at += width
            found = pop_count(nb.int64(seen)) if plain else _weight(times, begin, nb.int64(seen))
            if begin > 0:
                found += load_i64(common + 8 * row)
            if begin + 64 < distinct:
                store_i64(common + 8 * row, found)
            else:
                share = found / known if known > 0 and length > 0 else float("nan")
                store_number(out, size, default, row, share)


@jit
def _item_share(step: int, mask: int, known: int) -> None:
    """The share of each item's words that the user has."""
    table, codes, stride, pool = get(step, T_SCRATCH), get(step, T_CODES), get(step, T_STRIDE), get(step, T_POOL)
    base, width = elements_of(codes, stride, pool)
    out, size, default = get(step, T_OUT), get(step, T_SIZE), default_of(step)
    for row in range(get(step, T_N)):
        first, last = span_of(codes, stride, pool, row)
        common, length = 0, 0
        at, end = base + width * first, base + width * last
        while at < end:
            code = max(load_i32(at), 0)
            length += nb.int64(code > 0)
            common += nb.int64(load_i64(slot_of(table, mask, code) + 8) >= 0)
            at += width
        store_number(out, size, default, row, common / length if known > 0 and length > 0 else float("nan"))


@jit
def overlap(step: int, dictionaries: int, user: int) -> None:
    """The share of common words: of the item's words, or (OF_USER) of the user's; repeated words count again."""
    words = user_array(user, get(step, T_USER))
    first, last = nb.int64(0), nb.int64(1)
    if get(step, T_IS_LIST) == 1:
        first, last = list_span(words, 0)
        words = child(words, 0)
    mask = clear_table(step, last - first, 8 * (last - first + get(step, T_N)), -1)
    if mask < 0:
        return
    known, distinct = _mark_words(step, dictionary_of(dictionaries, step), mask, words, first, last)
    if get(step, T_OF_USER) == 1:
        _user_share(step, mask, known, distinct)
    else:
        _item_share(step, mask, known)
