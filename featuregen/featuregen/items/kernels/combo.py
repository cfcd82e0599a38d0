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
from featuregen.kernels.hash import (
    cross_start,
    fingerprint_cat,
    hash_text,
)
from featuregen.kernels.memory import (
    copy_bytes,
    get,
    jit,
    load_i32,
    load_i64,
    load_u8,
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
    """Bytes that the user's parts need, each with its joint; -1 if one is missing: then there is no combination."""
    total = get(step, T_PREFIX_SIZE)
    for part in range(get(step, T_PART_COUNT)):
        if load_i64(get(step, T_PARTS) + _PART * part) != _ITEM_PART:
            _, size = _part(step, user, part, get(step, T_BUFFER))
            if size == 0:
                return -1
            total += size + 8
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
def _touch(codes: int, stride: int, rows: int, ends: int, texts: int) -> int:
    """Reads of each row's text where it is and then its first byte, with loads that do not wait for each other."""
    touched = nb.int64(0)
    for row in range(rows):
        touched += load_i64(ends + 8 * max(load_i32(codes + stride * row), 0))
    for row in range(rows):
        touched += nb.int64(load_u8(texts + load_i64(ends + 8 * max(load_i32(codes + stride * row), 0))))
    return touched


@jit
def combo(step: int, dictionaries: int, user: int) -> None:
    """Ids of one text of each item with the user's parts; remembered by code in SCRATCH, for this STAMP only."""
    dictionary, total = dictionary_of(dictionaries, step), 0
    memo, stamp = get(step, T_SCRATCH), get(step, T_STAMP) << 32
    ends, texts, ids = get(dictionary, D_ENDS), get(dictionary, D_TEXTS), get(step, T_OUT)
    offsets = get(step, T_OFFSETS)
    codes, stride, default = get(step, T_CODES), get(step, T_STRIDE), get(step, T_DEFAULT)
    buckets = U(get(step, T_BUCKETS))
    std, mix, fixed, capacity = get(step, T_STD), get(step, T_MIX) == 1, _parts_size(step, user), get(step, T_CAPACITY)
    tail, head, end, mixed = get(step, T_BUFFER), get(step, T_BUFFER), get(step, T_BUFFER), cross_start()
    if fixed + 64 > capacity:
        put(step, T_NEEDED, fixed + 64)
        return
    if fixed >= 0:
        tail, head, end, mixed = _prepare(step, user)
    if get(dictionary, D_COUNT) > MEMO_SLOTS:  # there are more texts than a cache of the processor holds
        put(step, T_DONE, _touch(codes, stride, get(step, T_N), ends, texts))  # so that it is not optimised away
    store_i32(offsets, 0)
    for row in range(get(step, T_N)):
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
                    if fixed + size + 64 > capacity:
                        put(step, T_NEEDED, fixed + size + 64)
                        return
                    copy_bytes(end, texts + start, size)
                    copy_bytes(end + size, tail, head - tail)
                    hash_ = hash_text(std, head, end - head + size + head - tail)
                found = nb.int64(hash_ % U(buckets))
                store_i64(place, stamp | code)
                store_i64(place + 8, found)
        if found < 0:
            found = default
        store_i64(ids + 8 * total, found)
        total += 1 if found >= 0 else 0
        store_i32(offsets + 4 * row + 4, total)
    put(step, T_DONE, total)
