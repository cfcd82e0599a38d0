"""Kernels of the operators without behaviour: id, combo, raw, lookup. Their meaning is written down in the oracle."""

import math
from typing import Any

import numba as nb
import numpy as np

from featuregen.kernels_hash import cross_start, farm64, fingerprint_cat, hash_text
from featuregen.kernels_memory import (
    copy_bytes,
    equal_bytes,
    is_valid,
    jit,
    load_f64,
    load_i32,
    load_i64,
    parse_digits,
    store_f32,
    store_i32,
    store_i64,
    store_u8,
    write_decimal,
)
from featuregen.layout import (
    C_CHILD_BIT,
    C_CHILD_VALID,
    C_DATA,
    C_ITEMS,
    C_ITEMS_BIT,
    C_ITEMS_VALID,
    C_KIND,
    C_LIST,
    C_STEP,
    C_TEXT,
    C_VALID,
    C_VALID_BIT,
    ENCODE_HASH,
    ENCODE_IDENTITY,
    KIND_INT,
    KIND_TEXT,
    O_A,
    O_B,
    O_BOUND_COUNT,
    O_BOUNDS,
    O_BUCKETS,
    O_BUFFER,
    O_COMBINER,
    O_DEFAULT,
    O_ENCODE,
    O_HAS_DEFAULT,
    O_IDS,
    O_MIX,
    O_NUMBERS,
    O_OFFSETS,
    O_PART_COUNT,
    O_PARTS,
    O_RESCALE,
    O_ROWS,
    O_SCRATCH,
    O_SLOT_CAPACITY,
    O_SLOTS,
    O_SPANS,
    O_STD,
    O_VALUES,
    O_WORD_CAPACITY,
    O_WORD_DATA,
    O_WORD_IDS,
    O_WORD_SLOTS,
    O_WORD_TEXT,
    RESCALE_LOG10,
    RESCALE_NONE,
    RESCALE_ZSCORE,
)

U = np.uint64


@jit
def span(column: Any, row: int) -> Any:
    """First and last + 1 element of a row: of a list, or of the row itself."""
    at = row * column[C_STEP]
    if column[C_LIST] == 0:
        return at, at + 1
    if not is_valid(column[C_VALID], column[C_VALID_BIT] + at):
        return nb.int64(0), nb.int64(0)
    return load_i32(column[C_LIST] + 4 * at), load_i32(column[C_LIST] + 4 * at + 4)


@jit
def element_text(column: Any, element: int, scratch: int) -> Any:
    """Address and length of an element's text, length 0 if it is missing. Integers are written to `scratch`."""
    if not is_valid(column[C_CHILD_VALID], column[C_CHILD_BIT] + element):
        return nb.int64(0), nb.int64(0)
    if column[C_KIND] == KIND_INT:
        return scratch, write_decimal(scratch, load_i64(column[C_DATA] + 8 * element))
    start, end = load_i32(column[C_TEXT] + 4 * element), load_i32(column[C_TEXT] + 4 * element + 4)
    return column[C_DATA] + start, end - start


@jit
def find_text(slots: int, capacity: int, offsets: int, data: int, text: int, size: int) -> int:
    """Index of a text in an open-addressing table over Arrow texts, -1 if it is not there."""
    at = nb.int64(farm64(text, size)) & (capacity - 1)
    while True:
        found = load_i32(slots + 4 * at) - 1
        if found < 0:
            return -1
        start = load_i32(offsets + 4 * found)
        if load_i32(offsets + 4 * found + 4) - start == size and equal_bytes(data + start, text, size):
            return found
        at = (at + 1) & (capacity - 1)


