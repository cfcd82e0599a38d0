"""Kernels of raw and lookup: a number, rescaled, and perhaps put into a bucket. The oracle says what they mean."""

import math
from typing import Any

import numba as nb
import numpy as np

from featuregen.kernels_columns import element_text, find_text, span
from featuregen.kernels_hash import farm64
from featuregen.kernels_memory import (
    equal_bytes,
    is_valid,
    jit,
    load_f64,
    load_i32,
    load_i64,
    store_f32,
    store_i32,
    store_i64,
)
from featuregen.layout import (
    C_DATA,
    C_ITEMS,
    C_ITEMS_BIT,
    C_ITEMS_VALID,
    C_KIND,
    C_STEP,
    C_TEXT,
    C_VALID,
    C_VALID_BIT,
    KIND_INT,
    O_A,
    O_B,
    O_BOUND_COUNT,
    O_BOUNDS,
    O_COMBINER,
    O_HAS_DEFAULT,
    O_IDS,
    O_NUMBERS,
    O_OFFSETS,
    O_RESCALE,
    O_ROWS,
    O_SCRATCH,
    O_SLOT_CAPACITY,
    O_SLOTS,
    O_VALUES,
    RESCALE_LOG10,
    RESCALE_NONE,
    RESCALE_ZSCORE,
)


@jit
def _rescale(kind: int, a: float, b: float, x: float) -> float:
    if kind == RESCALE_NONE:
        return x
    if kind == RESCALE_LOG10:
        return math.log10(x) if x > a else b
    if kind == RESCALE_ZSCORE:
        return (x - a) / b
    return (x - a) / (b - a)


@jit
def _bucket(bounds: int, count: int, x: float) -> int:
    """Number of boundaries <= x."""
    low, high = 0, count
    while low < high:
        middle = (low + high) >> 1
        if load_f64(bounds + 8 * middle) <= x:
            low = middle + 1
        else:
            high = middle
    return low


@jit
def _write_bucket(bounds: int, count: int, ids: int, offsets: int, row: int, total: int, known: bool, x: float) -> int:
    """Writes the bucket of a known number; returns the new number of ids."""
    if known:
        store_i64(ids + 8 * total, _bucket(bounds, count, x))
        total += 1
    store_i32(offsets + 4 * row + 4, total)
    return total


@jit
def run_raw(op: Any, columns: Any) -> None:
    """A number column: rescaled, or the default as it is; then a float32 or a bucket."""
    column, total = columns[op[O_A]], 0
    step, bitmap, bit, data = column[C_STEP], column[C_VALID], column[C_VALID_BIT], column[C_DATA]
    whole = column[C_KIND] == KIND_INT
    kind, a, b = op[O_RESCALE], load_f64(op[O_NUMBERS]), load_f64(op[O_NUMBERS] + 8)
    default, has_default = load_f64(op[O_NUMBERS] + 16), op[O_HAS_DEFAULT] == 1
    bounds, count, ids, offsets, values = op[O_BOUNDS], op[O_BOUND_COUNT], op[O_IDS], op[O_OFFSETS], op[O_VALUES]
    if count >= 0:
        store_i32(offsets, 0)
    for row in range(op[O_ROWS]):
        at, x = row * step, default
        known = is_valid(bitmap, bit + at)
        if known:
            given = float(load_i64(data + 8 * at)) if whole else load_f64(data + 8 * at)
            known = not math.isnan(given)
            if known:
                x = _rescale(kind, a, b, given)
        if count < 0:
            store_f32(values + 4 * row, np.float32(x))
        else:
            total = _write_bucket(bounds, count, ids, offsets, row, total, known or has_default, x)


@jit
def _index_map(op: Any, column: Any, first: int, last: int) -> None:
    """Builds the table of a map that all rows share; of equal keys the last one wins."""
    mask = op[O_SLOT_CAPACITY] - 1
    for slot in range(op[O_SLOT_CAPACITY]):
        store_i32(op[O_SLOTS] + 4 * slot, 0)
    for entry in range(first, last):
        text, size = element_text(column, entry, op[O_SCRATCH])
        at = nb.int64(farm64(text, size)) & mask
        while True:
            found = load_i32(op[O_SLOTS] + 4 * at) - 1
            if found < 0:
                break
            other, other_size = element_text(column, found, op[O_SCRATCH])
            if other_size == size and equal_bytes(other, text, size):
                break
            at = (at + 1) & mask
        store_i32(op[O_SLOTS] + 4 * at, entry + 1)


@jit
def _find_entry(column: Any, first: int, last: int, text: int, size: int) -> int:
    for entry in range(last - 1, first - 1, -1):
        start = load_i32(column[C_TEXT] + 4 * entry)
        if load_i32(column[C_TEXT] + 4 * entry + 4) - start == size:
            if equal_bytes(column[C_DATA] + start, text, size):
                return entry
    return -1


@jit
def run_lookup(op: Any, columns: Any) -> None:
    """The numbers that a map has under the keys of another column, combined."""
    table, keys, combiner, total = columns[op[O_A]], columns[op[O_B]], op[O_COMBINER], 0
    low, high, default = load_f64(op[O_NUMBERS]), load_f64(op[O_NUMBERS] + 8), load_f64(op[O_NUMBERS] + 16)
    first, last = span(table, 0)
    indexed = table[C_STEP] == 0 and op[O_SLOT_CAPACITY] > 0
    if indexed:
        _index_map(op, table, first, last)
    if op[O_BOUND_COUNT] >= 0:
        store_i32(op[O_OFFSETS], 0)
    for row in range(op[O_ROWS]):
        if not indexed:
            first, last = span(table, row)
        key_first, key_last = span(keys, row)
        count, x = 0, 0.0
        for key in range(key_first, key_last):
            text, size = element_text(keys, key, op[O_SCRATCH])
            if size == 0:
                continue
            if indexed:
                entry = find_text(op[O_SLOTS], op[O_SLOT_CAPACITY], table[C_TEXT], table[C_DATA], text, size)
            else:
                entry = _find_entry(table, first, last, text, size)
            if entry < 0 or not is_valid(table[C_ITEMS_VALID], table[C_ITEMS_BIT] + entry):
                continue
            value = load_f64(table[C_ITEMS] + 8 * entry)
            if math.isnan(value):
                continue
            if count == 0:
                x = value
            elif combiner <= 1:
                x += value
            elif combiner == 2:
                x = value if value < x else x
            elif combiner == 3:
                x = value if value > x else x
            count += 1
        if combiner == 1 and count > 0:
            x = x / count
        elif combiner == 4:
            x = float(count)
        known = count > 0
        x = _rescale(op[O_RESCALE], low, high, x) if known else default
        if op[O_BOUND_COUNT] < 0:
            store_f32(op[O_VALUES] + 4 * row, np.float32(x))
        else:
            known = known or op[O_HAS_DEFAULT] == 1
            total = _write_bucket(op[O_BOUNDS], op[O_BOUND_COUNT], op[O_IDS], op[O_OFFSETS], row, total, known, x)
