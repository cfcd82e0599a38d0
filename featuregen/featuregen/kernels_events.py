"""Kernels over logged behaviour: which events are visible, window counts, sequences. The oracle says what they mean.

One pass selects the visible events of a (behaviour, actions) pair; all windows and sequences over it read that.
"""

from typing import Any

import numba as nb
import numpy as np

from featuregen.kernels_hash import farm64
from featuregen.kernels_memory import (
    equal_bytes,
    is_valid,
    jit,
    load_i32,
    load_i64,
    store_f32,
    store_i32,
    store_i64,
)
from featuregen.kernels_values import element_text, encode_element, hash_element, span
from featuregen.layout import (
    C_CHILD_BIT,
    C_CHILD_VALID,
    C_DATA,
    C_KIND,
    C_STEP,
    C_TEXT,
    ENCODE_HASH,
    KIND_INT,
    KIND_TEXT,
    O_A,
    O_ACTION,
    O_ACTION_COUNT,
    O_ACTION_DATA,
    O_ACTION_TEXT,
    O_B,
    O_BUCKETS,
    O_COUNTS,
    O_DEFAULT,
    O_DISTINCT,
    O_ENCODE,
    O_GROUP_OFFSETS,
    O_GROUP_POSITIONS,
    O_GROUP_STEP,
    O_IDS,
    O_LENGTH,
    O_MAX_AGE,
    O_MAX_EVENTS,
    O_NOW,
    O_OFFSETS,
    O_ROWS,
    O_SLOT_CAPACITY,
    O_SLOTS,
    O_STD,
    O_TS,
    O_VALUES,
    O_WINDOW_COUNT,
    O_WINDOWS,
)

_SPREAD = np.uint64(0x9E3779B97F4A7C15)


@jit
def aligned(column: Any, row: int, events: int) -> int:
    """First element of an attribute list, -1 if it is not as long as `ts`: the whole list is missing."""
    first, last = span(column, row)
    return first if last - first == events else -1


@jit
def _wanted(count: int, texts: int, data: int, text: int, size: int) -> bool:
    for action in range(count):
        start = load_i32(texts + 4 * action)
        if load_i32(texts + 4 * action + 4) - start == size and equal_bytes(data + start, text, size):
            return True
    return False


@jit
def run_select(op: Any, columns: Any) -> None:
    """Positions of the visible events of each row, oldest first: before now, newest K, fresh, of a wanted action."""
    stamps, nows, total = columns[op[O_TS]], columns[op[O_NOW]], 0
    positions = op[O_GROUP_POSITIONS]
    count, wanted_texts, wanted_data = op[O_ACTION_COUNT], op[O_ACTION_TEXT], op[O_ACTION_DATA]
    filtered = op[O_ACTION] >= 0
    column = columns[op[O_ACTION] if filtered else 0]
    store_i32(op[O_GROUP_OFFSETS], 0)
    for row in range(op[O_ROWS]):
        now = load_i64(nows[C_DATA] + 8 * row * nows[C_STEP])
        first, last = span(stamps, row)
        actions = aligned(column, row, last - first) if filtered else nb.int64(0)
        seen, begin = 0, total
        for event in range(last - 1, first - 1, -1):
            ts = load_i64(stamps[C_DATA] + 8 * event)
            if not is_valid(stamps[C_CHILD_VALID], stamps[C_CHILD_BIT] + event) or ts >= now:
                continue
            seen += 1
            if seen > op[O_MAX_EVENTS]:
                break
            if ts < now - op[O_MAX_AGE]:
                continue
            if filtered:
                element = actions + event - first
                if actions < 0 or not is_valid(column[C_CHILD_VALID], column[C_CHILD_BIT] + element):
                    continue
                start = load_i32(column[C_TEXT] + 4 * element)
                size = load_i32(column[C_TEXT] + 4 * element + 4) - start
                if not _wanted(count, wanted_texts, wanted_data, column[C_DATA] + start, size):
                    continue
            store_i32(positions + 4 * total, event - first)
            total += 1
        low, high = begin, total - 1
        while low < high:
            a, b = load_i32(positions + 4 * low), load_i32(positions + 4 * high)
            store_i32(positions + 4 * low, b)
            store_i32(positions + 4 * high, a)
            low, high = low + 1, high - 1
        store_i32(op[O_GROUP_OFFSETS] + 4 * row + 4, total)


