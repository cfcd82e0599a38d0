"""Kernels of windows over logged behaviour, and the choice of the events that they and sequences see.

One pass selects the visible events of a (behaviour, actions) pair; all windows and sequences over it read that. A
number goes to the smallest window that contains its event, and a larger window is the running total of the smaller
ones: that is the order in which numbers are added, here and in the other interpreters.
"""

import numba as nb
import numpy as np

from featuregen.kernels import layout
from featuregen.kernels.columns import aligned, key_of, number_of, place, same_key, span
from featuregen.kernels.index import clear_index, find, insert
from featuregen.kernels.memory import (
    equal_bytes,
    get,
    is_valid,
    jit,
    load_f64,
    load_i32,
    load_i64,
    store_f64,
    store_i32,
    store_i64,
)

_BUCKET = 16  # bytes of a window's bucket: a number, and how many went in, or the event it is of


@jit
def time_at(column: int, element: int) -> int:
    """Milliseconds of an element of a time column."""
    return load_i64(get(column, layout.C_DATA) + 8 * element)


@jit
def _is_wanted(op: int, column: int, element: int) -> bool:
    """Says whether an event's action is one of those that are asked for."""
    texts, data = get(op, layout.O_WORD_TEXT), get(op, layout.O_WORD_DATA)
    text, size = key_of(column, element)
    for action in range(get(op, layout.O_ACTION_COUNT)):
        start = load_i32(texts + 4 * action)
        if load_i32(texts + 4 * action + 4) - start == size and equal_bytes(data + start, text, size):
            return True
    return False


@jit
def run_select(op: int) -> None:
    """Positions of the visible events of each row, oldest first: before now, newest K, fresh, of a wanted action."""
    stamps, nows, actions = get(op, layout.O_TS), get(op, layout.O_NOW), get(op, layout.O_ACTIONS)
    positions, total = get(op, layout.O_GROUP_POSITIONS), 0
    valid, bit = get(stamps, layout.C_CHILD_VALID), get(stamps, layout.C_CHILD_BIT)
    store_i32(get(op, layout.O_GROUP_OFFSETS), 0)
    for row in range(get(op, layout.O_ROWS)):
        now = time_at(nows, place(nows, row))
        first, last = span(stamps, row)
        first_action = aligned(actions, row, last - first) if actions != 0 else 0
        seen, begin = 0, total
        for event in range(last - 1, first - 1, -1):
            ts = time_at(stamps, event)
            if not is_valid(valid, bit + event) or ts >= now:
                continue
            seen += 1
            if seen > get(op, layout.O_MAX_EVENTS):
                break
            if ts < now - get(op, layout.O_MAX_AGE):
                continue
            if actions != 0 and (first_action < 0 or not _is_wanted(op, actions, first_action + event - first)):
                continue
            store_i32(positions + 4 * total, event - first)
            total += 1
        low, high = begin, total - 1
        while low < high:
            a, b = load_i32(positions + 4 * low), load_i32(positions + 4 * high)
            store_i32(positions + 4 * low, b)
            store_i32(positions + 4 * high, a)
            low, high = low + 1, high - 1
        store_i32(get(op, layout.O_GROUP_OFFSETS) + 4 * row + 4, total)


@jit
def _clear(buckets: int, windows: int) -> None:
    for window in range(windows + 1):
        store_f64(buckets + _BUCKET * window, 0.0)
        store_i64(buckets + _BUCKET * window + 8, 0)


@jit
def _is_better(agg: int, x: float, at: int, held: float, held_at: int) -> bool:
    """Says whether an event's number takes the place of another's: the first of equal extremes, the last event."""
    if held_at == 0:
        return True
    if agg == layout.AGG_LAST:
        return at > held_at
    if x == held:
        return at < held_at
    return x < held if agg == layout.AGG_MIN else x > held


@jit
def _add(op: int, buckets: int, now: int, ts: int, position: int, x: float) -> None:
    """Puts an event, with its number, into the bucket of the smallest window that contains it."""
    window, windows, agg = 0, get(op, layout.O_WINDOW_COUNT), get(op, layout.O_METHOD)
    while window < windows and ts < now - get(get(op, layout.O_WINDOWS), window):
        window += 1
    bucket = buckets + _BUCKET * window
    if agg <= layout.AGG_AVG:
        store_f64(bucket, load_f64(bucket) + x)
        store_i64(bucket + 8, load_i64(bucket + 8) + 1)
    elif _is_better(agg, x, position + 1, load_f64(bucket), load_i64(bucket + 8)):
        store_f64(bucket, x)
        store_i64(bucket + 8, position + 1)


