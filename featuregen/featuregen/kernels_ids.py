"""Kernels of id and combo, and the encoders that sequences share. The oracle says what they mean."""

from typing import Any

import numba as nb
import numpy as np

from featuregen.kernels_columns import element_text, find_text, span, text_of
from featuregen.kernels_hash import cross_start, fingerprint_cat, hash_text
from featuregen.kernels_memory import (
    copy_bytes,
    is_valid,
    jit,
    load_i32,
    load_i64,
    parse_digits,
    store_i32,
    store_i64,
    store_u8,
)
from featuregen.layout import (
    C_CHILD_BIT,
    C_CHILD_VALID,
    C_DATA,
    C_KIND,
    C_LIST,
    C_STEP,
    C_TEXT,
    ENCODE_HASH,
    ENCODE_IDENTITY,
    KIND_TEXT,
    O_A,
    O_BUCKETS,
    O_BUFFER,
    O_DEFAULT,
    O_ENCODE,
    O_IDS,
    O_MIX,
    O_OFFSETS,
    O_PART_COUNT,
    O_PARTS,
    O_ROWS,
    O_SCRATCH,
    O_SPANS,
    O_STD,
    O_UNKNOWN,
    O_WORD_CAPACITY,
    O_WORD_DATA,
    O_WORD_IDS,
    O_WORD_SLOTS,
    O_WORD_TEXT,
)

U = np.uint64


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
    return load_i64(op[O_WORD_IDS] + 8 * word) if word >= 0 else op[O_UNKNOWN]


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
def _combo_of_two(op: Any, a: Any, b: Any) -> None:
    """The common combo, two plain columns: at most one id in a row, nothing to gather."""
    std, buckets, mix, default = op[O_STD], U(op[O_BUCKETS]), op[O_MIX] == 1, op[O_DEFAULT]
    kind_a, data_a, texts_a, bitmap_a, bit_a = a[C_KIND], a[C_DATA], a[C_TEXT], a[C_CHILD_VALID], a[C_CHILD_BIT]
    kind_b, data_b, texts_b, bitmap_b, bit_b = b[C_KIND], b[C_DATA], b[C_TEXT], b[C_CHILD_VALID], b[C_CHILD_BIT]
    ids, offsets, decimal = op[O_IDS], op[O_OFFSETS], op[O_BUFFER]
    joined, total = decimal + 48, 0
    store_i32(offsets, 0)
    for row in range(op[O_ROWS]):
        text_a, size_a = text_of(kind_a, data_a, texts_a, bitmap_a, bit_a, row * a[C_STEP], decimal)
        text_b, size_b = text_of(kind_b, data_b, texts_b, bitmap_b, bit_b, row * b[C_STEP], decimal + 24)
        if size_a > 0 and size_b > 0:
            if mix:
                mixed = fingerprint_cat(cross_start(), hash_text(std, text_a, size_a))
                mixed = fingerprint_cat(mixed, hash_text(std, text_b, size_b))
            else:
                copy_bytes(joined, text_a, size_a)
                store_u8(joined + size_a, 95)
                copy_bytes(joined + size_a + 1, text_b, size_b)
                mixed = hash_text(std, joined, size_a + 1 + size_b)
            store_i64(ids + 8 * total, nb.int64(mixed % buckets))
            total += 1
        elif default >= 0:
            store_i64(ids + 8 * total, default)
            total += 1
        store_i32(offsets + 4 * row + 4, total)


@jit
def run_combo(op: Any, columns: Any) -> None:
    """Ids of the cartesian product of two or more columns; the first is the outermost loop."""
    if op[O_PART_COUNT] == 2:
        a, b = columns[load_i64(op[O_PARTS])], columns[load_i64(op[O_PARTS] + 8)]
        if a[C_LIST] == 0 and b[C_LIST] == 0:
            _combo_of_two(op, a, b)
            return
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