@jit
def _smallest_window(op: Any, now: int, ts: int) -> int:
    """Index of the smallest window that contains ts, the number of windows if none does."""
    window = 0
    while window < op[O_WINDOW_COUNT] and ts < now - load_i64(op[O_WINDOWS] + 8 * window):
        window += 1
    return window


@jit
def _add(counts: int, window: int) -> None:
    store_i64(counts + 8 * window, load_i64(counts + 8 * window) + 1)


@jit
def _write_counts(op: Any, row: int, counts: int) -> None:
    """Writes running totals over windows: a larger window contains the smaller ones."""
    total = 0
    for window in range(op[O_WINDOW_COUNT]):
        total += load_i64(counts + 8 * window)
        store_f32(op[O_VALUES] + 4 * (row * op[O_WINDOW_COUNT] + window), np.float32(total))


@jit
def _clear(counts: int, size: int) -> None:
    for window in range(size):
        store_i64(counts + 8 * window, 0)


@jit
def _same(a: Any, element_a: int, b: Any, element_b: int) -> bool:
    """Says whether two non-missing elements of the same type are equal."""
    if a[C_KIND] == KIND_INT:
        return load_i64(a[C_DATA] + 8 * element_a) == load_i64(b[C_DATA] + 8 * element_b)
    text_a, size_a = element_text(a, element_a, 0)
    text_b, size_b = element_text(b, element_b, 0)
    return size_a == size_b and equal_bytes(text_a, text_b, size_a)


@jit
def _present(column: Any, element: int) -> bool:
    if not is_valid(column[C_CHILD_VALID], column[C_CHILD_BIT] + element):
        return False
    if column[C_KIND] == KIND_INT:
        return True
    return load_i32(column[C_TEXT] + 4 * element) != load_i32(column[C_TEXT] + 4 * element + 4)


@jit
def _element_hash(column: Any, element: int) -> int:
    if column[C_KIND] == KIND_INT:
        mixed = nb.uint64(load_i64(column[C_DATA] + 8 * element)) * _SPREAD
        return nb.int64(mixed >> np.uint64(20))
    text, size = element_text(column, element, 0)
    return nb.int64(farm64(text, size))


@jit
def run_window(op: Any, columns: Any) -> None:
    """Counts of visible events in [now - w, now), all of them or those whose attribute equals the candidate's."""
    if op[O_A] < 0:
        _window_total(op, columns)
    elif op[O_GROUP_STEP] == 0:
        _window_shared(op, columns)
    else:
        _window_by_row(op, columns)


@jit
def _window_total(op: Any, columns: Any) -> None:
    """Counts of all visible events of each row."""
    stamps, nows = columns[op[O_TS]], columns[op[O_NOW]]
    counts, positions = op[O_COUNTS], op[O_GROUP_POSITIONS]
    for row in range(op[O_ROWS]):
        _clear(counts, op[O_WINDOW_COUNT] + 1)
        now = load_i64(nows[C_DATA] + 8 * row * nows[C_STEP])
        first, _ = span(stamps, row)
        group = op[O_GROUP_OFFSETS] + 4 * row * op[O_GROUP_STEP]
        for at in range(load_i32(group), load_i32(group + 4)):
            ts = load_i64(stamps[C_DATA] + 8 * (first + load_i32(positions + 4 * at)))
            _add(counts, _smallest_window(op, now, ts))
        _write_counts(op, row, counts)


@jit
def _window_by_row(op: Any, columns: Any) -> None:
    """Each row has its own behaviour and one candidate: compares every event, by length before bytes."""
    stamps, nows, events, candidates = columns[op[O_TS]], columns[op[O_NOW]], columns[op[O_A]], columns[op[O_B]]
    counts, positions = op[O_COUNTS], op[O_GROUP_POSITIONS]
    numbers = events[C_KIND] == KIND_INT
    for row in range(op[O_ROWS]):
        _clear(counts, op[O_WINDOW_COUNT] + 1)
        now = load_i64(nows[C_DATA] + 8 * row * nows[C_STEP])
        first, last = span(stamps, row)
        attributes = aligned(events, row, last - first)
        candidate = row * candidates[C_STEP]
        group = op[O_GROUP_OFFSETS] + 4 * row
        if attributes < 0 or not _present(candidates, candidate):
            _write_counts(op, row, counts)
            continue
        text, size, number = nb.int64(0), nb.int64(0), nb.int64(0)
        if numbers:
            number = load_i64(candidates[C_DATA] + 8 * candidate)
        else:
            text, size = element_text(candidates, candidate, 0)
        for at in range(load_i32(group), load_i32(group + 4)):
            position = load_i32(positions + 4 * at)
            element = attributes + position
            if numbers:
                equal = load_i64(events[C_DATA] + 8 * element) == number
            else:
                start = load_i32(events[C_TEXT] + 4 * element)
                equal = load_i32(events[C_TEXT] + 4 * element + 4) - start == size
                equal = equal and equal_bytes(events[C_DATA] + start, text, size)
            if equal and is_valid(events[C_CHILD_VALID], events[C_CHILD_BIT] + element):
                _add(counts, _smallest_window(op, now, load_i64(stamps[C_DATA] + 8 * (first + position))))
        _write_counts(op, row, counts)


