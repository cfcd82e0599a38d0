"""Kernel of combo: ids of all products of the texts of several columns, the first being the outermost loop."""

import numba as nb

from featuregen.kernels import layout
from featuregen.kernels.columns import gather_texts, place, span, text_of
from featuregen.kernels.hash import cross_start, fingerprint_cat, hash_text
from featuregen.kernels.memory import copy_bytes, get, jit, load_i64, store_i32, store_i64, store_u8
from featuregen.kernels.texts import encode_joined, finish_ids, hashed_id

_UNDERSCORE = 95
_TOO_MANY = 2**31
_PART_BYTES = 24  # of a part: number of texts, cursor, address of its texts


@jit
def combo_capacity(op: int) -> int:
    """Upper bound of the number of ids of a combo."""
    parts, total = get(op, layout.O_PARTS), 0
    for row in range(get(op, layout.O_ROWS)):
        product = 1
        for part in range(get(op, layout.O_PART_COUNT)):
            first, last = span(load_i64(parts + 8 * part), row)
            product = min(product * (last - first), _TOO_MANY)  # eight lists would overflow
        total += max(product, 1)
    return total


@jit
def _gather_parts(op: int, row: int) -> int:
    """Writes all texts of every part behind the parts' heads; returns the number of products."""
    parts, heads = get(op, layout.O_PARTS), get(op, layout.O_STATE)
    count = get(op, layout.O_PART_COUNT)
    texts = heads + _PART_BYTES * count
    products = 1
    for part in range(count):
        head = heads + _PART_BYTES * part
        found = gather_texts(load_i64(parts + 8 * part), row, texts)
        store_i64(head, found)
        store_i64(head + 8, 0)
        store_i64(head + 16, texts)
        texts += layout.TEXT_BYTES * found
        products *= found
    return products


@jit
def _product_id(op: int) -> int:
    """Id of the product that the cursors point to."""
    heads, start = get(op, layout.O_STATE), get(op, layout.O_BUFFER)
    prefix, mix = get(op, layout.O_PREFIX_SIZE), get(op, layout.O_MIX)
    end = start + prefix
    mixed = cross_start()
    for part in range(get(op, layout.O_PART_COUNT)):
        head = heads + _PART_BYTES * part
        record = load_i64(head + 16) + layout.TEXT_BYTES * load_i64(head + 8)
        text, size = load_i64(record), load_i64(record + 8)
        if mix == 1:
            mixed = fingerprint_cat(mixed, hash_text(get(op, layout.O_STD), text, size))
        else:
            if part > 0:
                store_u8(end, _UNDERSCORE)
                end += 1
            copy_bytes(end, text, size)
            end += size
    if mix == 1:
        return hashed_id(op, mixed)
    return encode_joined(op, start, end - start)


@jit
def _advance(op: int) -> None:
    """Moves the cursors to the next product: the last part moves fastest."""
    part = get(op, layout.O_PART_COUNT) - 1
    while part >= 0:
        head = get(op, layout.O_STATE) + _PART_BYTES * part
        cursor = load_i64(head + 8) + 1
        if cursor < load_i64(head):
            store_i64(head + 8, cursor)
            return
        store_i64(head + 8, 0)
        part -= 1


@jit
def _combo_of_two(op: int, a: int, b: int) -> None:
    """The common combo, two plain columns: at most one id in a row; a text that all rows share is read once."""
    std, mix = get(op, layout.O_STD), get(op, layout.O_MIX)
    moves_a, moves_b = get(a, layout.C_STEP) != 0, get(b, layout.C_STEP) != 0
    decimal, start = get(op, layout.O_STATE), get(op, layout.O_BUFFER)
    joined, ids, total = start + get(op, layout.O_PREFIX_SIZE), get(op, layout.O_IDS), 0
    text_a, size_a, text_b, size_b = nb.int64(0), nb.int64(0), nb.int64(0), nb.int64(0)
    for row in range(get(op, layout.O_ROWS)):
        if row == 0 or moves_a:
            text_a, size_a = text_of(a, place(a, row), decimal)
            copy_bytes(joined, text_a, size_a)
            store_u8(joined + size_a, _UNDERSCORE)
        if row == 0 or moves_b:
            text_b, size_b = text_of(b, place(b, row), decimal + 24)
        before = total
        if size_a > 0 and size_b > 0:
            if mix == 1:
                mixed = fingerprint_cat(cross_start(), hash_text(std, text_a, size_a))
                mixed = fingerprint_cat(mixed, hash_text(std, text_b, size_b))
            else:
                copy_bytes(joined + size_a + 1, text_b, size_b)
                mixed = hash_text(std, start, joined - start + size_a + 1 + size_b)
            store_i64(ids + 8 * total, hashed_id(op, mixed))
            total += 1
        total = finish_ids(op, row, before, total)


@jit
def run_combo(op: int) -> None:
    """Ids of the cartesian product of two or more columns."""
    store_i32(get(op, layout.O_OFFSETS), 0)
    copy_bytes(get(op, layout.O_BUFFER), get(op, layout.O_PREFIX), get(op, layout.O_PREFIX_SIZE))
    if get(op, layout.O_PART_COUNT) == 2:
        a, b = load_i64(get(op, layout.O_PARTS)), load_i64(get(op, layout.O_PARTS) + 8)
        if get(a, layout.C_LIST) == 0 and get(b, layout.C_LIST) == 0:
            _combo_of_two(op, a, b)
            return
    total = 0
    for row in range(get(op, layout.O_ROWS)):
        before = total
        for _ in range(_gather_parts(op, row)):
            store_i64(get(op, layout.O_IDS) + 8 * total, _product_id(op))
            total += 1
            _advance(op)
        total = finish_ids(op, row, before, total)
