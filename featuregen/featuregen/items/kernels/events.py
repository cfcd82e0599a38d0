"""Kernel of counts by an attribute: which of the user's events count, then one probe for each item.

The rules of `featuregen.oracle.events`: before now, the newest MAX_EVENTS, no older than MAX_AGE, of a wanted action.
"""

import numba as nb
import numpy as np

from featuregen.items.kernels.tables import ENTRY, clear_table, dictionary_of, slot_of
from featuregen.items.kernels.texts import hash_texts, hashed_code
from featuregen.items.table import (
    T_ACTION_COUNT,
    T_ACTIONS,
    T_CAPACITY,
    T_CODES,
    T_DATA,
    T_DONE,
    T_EVENT_CODES,
    T_EVENTS,
    T_MAX_AGE,
    T_MAX_EVENTS,
    T_N,
    T_NEEDED,
    T_NOW,
    T_OUT,
    T_SCRATCH,
    T_SIZE,
    T_STAMPS,
    T_STRIDE,
    T_TEXTS,
    T_USER,
    T_WINDOW_COUNT,
    T_WINDOWS,
)
from featuregen.kernels.arrow import child, int_at, is_present, list_span, text_at, user_array
from featuregen.kernels.memory import equal_bytes, get, jit, load_i32, load_i64, put, store_f32, store_i32, store_i64

U = np.uint64


@jit
def _is_wanted(step: int, actions: int, element: int) -> bool:
    """Says whether an event's action is one of those that count."""
    text, size = text_at(actions, element)
    for action in range(get(step, T_ACTION_COUNT)):
        start = load_i32(get(step, T_TEXTS) + 4 * action)
        if load_i32(get(step, T_TEXTS) + 4 * action + 4) - start == size:
            if is_present(actions, element) and equal_bytes(get(step, T_DATA) + start, text, size):
                return True
    return False


@jit
def _add(step: int, mask: int, known: int, code: int, now: int, ts: int) -> int:
    """Counts an event in the smallest window that has it; returns the number of codes that are counted, from 1."""
    windows, table = get(step, T_WINDOW_COUNT), get(step, T_SCRATCH)
    counts = table + ENTRY * (mask + 1)
    place = slot_of(table, mask, code)
    if load_i64(place) == 0:
        known += 1
        store_i64(place, code)
        store_i64(place + 8, known)
        for window in range(windows):
            store_i64(counts + 8 * (windows * known + window), 0)
    window = 0
    while window < windows and ts < now - load_i64(get(step, T_WINDOWS) + 8 * window):
        window += 1
    if window < windows:
        at = counts + 8 * (windows * load_i64(place + 8) + window)
        store_i64(at, load_i64(at) + 1)
    return known


@jit
def encode_events(step: int, dictionaries: int, user: int) -> None:
    """The codes of an attribute of all events, for the steps that count by it: int32 at CODES, DONE of them.

    EVENT_CODES are those that are known already, SIZE of them; 0: there are none.
    """
    known = get(step, T_EVENT_CODES)
    put(step, T_CODES, known)
    put(step, T_DONE, get(step, T_SIZE))
    if known != 0:
        return
    words = user_array(user, get(step, T_USER))
    first, last = list_span(words, 0)
    count = last - first
    if 16 * count > get(step, T_CAPACITY):
        put(step, T_NEEDED, 16 * count)
        put(step, T_DONE, -1)
        return
    dictionary, hashes = dictionary_of(dictionaries, step), get(step, T_SCRATCH)
    codes = hashes + 8 * count
    hash_texts(dictionary, child(words, 0), first, count, hashes)
    for event in range(count):
        store_i32(codes + 4 * event, hashed_code(dictionary, child(words, 0), first, event, hashes))
    put(step, T_CODES, codes)
    put(step, T_DONE, count)


@jit
def _count(step: int, codes: int, mask: int, user: int) -> int:
    """Counts visible events by the code of their attribute; returns the number of codes."""
    stamps, now = user_array(user, get(step, T_STAMPS)), int_at(user_array(user, get(step, T_NOW)), 0)
    times, (first, last) = child(stamps, 0), list_span(stamps, 0)
    filtered, actions, action, end = get(step, T_ACTION_COUNT) > 0, nb.int64(0), nb.int64(0), nb.int64(0)
    if filtered:
        actions = user_array(user, get(step, T_ACTIONS))
        action, end = list_span(actions, 0)
        if end - action != last - first:  # the actions are missing as a whole
            return 0
        actions = child(actions, 0)
    seen, known = 0, 0
    for index in range(last - first - 1, -1, -1):
        ts = int_at(times, first + index)
        if not is_present(times, first + index) or ts >= now:
            continue
        seen += 1
        if seen > get(step, T_MAX_EVENTS):
            break
        if ts < now - get(step, T_MAX_AGE) or (filtered and not _is_wanted(step, actions, action + index)):
            continue
        code = load_i32(codes + 4 * index)
        if code > 0:
            known = _add(step, mask, known, code, now, ts)
    return known


@jit
def count_events(step: int, user: int) -> None:
    """How many visible events in each window have the item's text; 0 for an item without one."""
    first, last = list_span(user_array(user, get(step, T_STAMPS)), 0)
    windows, events = get(step, T_WINDOW_COUNT), get(step, T_EVENTS)
    mask = clear_table(step, last - first, 8 * windows * (last - first + 1), 0)
    if mask < 0:
        return
    known = nb.int64(0)
    if get(events, T_DONE) == last - first:  # else the attributes are missing as a whole
        known = _count(step, get(events, T_CODES), mask, user)
    table, codes, stride, out = get(step, T_SCRATCH), get(step, T_CODES), get(step, T_STRIDE), get(step, T_OUT)
    counts = table + ENTRY * (mask + 1)
    for window in range(windows):
        store_i64(counts + 8 * window, 0)
    for number in range(1, known + 1):  # a larger window has what the smaller ones have
        for window in range(1, windows):
            at = counts + 8 * (windows * number + window)
            store_i64(at, load_i64(at) + load_i64(at - 8))
    for row in range(get(step, T_N)):
        code = load_i32(codes + stride * row)
        number = load_i64(slot_of(table, mask, max(code, 0)) + 8)  # that of a missing text is 0, like of one not seen
        for window in range(windows):
            store_f32(
                out + 4 * (windows * row + window), np.float32(load_i64(counts + 8 * (windows * number + window)))
            )
