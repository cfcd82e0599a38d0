"""Kernels over dictionaries of texts: a text to its code, new texts appended, many keys found at once."""

from typing import Any

import numba as nb
import numpy as np

from featuregen.items.kernels.tables import dictionary_of
from featuregen.items.table import (
    D_COUNT,
    D_ENDS,
    D_LIMIT,
    D_MASK,
    D_SLOTS,
    D_TEXTS,
    T_BIT,
    T_CODES,
    T_CURRENT,
    T_DATA,
    T_DONE,
    T_FIRST,
    T_N,
    T_OUT,
    T_RECORDS,
    T_SCRATCH,
    T_SIZE,
    T_SOURCE,
    T_STRIDE,
    T_TEXTS,
    T_VALID,
)
from featuregen.kernels.arrow import text_at
from featuregen.kernels.hash import farm64
from featuregen.kernels.lanes import prefetch
from featuregen.kernels.memory import (
    copy_bytes,
    equal_bytes,
    get,
    is_valid,
    jit,
    load_i32,
    load_i64,
    load_u32,
    put,
    store_i32,
    store_i64,
)

U = np.uint64
_HALF = U(32)
_LOW = U(0xFFFFFFFF)


@jit
def _place(hash_: Any, mask: int) -> int:
    """First slot of a hash. Its upper half decides, which the slots hold, so that they can be moved without texts."""
    return nb.int64(hash_ >> _HALF) & mask


@jit
def _is_text(dictionary: int, code: int, text: int, size: int) -> bool:
    start = load_i64(get(dictionary, D_ENDS) + 8 * code)
    if load_i64(get(dictionary, D_ENDS) + 8 * code + 8) - start != size:
        return False
    return equal_bytes(get(dictionary, D_TEXTS) + start, text, size)


@jit
def code_of(dictionary: int, text: int, size: int, hash_: Any) -> int:
    """Code of a text, -1 if there is none. Codes that a writer adds meanwhile are not seen."""
    slots, mask, count = get(dictionary, D_SLOTS), get(dictionary, D_MASK), get(dictionary, D_COUNT)
    at = _place(hash_, mask)
    while True:
        slot = U(load_i64(slots + 8 * at))
        if slot == U(0):
            return -1
        code = nb.int64(slot & _LOW) - 1
        if slot >> _HALF == hash_ >> _HALF and code < count and _is_text(dictionary, code, text, size):
            return code
        at = (at + 1) & mask


@jit
def text_code(dictionary: int, text: int, size: int) -> int:
    """Code of a text, -1 if there is none, 0 if it is empty."""
    if size == 0:
        return 0
    return code_of(dictionary, text, size, farm64(text, size))


@jit
def _append(dictionary: int, text: int, size: int, hash_: Any) -> int:
    """Adds a text that is not there. The slot is written last: it makes the text visible to `code_of`."""
    code = get(dictionary, D_COUNT)
    start = load_i64(get(dictionary, D_ENDS) + 8 * code)
    copy_bytes(get(dictionary, D_TEXTS) + start, text, size)
    store_i64(get(dictionary, D_ENDS) + 8 * code + 8, start + size)
    put(dictionary, D_COUNT, code + 1)
    at = _place(hash_, get(dictionary, D_MASK))
    while load_i64(get(dictionary, D_SLOTS) + 8 * at) != 0:
        at = (at + 1) & get(dictionary, D_MASK)
    store_i64(get(dictionary, D_SLOTS) + 8 * at, nb.int64((hash_ >> _HALF) << _HALF) | (code + 1))
    return code


@jit
def encode(step: int, dictionaries: int) -> None:
    """Writes the code of each text from FIRST on, -1 of a null; DONE says where it stopped because a table is full."""
    dictionary = dictionary_of(dictionaries, step)
    texts, data, valid, bit = get(step, T_TEXTS), get(step, T_DATA), get(step, T_VALID), get(step, T_BIT)
    out = get(step, T_OUT)
    for element in range(get(step, T_FIRST), get(step, T_N)):
        if not is_valid(valid, bit + element):
            store_i32(out + 4 * element, -1)
            continue
        start = load_i32(texts + 4 * element)
        size = load_i32(texts + 4 * element + 4) - start
        code = nb.int64(0)
        if size > 0:
            hash_ = farm64(data + start, size)
            code = code_of(dictionary, data + start, size, hash_)
            if code < 0:
                if get(dictionary, D_COUNT) >= get(dictionary, D_LIMIT):
                    put(step, T_DONE, element)
                    return
                code = _append(dictionary, data + start, size, hash_)
        store_i32(out + 4 * element, code)
    put(step, T_DONE, get(step, T_N))


