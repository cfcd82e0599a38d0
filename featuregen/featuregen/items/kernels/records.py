"""Kernels over records: what was put is written to them, and what a request reads is loaded from a copy of its own."""

import numba as nb

from featuregen.items.kernels.tables import dictionary_of
from featuregen.items.layout import FLAGS, PREVIOUS
from featuregen.items.table import (
    D_ENDS,
    D_TEXTS,
    LIST_WIDTH,
    SPARE,
    T_AT,
    T_BIT,
    T_BYTES,
    T_CAPACITY,
    T_CODES,
    T_COLUMN,
    T_CURRENT,
    T_DATA,
    T_DEFAULT,
    T_DONE,
    T_ELEMENT_VALID,
    T_FIRST,
    T_FLAG,
    T_FLAGS,
    T_N,
    T_NEEDED,
    T_OFFSETS,
    T_OUT,
    T_PART_COUNT,
    T_PARTS,
    T_POOL,
    T_RECORDS,
    T_ROOM,
    T_SIZE,
    T_SOURCE,
    T_STRIDE,
    T_VALID,
    T_WEIGHT_POOL,
    T_WEIGHTS,
    T_WHOLE,
)
from featuregen.kernels.lanes import LANES, count_lanes, number_lanes, prefetch, prefetch_lines, widen_lanes
from featuregen.kernels.memory import (
    copy_bytes,
    get,
    is_valid,
    jit,
    load_i32,
    load_i64,
    load_u8,
    load_u32,
    put,
    store_i32,
    store_i64,
    store_u8,
)

_AHEAD = 12
"""Rows between asking for a record and reading it."""


@jit
def _set_bit(bitmap: int, bit: int, value: bool) -> None:
    place = bitmap + (bit >> 3)
    mask = nb.int64(1) << (bit & 7)
    held = nb.int64(load_u8(place))
    store_u8(place, held | mask if value else held & ~mask)


@jit
def store(step: int) -> None:
    """Writes SIZE bytes (a multiple of 4) of each row to the records from FIRST on; sets the flag of a missing one."""
    size, stride = get(step, T_SIZE), get(step, T_STRIDE)
    valid, bit = get(step, T_VALID), get(step, T_BIT)
    for row in range(get(step, T_N)):
        record = get(step, T_RECORDS) + (get(step, T_FIRST) + row) * stride
        for part in range(0, size, 4):
            store_i32(record + get(step, T_AT) + part, load_i32(get(step, T_SOURCE) + row * size + part))
        if not is_valid(valid, bit + row):
            store_i32(record + FLAGS, load_i32(record + FLAGS) | (nb.int64(1) << get(step, T_FLAG)))


@jit
def store_spans(step: int) -> None:
    """Writes (first, length) of each list; SIZE is where the pool's new elements begin. A missing list has -1."""
    offsets, valid, bit = get(step, T_OFFSETS), get(step, T_VALID), get(step, T_BIT)
    begin = load_i32(offsets)
    for row in range(get(step, T_N)):
        place = get(step, T_RECORDS) + (get(step, T_FIRST) + row) * get(step, T_STRIDE) + get(step, T_AT)
        first = load_i32(offsets + 4 * row)
        length = load_i32(offsets + 4 * row + 4) - first if is_valid(valid, bit + row) else nb.int64(-1)
        store_i32(place, get(step, T_SIZE) + first - begin)
        store_i32(place + 4, length)


@jit
def store_lists(step: int) -> None:
    """Writes the codes of all lists of each row to the pool, side by side: whoever reads one of them reads the others.

    SIZE is where the pool's new elements begin. A part of PARTS is a list: addresses of its codes, offsets and
    validity, the first bit of that, and the byte of the records where (first, length) belongs; a missing one has -1.
    """
    pool, target = get(step, T_POOL), get(step, T_SIZE)
    for row in range(get(step, T_N)):
        record = get(step, T_RECORDS) + (get(step, T_FIRST) + row) * get(step, T_STRIDE)
        for part in range(get(step, T_PART_COUNT)):
            list_ = get(step, T_PARTS) + 8 * LIST_WIDTH * part
            codes, offsets, valid, bit, at = get(list_, 0), get(list_, 1), get(list_, 2), get(list_, 3), get(list_, 4)
            first = load_i32(offsets + 4 * row)
            length = load_i32(offsets + 4 * row + 4) - first
            copy_bytes(pool + 4 * target, codes + 4 * (first - load_i32(offsets)), 4 * length)
            store_i32(record + at, target)
            store_i32(record + at + 4, length if is_valid(valid, bit + row) else nb.int64(-1))
            target += length


@jit
def store_id(step: int) -> None:
    """Writes the one id of each row, or -1, in SIZE bytes."""
    for row in range(get(step, T_N)):
        place = get(step, T_RECORDS) + (get(step, T_FIRST) + row) * get(step, T_STRIDE) + get(step, T_AT)
        at = load_i32(get(step, T_OFFSETS) + 4 * row)
        found = (
            load_i64(get(step, T_SOURCE) + 8 * at)
            if load_i32(get(step, T_OFFSETS) + 4 * row + 4) > at
            else nb.int64(-1)
        )
        if get(step, T_SIZE) == 4:
            store_i32(place, found)
        else:
            store_i64(place, found)


