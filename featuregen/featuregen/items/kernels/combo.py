"""Kernel of combos: one text of the item joined with the user's parts, hashed once for each distinct text."""

from typing import Any

import numba as nb
import numpy as np

from featuregen.items.kernels.tables import (
    dictionary_of,
)
from featuregen.items.table import (
    D_COUNT,
    D_ENDS,
    D_TEXTS,
    MEMO_SLOTS,
    T_BUCKETS,
    T_BUFFER,
    T_CAPACITY,
    T_CODES,
    T_DEFAULT,
    T_DONE,
    T_MIX,
    T_MULTIPLIER,
    T_N,
    T_NEEDED,
    T_OFFSETS,
    T_OUT,
    T_PART_COUNT,
    T_PARTS,
    T_PREFIX,
    T_PREFIX_SIZE,
    T_SCRATCH,
    T_STAMP,
    T_STD,
    T_STRIDE,
)
from featuregen.kernels.arrow import (
    decimal_at,
    text_at,
    user_array,
)
from featuregen.kernels.buckets import bucket_of
from featuregen.kernels.hash import (
    cross_start,
    farm64,
    farm64_words,
    fingerprint_cat,
    hash_text,
    join_words,
    word_of,
)
from featuregen.kernels.lanes import prefetch
from featuregen.kernels.memory import (
    copy_bytes,
    copy_short,
    get,
    jit,
    load_i32,
    load_i64,
    put,
    store_i32,
    store_i64,
    store_u8,
)

U = np.uint64
_PART, _ITEM_PART = 16, -1


@jit
def _part(step: int, user: int, part: int, scratch: int) -> Any:
    """Text of one of the user's parts of a combo."""
    place = get(step, T_PARTS) + _PART * part
    array = user_array(user, load_i64(place))
    if load_i64(place + 8) == 1:
        return decimal_at(array, 0, scratch)
    return text_at(array, 0)


@jit
def _parts_size(step: int, user: int) -> int:
    """Bytes that the user's parts need, each with its joint; -1 if one is missing: then there is no combination.

    Those behind the item's text are written twice: once by `_prepare`, once behind each text.
    """
    total = get(step, T_PREFIX_SIZE)
    for part in range(get(step, T_PART_COUNT)):
        if load_i64(get(step, T_PARTS) + _PART * part) != _ITEM_PART:
            _, size = _part(step, user, part, get(step, T_BUFFER))
            if size == 0:
                return -1
            total += 2 * size + 16
    return total


@jit
def _prepare(step: int, user: int) -> Any:
    """Writes what does not depend on the item; returns where the tail, the head and the item's text begin, and a hash.

    concat: tail "_c_d", head "a_b_". mix: the hashes of the parts behind the item's, and the chain of those before it.
    """
    mixed, tail, number, behind = cross_start(), get(step, T_BUFFER) + 32, get(step, T_BUFFER), False
    for part in range(get(step, T_PART_COUNT)):
        if load_i64(get(step, T_PARTS) + _PART * part) == _ITEM_PART:
            behind = True
        elif behind:
            text, size = _part(step, user, part, number)
            if get(step, T_MIX) == 1:
                store_i64(tail, nb.int64(hash_text(get(step, T_STD), text, size)))
                tail += 8
            else:
                store_u8(tail, 95)
                copy_bytes(tail + 1, text, size)
                tail += size + 1
    head = tail
    copy_bytes(tail, get(step, T_PREFIX), get(step, T_PREFIX_SIZE))
    end = tail + get(step, T_PREFIX_SIZE)
    for part in range(get(step, T_PART_COUNT)):
        if load_i64(get(step, T_PARTS) + _PART * part) == _ITEM_PART:
            break
        text, size = _part(step, user, part, number)
        if get(step, T_MIX) == 1:
            mixed = fingerprint_cat(mixed, hash_text(get(step, T_STD), text, size))
        else:
            copy_bytes(end, text, size)
            store_u8(end + size, 95)
            end += size + 1
    return get(step, T_BUFFER) + 32, head, end, mixed


@jit
def _bring(codes: int, stride: int, rows: int, ends: int, texts: int) -> None:
    """Asks for each row's text: for where it is, and then for the text."""
    for row in range(rows):
        prefetch(ends + 8 * max(load_i32(codes + stride * row), 0))
    for row in range(rows):
        prefetch(texts + load_i64(ends + 8 * max(load_i32(codes + stride * row), 0)))


