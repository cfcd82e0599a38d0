"""What kernels on codes share: a small table of what the user has by code, a row's codes, a number that is made."""

import math
from typing import Any

import numba as nb
import numpy as np

from featuregen.items.table import DICTIONARY_WIDTH, T_CAPACITY, T_DEFAULT, T_DICTIONARY, T_NEEDED, T_SCRATCH, T_SIZE
from featuregen.kernels.memory import (
    get,
    jit,
    load_f64,
    load_i32,
    load_i64,
    load_u32,
    opaque,
    put,
    store_f32,
    store_f64,
    store_i64,
)

U = np.uint64
_SPREAD = U(0x9E3779B97F4A7C15)
ENTRY, _ROOM = 16, 4
"""Bytes of an entry: a key, which is 0 in a free one, and a value."""
NOT_A_NUMBER = 0x7FF8000000000000
"""The bits of NaN: what a free entry has for a number."""


@jit
def dictionary_at(dictionaries: int, step: int, field: int) -> int:
    """Address of the row of the dictionary that a step names."""
    return dictionaries + 8 * DICTIONARY_WIDTH * get(step, field)


@jit
def dictionary_of(dictionaries: int, step: int) -> int:
    """Address of the row of a step's dictionary."""
    return dictionary_at(dictionaries, step, T_DICTIONARY)


@jit
def clear_table(step: int, entries: int, more: int, free: int) -> int:
    """Clears a table, in which free entries have the value `free`; returns its mask.

    -1 if SCRATCH is too small for it and `more` bytes behind it.
    """
    capacity = nb.int64(8)
    while capacity < _ROOM * entries:
        capacity *= 2
    if ENTRY * capacity + more > get(step, T_CAPACITY):
        put(step, T_NEEDED, ENTRY * capacity + more)
        return -1
    table = get(step, T_SCRATCH)
    for at in range(capacity):
        store_i64(table + ENTRY * at, 0)
        store_i64(table + ENTRY * at + 8, free)
    return capacity - 1


@jit
def slot_of(table: int, mask: int, key: int) -> int:
    """Address of the entry that has a key, or is free for it.

    Whether a key is there cannot be foretold, so no branch depends on it: only on whether another key is in its place.
    """
    at = nb.int64((U(key) * _SPREAD) >> U(40)) & mask
    held = load_i64(table + ENTRY * at)
    while opaque(nb.int64(held != key) & nb.int64(held != 0)) != 0:
        at = (at + 1) & mask
        held = load_i64(table + ENTRY * at)
    return table + ENTRY * at


@jit
def span_of(place: int, stride: int, pool: int, row: int) -> Any:
    """A row's elements: in a pool of codes, or its own code as the only one."""
    if pool == 0:
        return row, row + 1
    first = nb.int64(load_u32(place + stride * row))
    return first, first + load_i32(place + stride * row + 4)


@jit
def elements_of(place: int, stride: int, pool: int) -> Any:
    """Where the codes of `span_of`'s elements are, and how far apart."""
    if pool == 0:
        return place, stride
    return pool, nb.int64(4)


@jit
def store_number(out: int, size: int, default: float, row: int, x: float) -> None:
    """Writes a number: as float64 for the rest of the plan, or (size 4) as the float32 that it is, or its default."""
    if size == 4:
        store_f32(out + 4 * row, np.float32(default if math.isnan(x) else x))
    else:
        store_f64(out + 8 * row, x)


@jit
def default_of(step: int) -> float:
    """What stands for a missing number, if a step writes the output itself."""
    return load_f64(get(step, T_DEFAULT)) if get(step, T_SIZE) == 4 else 0.0