@jit
def link(step: int) -> None:
    """Makes the records from FIRST on those of their keys: the last thing that a put does."""
    for row in range(get(step, T_N)):
        slot = get(step, T_FIRST) + row
        place = get(step, T_CURRENT) + 4 * load_i32(get(step, T_SOURCE) + 4 * row)
        store_i32(get(step, T_RECORDS) + slot * get(step, T_STRIDE) + PREVIOUS, load_i32(place))
        store_i32(place, slot)


@jit
def copy(step: int) -> None:
    """Copies the records of N slots as columns: a word at byte `at` of all rows begins at OUT + `at` * ROOM.

    Words before byte SIZE have eight bytes, the others four.
    """
    records, stride, source, rows = get(step, T_RECORDS), get(step, T_STRIDE), get(step, T_SOURCE), get(step, T_N)
    out, room, whole = get(step, T_OUT), get(step, T_ROOM), get(step, T_SIZE)
    for row in range(min(rows, _AHEAD)):
        prefetch_lines(records + stride * load_i32(source + 4 * row), stride)
    for row in range(rows):
        if row + _AHEAD < rows:
            prefetch_lines(records + stride * load_i32(source + 4 * (row + _AHEAD)), stride)
        record = records + stride * load_i32(source + 4 * row)
        for at in range(0, whole, 8):
            store_i64(out + at * room + 8 * row, load_i64(record + at))
        for at in range(whole, stride - 4, 8):
            words, column = load_i64(record + at), out + at * room + 4 * row
            store_i32(column, words)
            store_i32(column + 4 * room, words >> 32)


@jit
def load(step: int) -> None:
    """Numbers of an output: SIZE bytes of each row."""
    column, word, size, out = get(step, T_COLUMN), get(step, T_STRIDE), get(step, T_SIZE), get(step, T_OUT)
    if size == word:
        copy_bytes(out, column, size * get(step, T_N))
        return
    for part in range(0, size, word):
        for row in range(get(step, T_N)):
            copy_bytes(out + size * row + part, column + part * get(step, T_ROOM) + word * row, word)


@jit
def load_id(step: int) -> None:
    """Ids of an output that has one id, or none, in each row; DONE is their number."""
    column, rows, wide = get(step, T_COLUMN), get(step, T_N), get(step, T_SIZE) == 8
    out, offsets, row = get(step, T_OUT), get(step, T_OFFSETS), nb.int64(0)
    store_i32(offsets, 0)
    while not wide and row + LANES <= rows and widen_lanes(out + 8 * row, column + 4 * row) == 0:
        count_lanes(offsets + 4 * row + 4, row + 1)
        row += LANES
    total = row
    while row < rows:
        found = load_i64(column + 8 * row) if wide else load_i32(column + 4 * row)
        store_i64(out + 8 * total, found)
        total += 1 if found >= 0 else 0
        row += 1
        store_i32(offsets + 4 * row, total)
    put(step, T_DONE, total)


@jit
def load_number(step: int) -> None:
    """Numbers of a column, eight bytes each, and which of them are not missing."""
    flag, flags = get(step, T_FLAG), get(step, T_FLAGS)
    copy_bytes(get(step, T_OUT), get(step, T_COLUMN), 8 * get(step, T_N))
    for row in range(get(step, T_N)):
        _set_bit(get(step, T_VALID), row, (nb.int64(load_u32(flags + 8 * row)) >> flag) & 1 == 0)


@jit
def _fits(step: int, size: int) -> bool:
    """Says whether there is room for all elements of all spans, an empty one counted as one, and SPARE more.

    It asks for the memory of each span, whose elements have `size` bytes.
    """
    spans, pool, total = get(step, T_COLUMN), get(step, T_POOL), nb.int64(SPARE)
    for row in range(get(step, T_N)):
        length = load_i32(spans + 8 * row + 4)
        first = pool + size * nb.int64(load_u32(spans + 8 * row))
        prefetch(first)
        prefetch(first + size * max(length, 1) - 1)
        total += max(length, 1)
    if total > get(step, T_CAPACITY):
        put(step, T_NEEDED, total)
    return total <= get(step, T_CAPACITY)


@jit
def load_ids(step: int) -> None:
    """Ids, and weights if there are any, of an output that has several in a row; DONE is their number."""
    if not _fits(step, 8):
        return
    spans, total = get(step, T_COLUMN), 0
    out, offsets, weights, pool = get(step, T_OUT), get(step, T_OFFSETS), get(step, T_WEIGHTS), get(step, T_POOL)
    store_i32(offsets, 0)
    for row in range(get(step, T_N)):
        first = nb.int64(load_u32(spans + 8 * row))
        for element in range(first, first + load_i32(spans + 8 * row + 4)):
            store_i64(out + 8 * total, load_i64(pool + 8 * element))
            if weights != 0:
                store_i32(weights + 4 * total, load_i32(get(step, T_WEIGHT_POOL) + 4 * element))
            total += 1
        store_i32(offsets + 4 * row + 4, total)
    put(step, T_DONE, total)