@jit
def _joined(std: int, mix: bool, mixed: Any, parts: Any, text: int, size: int) -> Any:
    """Hash of an item's text with the user's parts, which `_prepare` wrote: tail, head and end are where they are."""
    tail, head, end = parts
    if mix:
        hash_ = fingerprint_cat(mixed, hash_text(std, text, size))
        for at in range(tail, head, 8):
            hash_ = fingerprint_cat(hash_, U(load_i64(at)))
        return hash_
    copy_short(end, text, size)
    if head > tail:
        copy_bytes(end + size, tail, head - tail)
    return hash_text(std, head, end - head + size + head - tail)


@jit
def _short(step: int, dictionary: int, head: int, size: int) -> int:
    """Ids of a head of 1 to 7 bytes and each item's text, hashed by farm64; the number of ids, -1 if BUFFER is small.

    Most of them have 16 bytes at most: they never leave the registers.
    """
    ends, texts = get(dictionary, D_ENDS), get(dictionary, D_TEXTS)
    ids, offsets = get(step, T_OUT), get(step, T_OFFSETS)
    codes, stride, default = get(step, T_CODES), get(step, T_STRIDE), get(step, T_DEFAULT)
    buckets, multiplier, total = get(step, T_BUCKETS), get(step, T_MULTIPLIER), nb.int64(0)
    word = word_of(head, size)
    for row in range(get(step, T_N)):
        code, found = load_i32(codes + stride * row), default
        if code > 0:
            start = load_i64(ends + 8 * code)
            count = load_i64(ends + 8 * code + 8) - start
            if 4 <= size + count <= 16:
                low, high = join_words(word, size, texts + start, count)
                hash_ = farm64_words(low, high, size + count)
            else:
                if size + count + 64 > get(step, T_CAPACITY):
                    put(step, T_NEEDED, size + count + 64)
                    return -1
                copy_short(head + size, texts + start, count)
                hash_ = farm64(head, size + count)
            found = bucket_of(hash_, buckets, multiplier)
        store_i64(ids + 8 * total, found)
        total += nb.int64(found >= 0)
        store_i32(offsets + 4 * row + 4, total)
    return total


@jit
def combo(step: int, dictionaries: int, user: int) -> None:
    """Ids of one text of each item with the user's parts.

    If there are fewer texts than rows, the ids are remembered by code in SCRATCH, for this STAMP only.
    """
    dictionary, total, rows = dictionary_of(dictionaries, step), 0, get(step, T_N)
    memo, stamp = get(step, T_SCRATCH), get(step, T_STAMP) << 32
    remembers = get(dictionary, D_COUNT) <= min(rows, MEMO_SLOTS)
    ends, texts, ids = get(dictionary, D_ENDS), get(dictionary, D_TEXTS), get(step, T_OUT)
    offsets = get(step, T_OFFSETS)
    codes, stride, default = get(step, T_CODES), get(step, T_STRIDE), get(step, T_DEFAULT)
    buckets, multiplier = get(step, T_BUCKETS), get(step, T_MULTIPLIER)
    std, mix, fixed, capacity = get(step, T_STD), get(step, T_MIX) == 1, _parts_size(step, user), get(step, T_CAPACITY)
    tail, head, end, mixed = get(step, T_BUFFER), get(step, T_BUFFER), get(step, T_BUFFER), cross_start()
    if fixed + 64 > capacity:
        put(step, T_NEEDED, fixed + 64)
        return
    if fixed >= 0:
        tail, head, end, mixed = _prepare(step, user)
    if fixed >= 0 and not remembers:
        _bring(codes, stride, rows, ends, texts)
    store_i32(offsets, 0)
    if fixed >= 0 and not mix and std == 0 and head == tail and 0 < end - head < 8:
        put(step, T_DONE, _short(step, dictionary, head, end - head))
        return
    for row in range(rows):
        code, found = load_i32(codes + stride * row), nb.int64(-1)
        if code > 0 and fixed >= 0:
            place = memo + 16 * (code & (MEMO_SLOTS - 1))
            if remembers and load_i64(place) == stamp | code:
                found = load_i64(place + 8)
            else:
                start = load_i64(ends + 8 * code)
                size = load_i64(ends + 8 * code + 8) - start
                if not mix and fixed + size + 64 > capacity:
                    put(step, T_NEEDED, fixed + size + 64)
                    return
                found = bucket_of(_joined(std, mix, mixed, (tail, head, end), texts + start, size), buckets, multiplier)
                if remembers:
                    store_i64(place, stamp | code)
                    store_i64(place + 8, found)
        if found < 0:
            found = default
        store_i64(ids + 8 * total, found)
        total += 1 if found >= 0 else 0
        store_i32(offsets + 4 * row + 4, total)
    put(step, T_DONE, total)