@jit
def encode_text(op: Any, text: int, size: int) -> int:
    """Id of a text, -1 if it is missing or not encodable."""
    if size == 0:
        return -1
    if op[O_ENCODE] == ENCODE_HASH:
        return nb.int64(hash_text(op[O_STD], text, size) % U(op[O_BUCKETS]))
    if op[O_ENCODE] == ENCODE_IDENTITY:
        value = parse_digits(text, size)
        return value if value < op[O_BUCKETS] else -1
    word = find_text(op[O_WORD_SLOTS], op[O_WORD_CAPACITY], op[O_WORD_TEXT], op[O_WORD_DATA], text, size)
    return load_i64(op[O_WORD_IDS] + 8 * word) if word >= 0 else 1


@jit
def encode_element(op: Any, column: Any, element: int) -> int:
    """Id of an element of a column, -1 if it is missing or not encodable."""
    text, size = element_text(column, element, op[O_SCRATCH])
    return encode_text(op, text, size)


@jit
def hash_element(std: int, buckets: int, texts: int, data: int, bitmap: int, bit: int, element: int) -> int:
    """`encode_element` for hashed texts, the common case; by scalars, because passing arrays costs more."""
    start = load_i32(texts + 4 * element)
    size = load_i32(texts + 4 * element + 4) - start
    if size == 0 or not is_valid(bitmap, bit + element):
        return -1
    return nb.int64(hash_text(std, data + start, size) % U(buckets))


@jit
def run_id(op: Any, columns: Any) -> None:
    """Ids of a text or integer column, plain or list."""
    column, total = columns[op[O_A]], 0
    hashed = op[O_ENCODE] == ENCODE_HASH and column[C_KIND] == KIND_TEXT
    std, buckets, texts, data = op[O_STD], op[O_BUCKETS], column[C_TEXT], column[C_DATA]
    bitmap, bit = column[C_CHILD_VALID], column[C_CHILD_BIT]
    first, last = nb.int64(0), nb.int64(0)
    store_i32(op[O_OFFSETS], 0)
    for row in range(op[O_ROWS]):
        if column[C_LIST] == 0:
            first = row * column[C_STEP]
            last = first + 1
        else:
            first, last = span(column, row)
        before = total
        for element in range(first, last):
            if hashed:
                found = hash_element(std, buckets, texts, data, bitmap, bit, element)
            else:
                found = encode_element(op, column, element)
            if found >= 0:
                store_i64(op[O_IDS] + 8 * total, found)
                total += 1
        if total == before and op[O_DEFAULT] >= 0:
            store_i64(op[O_IDS] + 8 * total, op[O_DEFAULT])
            total += 1
        store_i32(op[O_OFFSETS] + 4 * row + 4, total)


@jit
def combo_capacity(op: Any, columns: Any) -> int:
    """Upper bound of the number of ids of a combo."""
    total = 0
    for row in range(op[O_ROWS]):
        product = 1
        for part in range(op[O_PART_COUNT]):
            first, last = span(columns[load_i64(op[O_PARTS] + 8 * part)], row)
            product *= last - first
        total += max(product, 1)
    return total


@jit
def _gather_parts(op: Any, columns: Any, row: int) -> int:
    """Writes (address, length) of every value of every part to the spans; returns the number of products.

    Spans: per part [count, cursor, start], then pairs. Decimal texts live behind them, 24 bytes each.
    """
    parts = op[O_PART_COUNT]
    pair = op[O_SPANS] + 24 * parts
    text_at = op[O_BUFFER]
    products = 1
    for part in range(parts):
        column = columns[load_i64(op[O_PARTS] + 8 * part)]
        head = op[O_SPANS] + 24 * part
        store_i64(head + 8, 0)
        store_i64(head + 16, pair)
        first, last = span(column, row)
        count = 0
        for element in range(first, last):
            text, size = element_text(column, element, text_at)
            if size > 0:
                store_i64(pair, text)
                store_i64(pair + 8, size)
                pair += 16
                count += 1
                if text == text_at:
                    text_at += 24
        store_i64(head, count)
        products *= count
    store_i64(op[O_SCRATCH], text_at)
    return products


