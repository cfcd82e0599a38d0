"""Kernel of overlap's shares: the user's words are few, and marked in an array with a byte for each code.

So the words of an item cost one load each, eight at once, which wait for nothing but the codes.
"""

from typing import Any

import numba as nb
import numpy as np

from featuregen.items.kernels.tables import (
    ENTRY,
    clear_table,
    default_of,
    dictionary_of,
    elements_of,
    slot_of,
    span_of,
    store_number,
)
from featuregen.items.kernels.texts import (
    text_code,
)
from featuregen.items.table import (
    T_CODES,
    T_IS_LIST,
    T_MARKS,
    T_N,
    T_OF_USER,
    T_OUT,
    T_POOL,
    T_SCRATCH,
    T_SIZE,
    T_STRIDE,
    T_USER,
    T_WHOLE,
)
from featuregen.kernels.arrow import (
    child,
    list_span,
    text_at,
    user_array,
)
from featuregen.kernels.lanes import LANES, mark_lanes
from featuregen.kernels.memory import (
    get,
    jit,
    load_i32,
    load_i64,
    pop_count,
    store_i64,
    store_u8,
    trailing_zeros,
)

U = np.uint64
_WORD, _BITS = 16, 63
_NUMBER = U(63)


@jit
def _number_words(step: int, dictionary: int, mask: int, words: int, first: int, last: int) -> Any:
    """Numbers the distinct words of the user that items have; returns how many words there are, and how many of those.

    Behind the table: int64[distinct, 2], the code of each and how often it occurs.
    """
    table = get(step, T_SCRATCH)
    numbered = table + ENTRY * (mask + 1)
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
                store_i64(numbered + _WORD * distinct, code)
                store_i64(numbered + _WORD * distinct + 8, 0)
                distinct += 1
            at = numbered + _WORD * load_i64(place + 8) + 8
            store_i64(at, load_i64(at) + 1)
    return count, distinct


@jit
def _mark(step: int, numbered: int, words: int, of_user: bool) -> None:
    """Marks the codes of some words with 1, or with their number from 1 on."""
    marks = get(step, T_MARKS)
    for word in range(words):
        store_u8(marks + load_i64(numbered + _WORD * word), word + 1 if of_user else 1)


@jit
def _wipe(step: int, numbered: int, words: int) -> None:
    """Takes the marks away: there are none between two calls."""
    for word in range(words):
        store_u8(get(step, T_MARKS) + load_i64(numbered + _WORD * word), 0)


@jit
def _weight(numbered: int, bits: int) -> int:
    """How often the words of some bits, from 1 on, occur."""
    total = 0
    while bits != 0:
        total += load_i64(numbered + _WORD * (trailing_zeros(bits) - 1) + 8)
        bits &= bits - 1
    return total


@jit
def _texts(at: int, count: int) -> int:
    """Number of elements that are neither missing nor empty."""
    total = 0
    for element in range(count):
        total += nb.int64(load_i32(at + 4 * element) > 0)
    return total


@jit
def _marked(marks: int, at: int, count: int) -> int:
    """Number of elements whose mark is 1; the others have none."""
    total = nb.int64(0)
    while count > 0:  # eight at once: where a list ends cannot be foretold
        total += pop_count(nb.int64(mark_lanes(marks, at, count)))
        at += 4 * LANES
        count -= LANES
    return total


@jit
def _numbers(marks: int, at: int, count: int) -> int:
    """The bits of the user's words that are among some elements; bit 0 is of none of them."""
    seen = U(0)
    while count > 0:
        found = mark_lanes(marks, at, count)
        for lane in range(LANES):
            seen |= U(1) << ((found >> U(8 * lane)) & _NUMBER)
        at += 4 * LANES
        count -= LANES
    return nb.int64(seen) & ~1


@jit
def _user_share(step: int, mask: int, known: int, distinct: int) -> None:
    """The share of the user's words that each item has. Each distinct word is a bit; 63 are looked for at a time."""
    marks, rows = get(step, T_MARKS), get(step, T_N)
    numbered = get(step, T_SCRATCH) + ENTRY * (mask + 1)
    common = numbered + _WORD * distinct  # of each row, the words that earlier rounds have found
    codes, stride, pool = get(step, T_CODES), get(step, T_STRIDE), get(step, T_POOL)
    base, width = elements_of(codes, stride, pool)
    out, size, default = get(step, T_OUT), get(step, T_SIZE), default_of(step)
    plain, whole = known == distinct, load_i64(get(step, T_WHOLE)) == 1  # plain: every word occurs once
    for begin in range(0, max(distinct, 1), _BITS):
        words = min(distinct - begin, _BITS)
        _mark(step, numbered + _WORD * begin, words, True)
        for row in range(rows):
            first, last = span_of(codes, stride, pool, row)
            at, length = base + width * first, last - first
            bits = _numbers(marks, at, length)
            if not whole:
                length = _texts(at, length)
            found = pop_count(bits) if plain else _weight(numbered + _WORD * begin, bits)
            if begin > 0:
                found += load_i64(common + 8 * row)
            if begin + _BITS < distinct:
                store_i64(common + 8 * row, found)
            else:
                share = found / known if known > 0 and length > 0 else float("nan")
                store_number(out, size, default, row, share)
        _wipe(step, numbered + _WORD * begin, words)


@jit
def _item_share(step: int, mask: int, known: int, distinct: int) -> None:
    """The share of each item's words that the user has."""
    codes, stride, pool = get(step, T_CODES), get(step, T_STRIDE), get(step, T_POOL)
    marks, numbered = get(step, T_MARKS), get(step, T_SCRATCH) + ENTRY * (mask + 1)
    whole = load_i64(get(step, T_WHOLE)) == 1
    base, width = elements_of(codes, stride, pool)
    out, size, default = get(step, T_OUT), get(step, T_SIZE), default_of(step)
    _mark(step, numbered, distinct, False)
    for row in range(get(step, T_N)):
        first, last = span_of(codes, stride, pool, row)
        at, length = base + width * first, last - first
        common = _marked(marks, at, length)
        if not whole:
            length = _texts(at, length)
        store_number(out, size, default, row, common / length if known > 0 and length > 0 else float("nan"))
    _wipe(step, numbered, distinct)


@jit
def overlap(step: int, dictionaries: int, user: int) -> None:
    """The share of common words: of the item's words, or (OF_USER) of the user's; repeated words count again."""
    words = user_array(user, get(step, T_USER))
    first, last = nb.int64(0), nb.int64(1)
    if get(step, T_IS_LIST) == 1:
        first, last = list_span(words, 0)
        words = child(words, 0)
    mask = clear_table(step, last - first, _WORD * (last - first) + 8 * get(step, T_N), -1)
    if mask < 0:
        return
    known, distinct = _number_words(step, dictionary_of(dictionaries, step), mask, words, first, last)
    if get(step, T_OF_USER) == 1:
        _user_share(step, mask, known, distinct)
    else:
        _item_share(step, mask, known, distinct)
