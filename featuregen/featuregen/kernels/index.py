"""An index of keys, by which a kernel finds in constant time what one user, map or vocabulary has under a text.

An open-addressing table at most half full. A slot is 0, or the number of a record (from 1) below 32 bits of the key's
hash, so that a probe seldom reads a record in vain. Indexes live as long as one call, or as the plan's constants.
"""

from typing import Any

import numba as nb
import numpy as np

from featuregen.kernels import layout
from featuregen.kernels.columns import same_key
from featuregen.kernels.hash import farm64
from featuregen.kernels.memory import get, jit, load_i32, load_i64, store_i64

U = np.uint64

_SPREAD = U(0x9E3779B97F4A7C15)
_HALF, _NUMBER = U(32), U(0xFFFFFFFF)


@jit
def _hash(key: int, size: int) -> Any:
    if size < 0:
        spread = U(key) * _SPREAD
        return spread ^ (spread >> _HALF)
    return farm64(key, size)


@jit
def _slot(slots: int, mask: int, records: int, key: int, size: int, hashed: Any) -> int:
    """Address of the slot that has a key, or is free for it."""
    at = nb.int64(hashed) & mask
    tag = hashed >> _HALF
    while True:
        held = U(load_i64(slots + 8 * at))
        if held == U(0):
            return slots + 8 * at
        if held >> _HALF == tag:
            record = records + layout.RECORD_BYTES * (nb.int64(held & _NUMBER) - 1)
            if same_key(load_i64(record), load_i64(record + 8), key, size):
                return slots + 8 * at
        at = (at + 1) & mask


@jit
def capacity_of(entries: int) -> int:
    """Number of slots for an index of so many entries: a power of two, so that at most half of them are taken."""
    capacity = 2
    while capacity <= 2 * entries:
        capacity *= 2
    return capacity


@jit
def clear_index(index: int) -> None:
    """Empties the slots."""
    slots = get(index, layout.I_SLOTS)
    for at in range(get(index, layout.I_MASK) + 1):
        store_i64(slots + 8 * at, 0)


@jit
def find(index: int, key: int, size: int) -> int:
    """Number of a key's record, from 1; 0 if the index does not have it."""
    slots, mask, records = get(index, layout.I_SLOTS), get(index, layout.I_MASK), get(index, layout.I_RECORDS)
    return load_i64(_slot(slots, mask, records, key, size, _hash(key, size))) & 0xFFFFFFFF


@jit
def insert(index: int, known: int, key: int, size: int) -> int:
    """Number of a key's record; `known` + 1, a new record without a payload, if it was not there."""
    slots, mask, records = get(index, layout.I_SLOTS), get(index, layout.I_MASK), get(index, layout.I_RECORDS)
    hashed = _hash(key, size)
    slot = _slot(slots, mask, records, key, size, hashed)
    held = load_i64(slot)
    if held != 0:
        return held & 0xFFFFFFFF
    record = records + layout.RECORD_BYTES * known
    store_i64(record, key)
    store_i64(record + 8, size)
    store_i64(slot, nb.int64(((hashed >> _HALF) << _HALF) | U(known + 1)))
    return known + 1


@jit
def payload(index: int, number: int) -> int:
    """Address of a record's payload."""
    return get(index, layout.I_RECORDS) + layout.RECORD_BYTES * (number - 1) + 16


@jit
def run_index(op: int) -> None:
    """Fills the index of constant texts, whose records have their payloads already."""
    index = op + 8 * layout.O_WORDS
    texts, data = get(op, layout.O_WORD_TEXT), get(op, layout.O_WORD_DATA)
    clear_index(index)
    for word in range(get(op, layout.O_ROWS)):
        start = load_i32(texts + 4 * word)
        insert(index, word, data + start, load_i32(texts + 4 * word + 4) - start)