@jit
def rehash(step: int, dictionaries: int) -> None:
    """Moves the N slots of an old table to the dictionary's new one."""
    dictionary = dictionary_of(dictionaries, step)
    slots, mask = get(dictionary, D_SLOTS), get(dictionary, D_MASK)
    for old in range(get(step, T_N)):
        slot = load_i64(get(step, T_SOURCE) + 8 * old)
        if slot != 0:
            at = _place(U(slot), mask)
            while load_i64(slots + 8 * at) != 0:
                at = (at + 1) & mask
            store_i64(slots + 8 * at, slot)


@jit
def _prefetch_text(dictionary: int, code: int) -> None:
    """Asks for where a code's text begins, once it is known where that is."""
    if 0 <= code < get(dictionary, D_COUNT):
        prefetch(get(dictionary, D_TEXTS) + load_i64(get(dictionary, D_ENDS) + 8 * code))


@jit
def find(step: int, dictionaries: int) -> None:
    """Writes the code of each key, -1 if it is unknown.

    In passes over all keys, in each of which nothing waits for memory: it answers many at once.
    """
    dictionary = dictionary_of(dictionaries, step)
    texts, data, valid, bit = get(step, T_TEXTS), get(step, T_DATA), get(step, T_VALID), get(step, T_BIT)
    out, n, hashes = get(step, T_OUT), get(step, T_N), get(step, T_SCRATCH)
    for element in range(n):
        start = load_i32(texts + 4 * element)
        store_i64(hashes + 8 * element, nb.int64(farm64(data + start, load_i32(texts + 4 * element + 4) - start)))
    slots, mask, ends = get(dictionary, D_SLOTS), get(dictionary, D_MASK), get(dictionary, D_ENDS)
    for element in range(n):
        prefetch(slots + 8 * _place(U(load_i64(hashes + 8 * element)), mask))
    for element in range(n):
        code = nb.int64(load_u32(slots + 8 * _place(U(load_i64(hashes + 8 * element)), mask))) - 1
        store_i32(out + 4 * element, code)
        prefetch(ends + 8 * code)
    for element in range(n):
        _prefetch_text(dictionary, load_i32(out + 4 * element))
    count = get(dictionary, D_COUNT)
    for element in range(n):
        code = load_i32(out + 4 * element)
        start = load_i32(texts + 4 * element)
        size = load_i32(texts + 4 * element + 4) - start
        if not is_valid(valid, bit + element) or size == 0:
            store_i32(out + 4 * element, -1)
        elif code < 0 or code >= count or not _is_text(dictionary, code, data + start, size):
            hash_ = U(load_i64(hashes + 8 * element))
            store_i32(out + 4 * element, -1 if code < 0 else code_of(dictionary, data + start, size, hash_))


@jit
def hash_texts(dictionary: int, words: int, first: int, count: int, hashes: int) -> None:
    """Writes the hash of each of some texts, and brings what `code_of` will read of the dictionary, as `find` does."""
    for element in range(count):
        text, size = text_at(words, first + element)
        store_i64(hashes + 8 * element, nb.int64(farm64(text, size)))
    slots, mask, ends = get(dictionary, D_SLOTS), get(dictionary, D_MASK), get(dictionary, D_ENDS)
    for element in range(count):
        prefetch(slots + 8 * _place(U(load_i64(hashes + 8 * element)), mask))
    for element in range(count):
        code = nb.int64(load_u32(slots + 8 * _place(U(load_i64(hashes + 8 * element)), mask))) - 1
        prefetch(ends + 8 * code)
    for element in range(count):
        _prefetch_text(dictionary, nb.int64(load_u32(slots + 8 * _place(U(load_i64(hashes + 8 * element)), mask))) - 1)


@jit
def hashed_code(dictionary: int, words: int, first: int, index: int, hashes: int) -> int:
    """Code of one of the texts that `hash_texts` hashed, -1 if there is none, 0 if it is empty."""
    text, size = text_at(words, first + index)
    if size == 0:
        return 0
    return code_of(dictionary, text, size, U(load_i64(hashes + 8 * index)))


@jit
def follow(step: int) -> None:
    """Writes the slot of the record of each key's code, 0 if there is none; and to CODES the code, then -1.

    A record that was written after this reader's view began, in slot SIZE or behind, leads to the one before it.
    """
    current, records, stride, count = get(step, T_CURRENT), get(step, T_RECORDS), get(step, T_STRIDE), get(step, T_SIZE)
    for row in range(get(step, T_N)):
        prefetch(current + 4 * load_i32(get(step, T_SOURCE) + 4 * row))
    for row in range(get(step, T_N)):
        code = load_i32(get(step, T_SOURCE) + 4 * row)
        slot = load_i32(current + 4 * code) if code >= 0 else nb.int64(0)
        while slot >= count:
            slot = load_i32(records + stride * slot)
        store_i32(get(step, T_OUT) + 4 * row, slot)
        store_i32(get(step, T_CODES) + 4 * row, code if slot > 0 else nb.int64(-1))
