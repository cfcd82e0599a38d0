"""Kernel of match: what a map of maps has under two keys, either of which may be every key.

A map that all rows share is indexed once: the outer map by its keys, and each inner map in a region of one table of its
own. A map that each row has for itself is searched. Which entries exist, for the order of every key, is noted likewise.
"""

import numba as nb

from featuregen.kernels import layout
from featuregen.kernels.columns import gather_texts, is_last_of_its_key, number_of, span, span_at, text_of
from featuregen.kernels.index import capacity_of, payload
from featuregen.kernels.lookup import entry_of, finish_all, index_entries, start_rows
from featuregen.kernels.memory import (
    get,
    jit,
    load_f64,
    load_i32,
    load_i64,
    load_u8,
    store_f64,
    store_i64,
    store_u8,
)
from featuregen.kernels.numbers import combined, result_of
from featuregen.kernels.texts import begin_text, encode_behind, finish_ids, put_key


@jit
def _index_live(index: int, column: int, first: int, last: int, live: int) -> None:
    """Indexes a map and notes in a byte for each of its entries whether it exists."""
    known = index_entries(index, column, first, last)
    for entry in range(last - first):
        store_u8(live + entry, 0)
    for number in range(1, known + 1):
        store_u8(live + load_i64(payload(index, number)) - first, 1)


@jit
def _index_maps(op: int, outer: int, first: int, last: int) -> None:
    """Indexes the outer map and each of its inner maps."""
    inner, region = get(outer, layout.C_CHILD), get(op, layout.O_REGIONS)
    base = load_i32(get(inner, layout.C_LIST) + 4 * first)
    slots, records = get(op, layout.O_REGION_SLOTS), get(op, layout.O_REGION_RECORDS)
    _index_live(op + 8 * layout.O_INDEX, outer, first, last, get(op, layout.O_LIVE))
    for entry in range(first, last):
        begin, end = span_at(inner, entry)
        capacity = capacity_of(end - begin)
        store_i64(region + 8 * layout.I_SLOTS, slots)
        store_i64(region + 8 * layout.I_MASK, capacity - 1)
        store_i64(region + 8 * layout.I_RECORDS, records)
        _index_live(region, inner, begin, end, get(op, layout.O_LIVE_INNER) + max(begin - base, 0))
        region += 8 * layout.INDEX_WIDTH
        slots += 8 * capacity
        records += layout.RECORD_BYTES * (end - begin)


@jit
def _exists(op: int, live: int, column: int, entry: int, last: int) -> bool:
    """Says whether an entry of a map exists; `live` is its byte if the map is indexed."""
    if get(op, layout.O_SHARED) == 1:
        return load_u8(live) == 1
    return is_last_of_its_key(column, entry, last)


@jit
def _take_text(op: int, outer: int, outer_entry: int, inner: int, entry: int) -> int:
    """Id of the text of a match, behind the keys that are shown; -1 if it is missing or not encodable."""
    text, size = text_of(get(inner, layout.C_CHILD), entry, 0)
    if size == 0:
        return -1
    show, end = get(op, layout.O_SHOW), begin_text(op)
    if show & layout.SHOW_PKEY:
        key, key_size = text_of(outer, outer_entry, 0)
        end = put_key(end, key, key_size)
    if show & layout.SHOW_SKEY:
        key, key_size = text_of(inner, entry, 0)
        end = put_key(end, key, key_size)
    return encode_behind(op, end, text, size)


@jit
def _take(op: int, outer: int, outer_entry: int, inner: int, entry: int) -> None:
    """Adds a match to the row. State: numbers of the row, their combination, ids or numbers of all rows."""
    takes, state = get(op, layout.O_TAKES), get(op, layout.O_STATE)
    total = load_i64(state + 16)
    if takes == layout.TAKE_COUNT:
        store_i64(state + 16, total + 1)
    elif takes == layout.TAKE_TEXTS:
        made = _take_text(op, outer, outer_entry, inner, entry)
        if made >= 0:
            store_i64(get(op, layout.O_IDS) + 8 * total, made)
            store_i64(state + 16, total + 1)
    else:
        x = number_of(get(inner, layout.C_CHILD), entry)
        if x != x:
            return
        if takes == layout.TAKE_ALL:
            store_f64(get(op, layout.O_FOUND) + 8 * total, x)
            store_i64(state + 16, total + 1)
        else:
            count = load_i64(state)
            store_f64(state + 8, combined(get(op, layout.O_METHOD), count, load_f64(state + 8), x))
            store_i64(state, count + 1)


@jit
def _match_inner(op: int, outer: int, outer_entry: int, first: int, base: int, keys: int) -> None:
    """Takes what an inner map has under `keys` gathered keys, or all that it has."""
    inner = get(outer, layout.C_CHILD)
    begin, end = span_at(inner, outer_entry)
    if get(op, layout.O_C) == 0:
        for entry in range(begin, end):
            if _exists(op, get(op, layout.O_LIVE_INNER) + entry - base, inner, entry, end):
                _take(op, outer, outer_entry, inner, entry)
        return
    region = get(op, layout.O_REGIONS) + 8 * layout.INDEX_WIDTH * (outer_entry - first)
    for key in range(keys):
        record = get(op, layout.O_TEXTS) + layout.TEXT_BYTES * key
        entry = entry_of(op, region, inner, begin, end, load_i64(record), load_i64(record + 8))
        if entry >= 0:
            _take(op, outer, outer_entry, inner, entry)


@jit
def run_match(op: int) -> int:
    """Matches the keys of each row, the outer ones in the outer loop; returns the number of matches if it counts."""
    outer, pkeys, skeys = get(op, layout.O_A), get(op, layout.O_B), get(op, layout.O_C)
    takes, state, shared = get(op, layout.O_TAKES), get(op, layout.O_STATE), get(op, layout.O_SHARED) == 1
    first, last, base = nb.int64(0), nb.int64(0), nb.int64(0)
    if shared:
        first, last = span(outer, 0)
        base = load_i32(get(get(outer, layout.C_CHILD), layout.C_LIST) + 4 * first)
        _index_maps(op, outer, first, last)
    start_rows(op)
    store_i64(state + 16, 0)
    for row in range(get(op, layout.O_ROWS)):
        before = load_i64(state + 16)
        store_i64(state, 0)
        if not shared:
            first, last = span(outer, row)
        keys = gather_texts(skeys, row, get(op, layout.O_TEXTS)) if skeys != 0 else 0
        if pkeys == 0:
            for entry in range(first, last):
                if _exists(op, get(op, layout.O_LIVE) + entry - first, outer, entry, last):
                    _match_inner(op, outer, entry, first, base, keys)
        else:
            key_first, key_last = span(pkeys, row)
            for key in range(key_first, key_last):
                text, size = text_of(pkeys, key, get(op, layout.O_SCRATCH))
                if size > 0:
                    entry = entry_of(op, op + 8 * layout.O_INDEX, outer, first, last, text, size)
                    if entry >= 0:
                        _match_inner(op, outer, entry, first, base, keys)
        total = load_i64(state + 16)
        if takes == layout.TAKE_TEXTS:
            store_i64(state + 16, finish_ids(op, row, before, total))
        elif takes == layout.TAKE_ALL:
            store_i64(state + 16, finish_all(op, row, before, total))
        elif takes == layout.TAKE_NUMBERS:
            held = load_f64(state + 8)
            store_f64(get(op, layout.O_FOUND) + 8 * row, result_of(get(op, layout.O_METHOD), load_i64(state), held))
    return load_i64(state + 16)
