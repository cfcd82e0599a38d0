"""The tail of all operators that make texts, and the kernel of id. The oracle says what they mean.

A text is put behind the prefix, encoded, and dropped if that gives no id; a row without an id gets the default's.
"""

from typing import Any

import numpy as np

from featuregen.kernels import layout
from featuregen.kernels.buckets import bucket_of
from featuregen.kernels.columns import is_last_of_its_key, number_of, span, text_of
from featuregen.kernels.hash import hash_text
from featuregen.kernels.index import find, payload
from featuregen.kernels.memory import (
    copy_bytes,
    get,
    is_valid,
    jit,
    load_i32,
    load_i64,
    parse_digits,
    store_f32,
    store_i32,
    store_i64,
    store_u8,
)

_UNDERSCORE = 95


@jit
def hashed_id(op: int, hash_: Any) -> int:
    """Id of a hash."""
    return bucket_of(hash_, get(op, layout.O_BUCKETS), get(op, layout.O_MULTIPLIER))


@jit
def encode_joined(op: int, text: int, size: int) -> int:
    """Id of a text that has its prefix already, -1 if it is missing or not encodable."""
    if size == 0:
        return -1
    kind = get(op, layout.O_ENCODE)
    if kind == layout.ENCODE_HASH:
        return hashed_id(op, hash_text(get(op, layout.O_STD), text, size))
    if kind == layout.ENCODE_IDENTITY:
        value = parse_digits(text, size)
        return value if value < get(op, layout.O_BUCKETS) else -1
    words = op + 8 * layout.O_WORDS
    number = find(words, text, size)
    return load_i64(payload(words, number)) if number > 0 else get(op, layout.O_UNKNOWN)


@jit
def encode_text(op: int, text: int, size: int) -> int:
    """Id of a text, -1 if it is missing or not encodable."""
    prefix = get(op, layout.O_PREFIX_SIZE)
    if prefix == 0 or size == 0:
        return encode_joined(op, text, size)
    buffer = get(op, layout.O_BUFFER)
    copy_bytes(buffer, get(op, layout.O_PREFIX), prefix)
    copy_bytes(buffer + prefix, text, size)
    return encode_joined(op, buffer, prefix + size)


@jit
def begin_text(op: int) -> int:
    """Begins a text of several parts with the prefix; returns the address behind it."""
    buffer, prefix = get(op, layout.O_BUFFER), get(op, layout.O_PREFIX_SIZE)
    copy_bytes(buffer, get(op, layout.O_PREFIX), prefix)
    return buffer + prefix


@jit
def put_key(target: int, text: int, size: int) -> int:
    """Writes a part and an underscore; returns the address behind them."""
    copy_bytes(target, text, size)
    store_u8(target + size, _UNDERSCORE)
    return target + size + 1


@jit
def encode_behind(op: int, end: int, text: int, size: int) -> int:
    """Id of a text behind the parts that were written up to `end`."""
    copy_bytes(end, text, size)
    buffer = get(op, layout.O_BUFFER)
    return encode_joined(op, buffer, end + size - buffer)


@jit
def encode_element(op: int, column: int, element: int) -> int:
    """Id of an element of a column, -1 if it is missing or not encodable."""
    text, size = text_of(column, element, get(op, layout.O_SCRATCH))
    return encode_text(op, text, size)


@jit
def finish_ids(op: int, row: int, before: int, total: int) -> int:
    """Ends a row that began with `before` ids: the default if it has none. Returns the new number of ids."""
    default = get(op, layout.O_DEFAULT)
    if total == before and default >= 0:
        store_i64(get(op, layout.O_IDS) + 8 * total, default)
        weights = get(op, layout.O_WEIGHTS)
        if weights != 0:
            store_f32(weights + 4 * total, np.float32(1.0))
        total += 1
    store_i32(get(op, layout.O_OFFSETS) + 4 * row + 4, total)
    return total


