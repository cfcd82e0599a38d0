"""Kernel of lookup: what a map has under the texts of another column, as numbers, texts or vectors.

A map that all rows share is indexed once; one that each row has for itself is searched, as it is read only once.
"""

import numba as nb
import numpy as np

from featuregen.kernels import layout
from featuregen.kernels.columns import last_of_key, number_of, span, span_at, text_of
from featuregen.kernels.index import clear_index, find, insert, payload
from featuregen.kernels.memory import get, jit, load_f64, load_i64, store_f64, store_i32, store_i64
from featuregen.kernels.numbers import combined, result_of
from featuregen.kernels.texts import begin_text, encode_behind, encode_element, finish_ids, put_key


@jit
def index_entries(index: int, column: int, first: int, last: int) -> int:
    """Makes an index of a map's entries, key to entry, of equal keys the last one; returns the number of keys."""
    clear_index(index)
    known = nb.int64(0)
    for entry in range(first, last):
        text, size = text_of(column, entry, 0)
        if size > 0:
            number = insert(index, known, text, size)
            known = max(known, number)
            store_i64(payload(index, number), entry)
    return known


@jit
def entry_of(op: int, index: int, column: int, first: int, last: int, text: int, size: int) -> int:
    """The entry of a map that has a key, -1 if none has."""
    if get(op, layout.O_SHARED) == 0:
        return last_of_key(column, first, last, text, size)
    number = find(index, text, size)
    return load_i64(payload(index, number)) if number > 0 else -1


@jit
def _take_text(op: int, items: int, entry: int, key: int, key_size: int) -> int:
    """Id of the text of an entry, behind its key if that is shown; -1 if it is missing or not encodable."""
    if get(op, layout.O_SHOW) == 0:
        return encode_element(op, items, entry)
    text, size = text_of(items, entry, 0)
    if size == 0:
        return -1
    return encode_behind(op, put_key(begin_text(op), key, key_size), text, size)


@jit
def start_rows(op: int) -> None:
    """Begins the offsets of ids, or of numbers that are kept apart."""
    takes = get(op, layout.O_TAKES)
    if takes == layout.TAKE_TEXTS:
        store_i32(get(op, layout.O_OFFSETS), 0)
    elif takes == layout.TAKE_ALL:
        store_i32(get(op, layout.O_FOUND_OFFSETS), 0)


@jit
def finish_all(op: int, row: int, before: int, total: int) -> int:
    """Ends a row whose numbers are kept apart: one missing number if it has none. Returns the new number of numbers."""
    if total == before:
        store_f64(get(op, layout.O_FOUND) + 8 * total, np.nan)
        total += 1
    store_i32(get(op, layout.O_FOUND_OFFSETS) + 4 * row + 4, total)
    return total


@jit
def _add_vector(op: int, lists: int, entry: int, row: int) -> None:
    """Combines a vector with those of the row that were found before; the state counts each element's numbers."""
    width, combiner, counts = get(op, layout.O_WIDTH), get(op, layout.O_METHOD), get(op, layout.O_STATE)
    first, last = span_at(lists, entry)
    if last - first != width:
        return
    for at in range(width):
        x = number_of(lists, first + at)
        if x == x:
            count, place = load_i64(counts + 8 * at), get(op, layout.O_FOUND) + 8 * (row * width + at)
            store_f64(place, combined(combiner, count, load_f64(place), x))
            store_i64(counts + 8 * at, count + 1)


@jit
def _vectors(op: int, row: int, start: bool) -> None:
    """Begins or ends the vector of a row."""
    width, combiner, counts = get(op, layout.O_WIDTH), get(op, layout.O_METHOD), get(op, layout.O_STATE)
    for at in range(width):
        place = get(op, layout.O_FOUND) + 8 * (row * width + at)
        if start:
            store_i64(counts + 8 * at, 0)
        else:
            store_f64(place, result_of(combiner, load_i64(counts + 8 * at), load_f64(place)))


@jit
def run_lookup(op: int) -> None:
    """Looks up the keys of each row, in their order."""
    table, keys, takes, combiner = (
        get(op, layout.O_A),
        get(op, layout.O_B),
        get(op, layout.O_TAKES),
        get(op, layout.O_METHOD),
    )
    items, index, scratch, found = (
        get(table, layout.C_CHILD),
        op + 8 * layout.O_INDEX,
        get(op, layout.O_SCRATCH),
        get(op, layout.O_FOUND),
    )
    shared, total, first, last = get(op, layout.O_SHARED) == 1, 0, nb.int64(0), nb.int64(0)
    if shared:
        first, last = span(table, 0)
        index_entries(index, table, first, last)
    start_rows(op)
    for row in range(get(op, layout.O_ROWS)):
        if not shared:
            first, last = span(table, row)
        if takes == layout.TAKE_VECTORS:
            _vectors(op, row, True)
        key_first, key_last = span(keys, row)
        before, count, held = total, 0, 0.0
        for key in range(key_first, key_last):
            text, size = text_of(keys, key, scratch)
            entry = entry_of(op, index, table, first, last, text, size) if size > 0 else -1
            if entry < 0:
                continue
            if takes == layout.TAKE_TEXTS:
                made = _take_text(op, items, entry, text, size)
                if made >= 0:
                    store_i64(get(op, layout.O_IDS) + 8 * total, made)
                    total += 1
            elif takes == layout.TAKE_VECTORS:
                _add_vector(op, items, entry, row)
            else:
                x = number_of(items, entry)
                if x != x:
                    continue
                if takes == layout.TAKE_ALL:
                    store_f64(found + 8 * total, x)
                    total += 1
                else:
                    held = combined(combiner, count, held, x)
                    count += 1
        if takes == layout.TAKE_TEXTS:
            total = finish_ids(op, row, before, total)
        elif takes == layout.TAKE_VECTORS:
            _vectors(op, row, False)
        elif takes == layout.TAKE_NUMBERS:
            store_f64(found + 8 * row, result_of(combiner, count, held))
        else:
            total = finish_all(op, row, before, total)
