"""Kernel of kv_dot: the dot product of two sparse vectors, maps or lists of words, summed in the query's order.

One side is indexed, the one that all rows share if there is one, and the other side's entries are looked up. A product
is put at the place of its query entry, with a bit that says so, and the bits give the order in which they are added.
"""

import numba as nb
import numpy as np

from featuregen.kernels import layout
from featuregen.kernels.columns import number_of, span, text_of
from featuregen.kernels.index import capacity_of, clear_index, find, insert, payload
from featuregen.kernels.memory import (
    get,
    jit,
    load_f64,
    load_i32,
    load_i64,
    store_f64,
    store_i32,
    store_i64,
    trailing_zeros,
)


@jit
def _weight(column: int, entry: int) -> float:
    """Number of a map's entry; 1 if it has none, or for a word of a list."""
    items = get(column, layout.C_CHILD)
    x = number_of(items, entry) if items != 0 else 1.0
    return x if x == x else 1.0


@jit
def _index_weights(op: int, column: int, row: int) -> int:
    """Indexes a row's entries: of equal keys the last one of a map, the first one of a list. Returns their number.

    The payload is the entry. The entries of a map are numbered from the last one down.
    """
    index = op + 8 * layout.O_INDEX
    first, last = span(column, row)
    backwards = get(column, layout.C_CHILD) != 0
    store_i64(index + 8 * layout.I_MASK, capacity_of(last - first) - 1)
    clear_index(index)
    known = nb.int64(0)
    for at in range(first, last):
        entry = first + last - 1 - at if backwards else at
        text, size = text_of(column, entry, 0)
        if size > 0:
            number = insert(index, known, text, size)
            if number > known:
                store_i64(payload(index, number), entry)
                known = number
    return known


@jit
def _put(op: int, place: int, product: float) -> None:
    """Notes the product of the query entry at a place."""
    bits = get(op, layout.O_QUERY) + 8 * (place >> 6)
    store_i64(bits, load_i64(bits) | (1 << (place & 63)))
    store_f64(get(op, layout.O_TITLE) + 8 * place, product)


@jit
def _look_up_document(op: int, query: int, query_first: int, document: int, row: int) -> bool:
    """Looks up a document's entries in the indexed query; says whether it has any."""
    index = op + 8 * layout.O_INDEX
    first, last = span(document, row)
    any_entry = False
    for entry in range(first, last):
        text, size = text_of(document, entry, 0)
        if size == 0:
            continue
        any_entry = True
        number = find(index, text, size)
        if number > 0:
            asked = load_i64(payload(index, number))
            _put(op, asked - query_first, _weight(query, asked) * _weight(document, entry))
    return any_entry


@jit
def _look_up_query(op: int, query: int, document: int, row: int) -> bool:
    """Looks up a query's entries in the indexed document; says whether it has any. State: row and entry of a number."""
    index, state = op + 8 * layout.O_INDEX, get(op, layout.O_STATE)
    first, last = span(query, row)
    any_entry, is_map = False, get(query, layout.C_CHILD) != 0
    for entry in range(first, last):
        text, size = text_of(query, entry, 0)
        if size == 0:
            continue
        any_entry = True
        number = find(index, text, size)
        if number == 0:
            continue
        seen = state + 8 * number
        if load_i32(seen) == row + 1:
            if not is_map:
                continue
            place = load_i32(seen + 4)
            bits = get(op, layout.O_QUERY) + 8 * (place >> 6)
            store_i64(bits, load_i64(bits) & ~(1 << (place & 63)))
        store_i32(seen, row + 1)
        store_i32(seen + 4, entry - first)
        _put(op, entry - first, _weight(query, entry) * _weight(document, load_i64(payload(index, number))))
    return any_entry


@jit
def _sum(op: int, places: int) -> float:
    """Adds the products in the order of their places, and takes the bits away."""
    total, bits, products = 0.0, get(op, layout.O_QUERY), get(op, layout.O_TITLE)
    for word in range((places + 63) >> 6):
        held = load_i64(bits + 8 * word)
        store_i64(bits + 8 * word, 0)
        while held != 0:
            total += load_f64(products + 8 * (64 * word + trailing_zeros(held)))
            held &= held - 1
    return total


@jit
def run_kv_dot(op: int) -> None:
    """The product of each row, NaN if one side has no entry."""
    query, document = get(op, layout.O_A), get(op, layout.O_B)
    shared_query, shared_document = get(query, layout.C_STEP) == 0, get(document, layout.C_STEP) == 0
    by_document, known = shared_document and not shared_query, nb.int64(0)
    for word in range(get(op, layout.O_PLACES) + 1):
        store_i64(get(op, layout.O_QUERY) + 8 * word, 0)
    for row in range(get(op, layout.O_ROWS)):
        first, last = span(query, row)
        if row == 0 or not (shared_query or shared_document):
            known = _index_weights(op, document if by_document else query, row)
            if by_document:
                for number in range(known + 1):
                    store_i32(get(op, layout.O_STATE) + 8 * number, 0)
        if by_document:
            other = _look_up_query(op, query, document, row)
        else:
            other = _look_up_document(op, query, first, document, row)
        total = _sum(op, last - first)
        store_f64(get(op, layout.O_FOUND) + 8 * row, total if other and known > 0 else np.nan)