@jit
def load_listed(step: int) -> None:
    """Ids of lists of texts: each code's id; DEFAULT (-1: nothing) for a row that has none. DONE is their number.

    WHOLE points to 1 if every element of every list has an id.
    """
    if not _fits(step, 4):
        return
    spans, total, whole = get(step, T_COLUMN), nb.int64(0), load_i64(get(step, T_WHOLE)) == 1
    pool, ids, default = get(step, T_POOL), get(step, T_SOURCE), get(step, T_DEFAULT)
    out, offsets = get(step, T_OUT), get(step, T_OFFSETS)
    store_i32(offsets, 0)
    for row in range(get(step, T_N)):
        at, before = pool + 4 * nb.int64(load_u32(spans + 8 * row)), total
        left = load_i32(spans + 8 * row + 4)
        if whole:
            target = out + 8 * total
            total += max(left, 0)
            while left > 0:  # eight at once: where a list ends cannot be foretold
                number_lanes(target, ids, at)
                target += 8 * LANES
                at += 4 * LANES
                left -= LANES
        while left > 0:
            found = load_i64(ids + 8 * max(load_i32(at), 0))  # code 0, the empty text, has no id
            store_i64(out + 8 * total, found)
            total += nb.int64(found >= 0)
            at += 4
            left -= 1
        if total == before and default >= 0:
            store_i64(out + 8 * total, default)
            total += 1
        store_i32(offsets + 4 * row + 4, total)
    put(step, T_DONE, total)


@jit
def _size(dictionary: int, code: int) -> int:
    if code <= 0:
        return 0
    return load_i64(get(dictionary, D_ENDS) + 8 * code + 8) - load_i64(get(dictionary, D_ENDS) + 8 * code)


@jit
def measure_text(step: int, dictionaries: int) -> None:
    """DONE: bytes of N texts."""
    dictionary, total = dictionary_of(dictionaries, step), 0
    for row in range(get(step, T_N)):
        total += _size(dictionary, load_i32(get(step, T_CODES) + 4 * row))
    put(step, T_DONE, total)


@jit
def _write_text(dictionary: int, code: int, texts: int, data: int, valid: int, element: int) -> None:
    begin, size = load_i32(texts + 4 * element), _size(dictionary, code)
    if size > 0:
        copy_bytes(data + begin, get(dictionary, D_TEXTS) + load_i64(get(dictionary, D_ENDS) + 8 * code), size)
    store_i32(texts + 4 * element + 4, begin + size)
    _set_bit(valid, element, code >= 0)


@jit
def load_text(step: int, dictionaries: int) -> None:
    """Texts of N codes as an Arrow array."""
    dictionary = dictionary_of(dictionaries, step)
    store_i32(get(step, T_OFFSETS), 0)
    for row in range(get(step, T_N)):
        code = load_i32(get(step, T_CODES) + 4 * row)
        _write_text(dictionary, code, get(step, T_OFFSETS), get(step, T_OUT), get(step, T_VALID), row)


@jit
def measure_texts(step: int, dictionaries: int) -> None:
    """DONE: number of elements of all lists; BYTES: bytes of their texts."""
    dictionary, spans, elements, size = dictionary_of(dictionaries, step), get(step, T_COLUMN), 0, 0
    for row in range(get(step, T_N)):
        first = nb.int64(load_u32(spans + 8 * row))
        length = load_i32(spans + 8 * row + 4)
        elements += max(length, 0)
        for element in range(first, first + length):
            size += _size(dictionary, load_i32(get(step, T_POOL) + 4 * element))
    put(step, T_DONE, elements)
    put(step, T_BYTES, size)


@jit
def load_texts(step: int, dictionaries: int) -> None:
    """Lists of texts as Arrow arrays: OFFSETS and VALID of the lists, DATA, OUT and ELEMENT_VALID of their elements."""
    dictionary, spans, total = dictionary_of(dictionaries, step), get(step, T_COLUMN), 0
    store_i32(get(step, T_OFFSETS), 0)
    store_i32(get(step, T_DATA), 0)
    for row in range(get(step, T_N)):
        first = nb.int64(load_u32(spans + 8 * row))
        length = load_i32(spans + 8 * row + 4)
        for element in range(first, first + length):
            code = load_i32(get(step, T_POOL) + 4 * element)
            _write_text(dictionary, code, get(step, T_DATA), get(step, T_OUT), get(step, T_ELEMENT_VALID), total)
            total += 1
        _set_bit(get(step, T_VALID), row, length >= 0)
        store_i32(get(step, T_OFFSETS) + 4 * row + 4, total)
