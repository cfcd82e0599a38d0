"""Kernel of overlap: what two lists of words have in common, and where.

The words of one list are numbered by an index, from 1; those of the other list have the same numbers, or 0. All methods
are of these numbers. If all rows share a list its index is built once. The oracle says what the methods mean.
"""

import numba as nb
import numpy as np

from featuregen.kernels import layout
from featuregen.kernels.columns import gather_texts
from featuregen.kernels.index import capacity_of, clear_index, find, insert
from featuregen.kernels.memory import get, jit, load_i32, load_i64, store_f64, store_i32, store_i64


@jit
def _number_words(op: int, column: int, row: int, numbers: int) -> int:
    """Numbers the words of a row by a new index; returns how many words it has."""
    index, texts = op + 8 * layout.O_INDEX, get(op, layout.O_TEXTS)
    count, known = gather_texts(column, row, texts), nb.int64(0)
    store_i64(index + 8 * layout.I_MASK, capacity_of(count) - 1)
    clear_index(index)
    for word in range(count):
        record = texts + layout.TEXT_BYTES * word
        number = insert(index, known, load_i64(record), load_i64(record + 8))
        known = max(known, number)
        store_i32(numbers + 4 * word, number)
    return count


@jit
def _find_words(op: int, column: int, row: int, numbers: int) -> int:
    """Numbers the words of a row as the index does; returns how many words it has."""
    index, texts = op + 8 * layout.O_INDEX, get(op, layout.O_MORE_TEXTS)
    count = gather_texts(column, row, texts)
    for word in range(count):
        record = texts + layout.TEXT_BYTES * word
        store_i32(numbers + 4 * word, find(index, load_i64(record), load_i64(record + 8)))
    return count


@jit
def _mark(seen: int, words: int, count: int, distinct: int) -> None:
    """Sets `seen` to 1 for the numbers of a list's words and to 0 for all others, 0 (not in the index) among them."""
    for number in range(distinct + 1):
        store_i32(seen + 4 * number, 0)
    for word in range(count):
        store_i32(seen + 4 * load_i32(words + 4 * word), 1)
    store_i32(seen, 0)


@jit
def _common(seen: int, a: int, count_a: int, b: int, count_b: int, distinct: int) -> int:
    """How many words of the first list, with repeats, occur in the second."""
    _mark(seen, b, count_b, distinct)
    common = 0
    for word in range(count_a):
        common += load_i32(seen + 4 * load_i32(a + 4 * word))
    return common


@jit
def _run_of(query: int, size: int, title: int, length: int) -> int:
    """First position at which the title has the whole query, -1 if there is none."""
    for start in range(length - size + 1):
        at = 0
        while at < size:
            number = load_i32(title + 4 * (start + at))
            if number == 0 or number != load_i32(query + 4 * at):
                break
            at += 1
        if at == size:
            return start
    return -1


@jit
def _matched(seen: int, query: int, size: int, title: int, length: int, distinct: int, kept: int) -> int:
    """Copies the numbers of title words that the query has, 0 for others; returns how many distinct ones."""
    _mark(seen, query, size, distinct)
    matched = 0
    for word in range(length):
        number = load_i32(title + 4 * word)
        state = load_i32(seen + 4 * number)
        store_i32(kept + 4 * word, number if state != 0 else 0)
        if state == 1:
            store_i32(seen + 4 * number, 2)
            matched += 1
    return matched


@jit
def _lacks_a_word(seen: int, query: int, size: int) -> bool:
    """Whether a query word is not in the title; `seen` has 2 for those that are."""
    for word in range(size):
        if load_i32(seen + 4 * load_i32(query + 4 * word)) != 2:
            return True
    return False