@jit
def hash_element(
    std: int, buckets: int, multiplier: int, texts: int, data: int, bitmap: int, bit: int, element: int
) -> int:
    """`encode_element` of a text that is hashed without a prefix, the common case: all fields in registers."""
    start = load_i32(texts + 4 * element)
    size = load_i32(texts + 4 * element + 4) - start
    if size == 0 or not is_valid(bitmap, bit + element):
        return -1
    return bucket_of(hash_text(std, data + start, size), buckets, multiplier)


@jit
def is_plainly_hashed(op: int, column: int) -> bool:
    """Says whether `hash_element` encodes a column."""
    hashed = get(op, layout.O_ENCODE) == layout.ENCODE_HASH and get(op, layout.O_PREFIX_SIZE) == 0
    return hashed and get(column, layout.C_KIND) == layout.KIND_TEXT


@jit
def _hashed_ids(op: int, column: int) -> None:
    """`run_id` for texts that are hashed without a prefix."""
    std, buckets, ids = get(op, layout.O_STD), get(op, layout.O_BUCKETS), get(op, layout.O_IDS)
    multiplier = get(op, layout.O_MULTIPLIER)
    texts, data = get(column, layout.C_TEXT), get(column, layout.C_DATA)
    bitmap, bit = get(column, layout.C_CHILD_VALID), get(column, layout.C_CHILD_BIT)
    total = 0
    for row in range(get(op, layout.O_ROWS)):
        first, last = span(column, row)
        before = total
        for element in range(first, last):
            found = hash_element(std, buckets, multiplier, texts, data, bitmap, bit, element)
            if found >= 0:
                store_i64(ids + 8 * total, found)
                total += 1
        total = finish_ids(op, row, before, total)


@jit
def _hashed_rows(op: int, column: int) -> None:
    """`_hashed_ids` for a plain column, one text a row: nothing is read twice, so it runs at the hash's own speed."""
    std, buckets, ids = get(op, layout.O_STD), get(op, layout.O_BUCKETS), get(op, layout.O_IDS)
    multiplier = get(op, layout.O_MULTIPLIER)
    texts, data = get(column, layout.C_TEXT), get(column, layout.C_DATA)
    bitmap, bit = get(column, layout.C_CHILD_VALID), get(column, layout.C_CHILD_BIT)
    offsets, default, step = get(op, layout.O_OFFSETS), get(op, layout.O_DEFAULT), get(column, layout.C_STEP)
    total = 0
    for row in range(get(op, layout.O_ROWS)):
        found = hash_element(std, buckets, multiplier, texts, data, bitmap, bit, row * step)
        found = found if found >= 0 else default
        if found >= 0:
            store_i64(ids + 8 * total, found)
            total += 1
        store_i32(offsets + 4 * row + 4, total)


@jit
def _weighted_ids(op: int, column: int) -> None:
    """Ids of the keys of a map, and its numbers as their weights."""
    ids, weights, items, total = get(op, layout.O_IDS), get(op, layout.O_WEIGHTS), get(column, layout.C_CHILD), 0
    for row in range(get(op, layout.O_ROWS)):
        first, last = span(column, row)
        before = total
        for entry in range(first, last):
            if not is_last_of_its_key(column, entry, last):
                continue
            found = encode_element(op, column, entry)
            if found >= 0:
                weight = number_of(items, entry)
                store_i64(ids + 8 * total, found)
                store_f32(weights + 4 * total, np.float32(weight if weight == weight else 1.0))
                total += 1
        total = finish_ids(op, row, before, total)


@jit
def run_id(op: int) -> None:
    """Ids of a text or integer column, plain or list; or of a map, with weights."""
    column, total = get(op, layout.O_A), 0
    store_i32(get(op, layout.O_OFFSETS), 0)
    if get(op, layout.O_WEIGHTS) != 0:
        _weighted_ids(op, column)
        return
    if is_plainly_hashed(op, column):
        if get(column, layout.C_LIST) == 0:
            _hashed_rows(op, column)
        else:
            _hashed_ids(op, column)
        return
    for row in range(get(op, layout.O_ROWS)):
        first, last = span(column, row)
        before = total
        for element in range(first, last):
            found = encode_element(op, column, element)
            if found >= 0:
                store_i64(get(op, layout.O_IDS) + 8 * total, found)
                total += 1
        total = finish_ids(op, row, before, total)
