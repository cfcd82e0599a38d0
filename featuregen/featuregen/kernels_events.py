"""Kernels over logged behaviour: which events are visible, window counts, sequences. The oracle says what they mean.

One pass selects the visible events of a (behaviour, actions) pair; all windows and sequences over it read that.
"""

from typing import Any

import numba as nb
import numpy as np

from featuregen.kernels_columns import hash_key, key_of, same_key, span
from featuregen.kernels_ids import encode_element, hash_element
from featuregen.kernels_memory import equal_bytes, is_valid, jit, load_i32, load_i64, store_f32, store_i32, store_i64
from featuregen.layout import (
    C_CHILD_BIT,
    C_CHILD_VALID,
    C_DATA,
    C_KIND,
    C_STEP,
    C_TEXT,
    ENCODE_HASH,
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
def _write_counts(values: int, windows: int, row: int, counts: int) -> None:
    """Writes running totals over windows: a larger window contains the smaller ones."""
    total = 0
    for window in range(windows):
        total += load_i64(counts + 8 * window)
        store_f32(values + 4 * (row * windows + window), np.float32(total))


@jit
def _clear(counts: int, size: int) -> None:
    for window in range(size):
        store_i64(counts + 8 * window, 0)


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
        _write_counts(op[O_VALUES], op[O_WINDOW_COUNT], row, counts)


@jit
def _window_by_row(op: Any, columns: Any) -> None:
    """Each row has its own behaviour and one candidate: compares every event, by length before bytes."""
    stamps, nows, events, candidates = columns[op[O_TS]], columns[op[O_NOW]], columns[op[O_A]], columns[op[O_B]]
    counts, positions, windows = op[O_COUNTS], op[O_GROUP_POSITIONS], op[O_WINDOW_COUNT]
    kind, data, texts = events[C_KIND], events[C_DATA], events[C_TEXT]
    bitmap, bit = events[C_CHILD_VALID], events[C_CHILD_BIT]
    for row in range(op[O_ROWS]):
        _clear(counts, windows + 1)
        now = load_i64(nows[C_DATA] + 8 * row * nows[C_STEP])
        first, last = span(stamps, row)
        attributes = aligned(events, row, last - first)
        key, size = _key(candidates, row * candidates[C_STEP])
        if attributes >= 0 and size != 0:
            group = op[O_GROUP_OFFSETS] + 4 * row
            for at in range(load_i32(group), load_i32(group + 4)):
                position = load_i32(positions + 4 * at)
                event, event_size = key_of(kind, data, texts, bitmap, bit, attributes + position)
                if same_key(event, event_size, key, size):
                    _add(counts, _smallest_window(op, now, load_i64(stamps[C_DATA] + 8 * (first + position))))
        _write_counts(op[O_VALUES], windows, row, counts)


@jit
def _key(column: Any, element: int) -> Any:
    return key_of(column[C_KIND], column[C_DATA], column[C_TEXT], column[C_CHILD_VALID], column[C_CHILD_BIT], element)


@jit
def _slot_of(slots: int, capacity: int, distinct: int, key: int, size: int) -> int:
    """Address of the slot that holds a key or is free for it; slots hold the number of a distinct key, from 1."""
    at = hash_key(key, size) & (capacity - 1)
    while True:
        found = load_i32(slots + 4 * at) - 1
        if found < 0:
            return slots + 4 * at
        if same_key(load_i64(distinct + 16 * found), load_i64(distinct + 16 * found + 8), key, size):
            return slots + 4 * at
        at = (at + 1) & (capacity - 1)


@jit
def _window_shared(op: Any, columns: Any) -> None:
    """One user, many candidates: counts per distinct attribute value once, then one probe for each candidate."""
    stamps, events, candidates = columns[op[O_TS]], columns[op[O_A]], columns[op[O_B]]
    slots, capacity, distinct, counts = op[O_SLOTS], op[O_SLOT_CAPACITY], op[O_DISTINCT], op[O_COUNTS]
    windows, values = op[O_WINDOW_COUNT], op[O_VALUES]
    stride = 8 * (windows + 1)
    now = load_i64(columns[op[O_NOW]][C_DATA])
    first, last = span(stamps, 0)
    attributes = aligned(events, 0, last - first)
    for slot in range(capacity):
        store_i32(slots + 4 * slot, 0)
    _clear(counts, windows + 1)
    known = 0
    for at in range(load_i32(op[O_GROUP_OFFSETS]), load_i32(op[O_GROUP_OFFSETS] + 4)):
        position = load_i32(op[O_GROUP_POSITIONS] + 4 * at)
        if attributes < 0:
            break
        key, size = _key(events, attributes + position)
        if size == 0:
            continue
        place = _slot_of(slots, capacity, distinct, key, size)
        if load_i32(place) == 0:
            store_i64(distinct + 16 * known, key)
            store_i64(distinct + 16 * known + 8, size)
            known += 1
            store_i32(place, known)
            _clear(counts + stride * known, windows + 1)
        window = _smallest_window(op, now, load_i64(stamps[C_DATA] + 8 * (first + position)))
        _add(counts + stride * load_i32(place), window)
    kind, data, texts = candidates[C_KIND], candidates[C_DATA], candidates[C_TEXT]
    bitmap, bit, step = candidates[C_CHILD_VALID], candidates[C_CHILD_BIT], candidates[C_STEP]
    for row in range(op[O_ROWS]):
        key, size = key_of(kind, data, texts, bitmap, bit, row * step)
        number = nb.int64(0)
        if size != 0:
            number = load_i32(_slot_of(slots, capacity, distinct, key, size))
        _write_counts(values, windows, row, counts + stride * number)


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