@jit
def _shortest_cover(seen: int, title: int, length: int, matched: int, distinct: int) -> int:
    """Length of the shortest run of the title that has every matched word, of which there is one at least."""
    for number in range(distinct + 1):
        store_i32(seen + 4 * number, 0)
    best, held, start = length, 0, 0
    for end in range(length):
        place = seen + 4 * load_i32(title + 4 * end)
        if place != seen:
            if load_i32(place) == 0:
                held += 1
            store_i32(place, load_i32(place) + 1)
        while held == matched:
            best = min(best, end - start + 1)
            place = seen + 4 * load_i32(title + 4 * start)
            if place != seen:
                store_i32(place, load_i32(place) - 1)
                if load_i32(place) == 0:
                    held -= 1
            start += 1
    return best


@jit
def _nearest(title: int, length: int, a: int, b: int) -> int:
    """Smallest distance of the positions of two words."""
    best, last, word = length, -1, 0
    for at in range(length):
        number = load_i32(title + 4 * at)
        if number == a or number == b:
            if last >= 0 and number != word:
                best = min(best, at - last)
            last, word = at, number
    return best


@jit
def _distance(seen: int, method: int, title: int, length: int, matched: int, distinct: int) -> float:
    """Smallest, greatest or mean distance over all pairs of matched words; `seen` has 2 for those."""
    if matched < 2:
        return float(length if matched == 1 else length + 1)
    low, high, total = length, 0, 0
    for a in range(1, distinct + 1):
        if load_i32(seen + 4 * a) != 2:
            continue
        for b in range(a + 1, distinct + 1):
            if load_i32(seen + 4 * b) == 2:
                nearest = _nearest(title, length, a, b)
                low, high, total = min(low, nearest), max(high, nearest), total + nearest
    if method == layout.OVERLAP_MIN_DIST:
        return float(low)
    if method == layout.OVERLAP_MAX_DIST:
        return float(high)
    return total / (matched * (matched - 1) // 2)


@jit
def _measure(op: int, query: int, size: int, title: int, length: int, distinct: int) -> float:
    """The measure of two lists that are not empty."""
    method, seen = get(op, layout.O_METHOD), get(op, layout.O_STATE)
    if method == layout.OVERLAP_QUERY_RATIO:
        return _common(seen, query, size, title, length, distinct) / size
    if method == layout.OVERLAP_TITLE_RATIO:
        return _common(seen, title, length, query, size, distinct) / length
    if method == layout.OVERLAP_EQUAL:
        return 1.0 if size == length and _run_of(query, size, title, length) == 0 else 0.0
    if method == layout.OVERLAP_CONTAIN:
        return 1.0 if _run_of(query, size, title, length) >= 0 else 0.0
    if method == layout.OVERLAP_INDEX_OF:
        return float(_run_of(query, size, title, length))
    kept = get(op, layout.O_KEPT)
    matched = _matched(seen, query, size, title, length, distinct, kept)
    if method == layout.OVERLAP_MIN_COVER:
        if _lacks_a_word(seen, query, size):
            return 0.0
        return float(_shortest_cover(seen, kept, length, matched, distinct))
    return _distance(seen, method, kept, length, matched, distinct)


@jit
def run_overlap(op: int) -> None:
    """Measures the two lists of each row."""
    query, title = get(op, layout.O_A), get(op, layout.O_B)
    query_numbers, title_numbers = get(op, layout.O_QUERY), get(op, layout.O_TITLE)
    by_title = get(title, layout.C_STEP) == 0
    shared = by_title or get(query, layout.C_STEP) == 0
    size, length = 0, 0
    for row in range(get(op, layout.O_ROWS)):
        if by_title:
            if row == 0:
                length = _number_words(op, title, row, title_numbers)
            size = _find_words(op, query, row, query_numbers)
        else:
            if row == 0 or not shared:
                size = _number_words(op, query, row, query_numbers)
            length = _find_words(op, title, row, title_numbers)
        x = np.nan
        if size > 0 and length > 0:
            x = _measure(op, query_numbers, size, title_numbers, length, size if not by_title else length)
        store_f64(get(op, layout.O_FOUND) + 8 * row, x)