@jit
def _total(op: int, buckets: int, found: int) -> None:
    """Writes the number of each window, NaN if it has none."""
    agg, x, count = get(op, layout.O_METHOD), 0.0, 0
    for window in range(get(op, layout.O_WINDOW_COUNT)):
        more, more_count = load_f64(buckets + _BUCKET * window), load_i64(buckets + _BUCKET * window + 8)
        if agg <= layout.AGG_AVG:
            x, count = x + more, count + more_count
        elif more_count > 0 and _is_better(agg, more, more_count, x, count):
            x, count = more, more_count
        result = x
        if agg == layout.AGG_COUNT:
            result = float(count)
        elif agg == layout.AGG_SUM:
            result = x if x == x else 0.0
        elif count == 0:
            result = np.nan
        elif agg == layout.AGG_AVG:
            result = x / count
        store_f64(found + 8 * window, result)


@jit
def _by_row(op: int) -> None:
    """Each row has its own behaviour: all of its events, or those whose attribute equals the candidate's."""
    stamps, nows, events, candidates = (
        get(op, layout.O_TS),
        get(op, layout.O_NOW),
        get(op, layout.O_A),
        get(op, layout.O_B),
    )
    buckets, windows, numbers = get(op, layout.O_COUNTS), get(op, layout.O_WINDOW_COUNT), get(op, layout.O_C)
    positions = get(op, layout.O_GROUP_POSITIONS)
    for row in range(get(op, layout.O_ROWS)):
        _clear(buckets, windows)
        now = time_at(nows, place(nows, row))
        first, last = span(stamps, row)
        attributes, key, size = nb.int64(0), nb.int64(0), nb.int64(0)
        if events != 0:
            attributes = aligned(events, row, last - first)
            key, size = key_of(candidates, place(candidates, row))
        values = aligned(numbers, row, last - first) if numbers != 0 else 0
        if attributes >= 0 and values >= 0 and (events == 0 or size != 0):
            group = get(op, layout.O_GROUP_OFFSETS) + 4 * row * get(op, layout.O_GROUP_STEP)
            for at in range(load_i32(group), load_i32(group + 4)):
                position = load_i32(positions + 4 * at)
                if events != 0:
                    event, event_size = key_of(events, attributes + position)
                    if not same_key(event, event_size, key, size):
                        continue
                x = number_of(numbers, values + position) if numbers != 0 else 0.0
                if x == x:
                    _add(op, buckets, now, time_at(stamps, first + position), position, x)
        _total(op, buckets, get(op, layout.O_FOUND) + 8 * row * windows)


@jit
def _by_key(op: int) -> None:
    """One behaviour, many candidates: the windows of each attribute value once, then one probe for each candidate."""
    stamps, events, candidates, numbers = (
        get(op, layout.O_TS),
        get(op, layout.O_A),
        get(op, layout.O_B),
        get(op, layout.O_C),
    )
    index, buckets, windows = op + 8 * layout.O_INDEX, get(op, layout.O_COUNTS), get(op, layout.O_WINDOW_COUNT)
    now, totals, stride = time_at(get(op, layout.O_NOW), 0), get(op, layout.O_STATE), 8 * windows
    first, last = span(stamps, 0)
    attributes = aligned(events, 0, last - first)
    values = aligned(numbers, 0, last - first) if numbers != 0 else 0
    group, known = get(op, layout.O_GROUP_OFFSETS), nb.int64(0)
    clear_index(index)
    _clear(buckets, windows)
    for at in range(load_i32(group), load_i32(group + 4)):
        if attributes < 0 or values < 0:
            break
        position = load_i32(get(op, layout.O_GROUP_POSITIONS) + 4 * at)
        key, size = key_of(events, attributes + position)
        x = number_of(numbers, values + position) if numbers != 0 else 0.0
        if size == 0 or x != x:
            continue
        number = insert(index, known, key, size)
        counts = buckets + _BUCKET * (windows + 1) * number
        if number > known:
            _clear(counts, windows)
            known = number
        _add(op, counts, now, time_at(stamps, first + position), position, x)
    for number in range(known + 1):
        _total(op, buckets + _BUCKET * (windows + 1) * number, totals + stride * number)
    for row in range(get(op, layout.O_ROWS)):
        key, size = key_of(candidates, place(candidates, row))
        source = totals + stride * (find(index, key, size) if size != 0 else 0)
        target = get(op, layout.O_FOUND) + stride * row
        for window in range(windows):
            store_i64(target + 8 * window, load_i64(source + 8 * window))


@jit
def run_window(op: int) -> None:
    """Aggregates of visible events in [now - w, now)."""
    if get(op, layout.O_A) != 0 and get(op, layout.O_GROUP_STEP) == 0:
        _by_key(op)
    else:
        _by_row(op)