@jit
def _product_id(op: Any) -> int:
    """Id of the product that the cursors point to."""
    start = load_i64(op[O_SCRATCH])
    end = start
    mixed = cross_start()
    for part in range(op[O_PART_COUNT]):
        head = op[O_SPANS] + 24 * part
        pair = load_i64(head + 16) + 16 * load_i64(head + 8)
        text, size = load_i64(pair), load_i64(pair + 8)
        if op[O_MIX] == 1:
            mixed = fingerprint_cat(mixed, hash_text(op[O_STD], text, size))
        else:
            if part > 0:
                store_u8(end, 95)
                end += 1
            copy_bytes(end, text, size)
            end += size
    if op[O_MIX] == 0:
        mixed = hash_text(op[O_STD], start, end - start)
    return nb.int64(mixed % U(op[O_BUCKETS]))


@jit
def run_combo(op: Any, columns: Any) -> None:
    """Ids of the cartesian product of two or more columns; the first is the outermost loop."""
    total = 0
    store_i32(op[O_OFFSETS], 0)
    for row in range(op[O_ROWS]):
        products = _gather_parts(op, columns, row)
        for _ in range(products):
            store_i64(op[O_IDS] + 8 * total, _product_id(op))
            total += 1
            part = op[O_PART_COUNT] - 1
            while part >= 0:
                head = op[O_SPANS] + 24 * part
                cursor = load_i64(head + 8) + 1
                if cursor < load_i64(head):
                    store_i64(head + 8, cursor)
                    break
                store_i64(head + 8, 0)
                part -= 1
        if products == 0 and op[O_DEFAULT] >= 0:
            store_i64(op[O_IDS] + 8 * total, op[O_DEFAULT])
            total += 1
        store_i32(op[O_OFFSETS] + 4 * row + 4, total)


@jit
def _rescale(op: Any, x: float) -> float:
    kind = op[O_RESCALE]
    if kind == RESCALE_NONE:
        return x
    a, b = load_f64(op[O_NUMBERS]), load_f64(op[O_NUMBERS] + 8)
    if kind == RESCALE_LOG10:
        return math.log10(x) if x > a else b
    if kind == RESCALE_ZSCORE:
        return (x - a) / b
    return (x - a) / (b - a)


@jit
def _bucket(op: Any, x: float) -> int:
    """Number of boundaries <= x."""
    low, high = 0, op[O_BOUND_COUNT]
    while low < high:
        middle = (low + high) >> 1
        if load_f64(op[O_BOUNDS] + 8 * middle) <= x:
            low = middle + 1
        else:
            high = middle
    return low


@jit
def _write_number(op: Any, row: int, total: int, known: bool, x: float) -> int:
    """Rescales or takes the default, then writes a float32 or a bucket; returns the new number of ids."""
    x = _rescale(op, x) if known else load_f64(op[O_NUMBERS] + 16)
    if op[O_BOUND_COUNT] < 0:
        store_f32(op[O_VALUES] + 4 * row, np.float32(x))
        return 0
    if known or op[O_HAS_DEFAULT] == 1:
        store_i64(op[O_IDS] + 8 * total, _bucket(op, x))
        total += 1
    store_i32(op[O_OFFSETS] + 4 * row + 4, total)
    return total


@jit
def run_raw(op: Any, columns: Any) -> None:
    """A number column."""
    column, total = columns[op[O_A]], 0
    if op[O_BOUND_COUNT] >= 0:
        store_i32(op[O_OFFSETS], 0)
    for row in range(op[O_ROWS]):
        at = row * column[C_STEP]
        known, x = is_valid(column[C_VALID], column[C_VALID_BIT] + at), 0.0
        if known:
            if column[C_KIND] == KIND_INT:
                x = float(load_i64(column[C_DATA] + 8 * at))
            else:
                x = load_f64(column[C_DATA] + 8 * at)
        total = _write_number(op, row, total, known and not math.isnan(x), x)


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
        total = _write_number(op, row, total, count > 0, x)