@jit
def _slot_of(op: Any, events: Any, column: Any, element: int) -> int:
    """Slot that holds an element's value or is free for it; slots hold distinct number + 1."""
    mask = op[O_SLOT_CAPACITY] - 1
    at = _element_hash(column, element) & mask
    while True:
        found = load_i32(op[O_SLOTS] + 4 * at) - 1
        if found < 0 or _same(events, load_i64(op[O_DISTINCT] + 8 * found), column, element):
            return at
        at = (at + 1) & mask


@jit
def _window_shared(op: Any, columns: Any) -> None:
    """One user, many candidates: counts per distinct attribute value once, then one probe for each candidate."""
    stamps, events, candidates = columns[op[O_TS]], columns[op[O_A]], columns[op[O_B]]
    size = 8 * (op[O_WINDOW_COUNT] + 1)
    now = load_i64(columns[op[O_NOW]][C_DATA])
    first, last = span(stamps, 0)
    attributes = aligned(events, 0, last - first)
    for slot in range(op[O_SLOT_CAPACITY]):
        store_i32(op[O_SLOTS] + 4 * slot, 0)
    _clear(op[O_COUNTS], op[O_WINDOW_COUNT] + 1)
    distinct = 0
    for at in range(load_i32(op[O_GROUP_OFFSETS]), load_i32(op[O_GROUP_OFFSETS] + 4)):
        position = load_i32(op[O_GROUP_POSITIONS] + 4 * at)
        if attributes < 0 or not _present(events, attributes + position):
            continue
        slot = op[O_SLOTS] + 4 * _slot_of(op, events, events, attributes + position)
        if load_i32(slot) == 0:
            store_i64(op[O_DISTINCT] + 8 * distinct, attributes + position)
            distinct += 1
            store_i32(slot, distinct)
            _clear(op[O_COUNTS] + size * distinct, op[O_WINDOW_COUNT] + 1)
        window = _smallest_window(op, now, load_i64(stamps[C_DATA] + 8 * (first + position)))
        _add(op[O_COUNTS] + size * load_i32(slot), window)
    for row in range(op[O_ROWS]):
        candidate = row * candidates[C_STEP]
        number = nb.int64(0)
        if _present(candidates, candidate):
            number = load_i32(op[O_SLOTS] + 4 * _slot_of(op, events, candidates, candidate))
        _write_counts(op, row, op[O_COUNTS] + size * number)


@jit
def run_sequence(op: Any, columns: Any) -> None:
    """Ids of an attribute of the newest visible events, oldest first; a missing element is the default."""
    stamps, column, total = columns[op[O_TS]], columns[op[O_A]], 0
    hashed = op[O_ENCODE] == ENCODE_HASH and column[C_KIND] == KIND_TEXT
    std, buckets, texts, data = op[O_STD], op[O_BUCKETS], column[C_TEXT], column[C_DATA]
    bitmap, bit = column[C_CHILD_VALID], column[C_CHILD_BIT]
    store_i32(op[O_OFFSETS], 0)
    for row in range(op[O_ROWS]):
        first, last = span(stamps, row)
        attributes = aligned(column, row, last - first)
        group = op[O_GROUP_OFFSETS] + 4 * row * op[O_GROUP_STEP]
        begin, end = load_i32(group), load_i32(group + 4)
        for at in range(max(begin, end - op[O_LENGTH]), end):
            found = nb.int64(-1)
            element = attributes + load_i32(op[O_GROUP_POSITIONS] + 4 * at)
            if attributes >= 0 and hashed:
                found = hash_element(std, buckets, texts, data, bitmap, bit, element)
            elif attributes >= 0:
                found = encode_element(op, column, element)
            store_i64(op[O_IDS] + 8 * total, found if found >= 0 else op[O_DEFAULT])
            total += 1
        store_i32(op[O_OFFSETS] + 4 * row + 4, total)
