"""Kernels over records: what was put is written to them, and what a request reads is loaded from a copy of its own."""

import numba as nb

from featuregen.items.kernels.tables import dictionary_of
from featuregen.items.layout import FLAGS, PREVIOUS
from featuregen.items.table import (
    D_ENDS,
    D_TEXTS,
    T_AT,
    T_BIT,
    T_BYTES,
    T_CAPACITY,
    T_CODES,
    T_CURRENT,
    T_DATA,
    T_DEFAULT,
    T_DONE,
    T_ELEMENT_VALID,
    T_FIRST,
    T_FLAG,
    T_N,
    T_NEEDED,
    T_OFFSETS,
    T_OUT,
    T_POOL,
    T_RECORDS,
    T_SIZE,
    T_SOURCE,
    T_STRIDE,
    T_VALID,
    T_WEIGHT_POOL,
    T_WEIGHTS,
)
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
    """Copies the records of N slots, one after the other."""
    records, stride, source, out = get(step, T_RECORDS), get(step, T_STRIDE), get(step, T_SOURCE), get(step, T_OUT)
    touched = nb.int64(0)
    for row in range(get(step, T_N)):  # loads that do not wait for each other
        touched += load_i32(records + stride * load_i32(source + 4 * row))
    put(step, T_DONE, touched)
    for row in range(get(step, T_N)):
        record = records + stride * load_i32(source + 4 * row)
        for at in range(0, stride, 8):
            store_i64(out + at, load_i64(record + at))
        out += stride


@jit
def load(step: int) -> None:
    """Numbers of an output: SIZE bytes of each row."""
    place, stride, size = get(step, T_RECORDS) + get(step, T_AT), get(step, T_STRIDE), get(step, T_SIZE)
    out = get(step, T_OUT)
    if size == 4:
        for row in range(get(step, T_N)):
            store_i32(out + 4 * row, load_i32(place + stride * row))
        return
    for row in range(get(step, T_N)):
        for part in range(0, size, 4):
            store_i32(out + size * row + part, load_i32(place + stride * row + part))


@jit
def load_id(step: int) -> None:
    """Ids of an output that has one id, or none, in each row; DONE is their number."""
    place, stride, total = get(step, T_RECORDS) + get(step, T_AT), get(step, T_STRIDE), 0
    out, offsets, wide = get(step, T_OUT), get(step, T_OFFSETS), get(step, T_SIZE) == 8
    store_i32(offsets, 0)
    for row in range(get(step, T_N)):
        found = load_i64(place + stride * row) if wide else load_i32(place + stride * row)
        store_i64(out + 8 * total, found)
        total += 1 if found >= 0 else 0
        store_i32(offsets + 4 * row + 4, total)
    put(step, T_DONE, total)


@jit
def load_number(step: int) -> None:
    """Numbers of a column, eight bytes each, and which of them are not missing."""
    place, flags, stride = get(step, T_RECORDS) + get(step, T_AT), get(step, T_RECORDS) + FLAGS, get(step, T_STRIDE)
    flag = get(step, T_FLAG)
    for row in range(get(step, T_N)):
        store_i64(get(step, T_OUT) + 8 * row, load_i64(place + stride * row))
        _set_bit(get(step, T_VALID), row, (nb.int64(load_u32(flags + stride * row)) >> flag) & 1 == 0)


@jit
def _fits(step: int, size: int) -> bool:
    """Says whether there is room for all elements of all spans, an empty one counted as one.

    It touches each span's first element, of SIZE bytes, with loads that do not wait for each other.
    """
    place, stride, total = get(step, T_RECORDS) + get(step, T_AT), get(step, T_STRIDE), 0
    pool, touched = get(step, T_POOL), nb.int64(0)
    for row in range(get(step, T_N)):
        total += max(load_i32(place + stride * row + 4), 1)
        touched += load_i32(pool + size * nb.int64(load_u32(place + stride * row)))
    put(step, T_DONE, touched)  # so that the loads are not optimised away
    if total > get(step, T_CAPACITY):
        put(step, T_NEEDED, total)
    return total <= get(step, T_CAPACITY)


@jit
def load_ids(step: int) -> None:
    """Ids, and weights if there are any, of an output that has several in a row; DONE is their number."""
    if not _fits(step, 8):
        return
    place, stride, total = get(step, T_RECORDS) + get(step, T_AT), get(step, T_STRIDE), 0
    out, offsets, weights, pool = get(step, T_OUT), get(step, T_OFFSETS), get(step, T_WEIGHTS), get(step, T_POOL)
    store_i32(offsets, 0)
    for row in range(get(step, T_N)):
        first = nb.int64(load_u32(place + stride * row))
        for element in range(first, first + load_i32(place + stride * row + 4)):
            store_i64(out + 8 * total, load_i64(pool + 8 * element))
            if weights != 0:
                store_i32(weights + 4 * total, load_i32(get(step, T_WEIGHT_POOL) + 4 * element))
            total += 1
        store_i32(offsets + 4 * row + 4, total)
    put(step, T_DONE, total)


@jit
def load_listed(step: int) -> None:
    """Ids of lists of texts: each code's id; DEFAULT (-1: nothing) for a row that has none. DONE is their number."""
    if not _fits(step, 4):
        return
    place, stride, total = get(step, T_RECORDS) + get(step, T_AT), get(step, T_STRIDE), 0
    pool, ids, default = get(step, T_POOL), get(step, T_SOURCE), get(step, T_DEFAULT)
    out, offsets = get(step, T_OUT), get(step, T_OFFSETS)
    store_i32(offsets, 0)
    for row in range(get(step, T_N)):
        at, before = pool + 4 * nb.int64(load_u32(place + stride * row)), total
        end = at + 4 * load_i32(place + stride * row + 4)
        while at < end:
            found = load_i64(ids + 8 * max(load_i32(at), 0))  # code 0, the empty text, has no id
            store_i64(out + 8 * total, found)
            total += nb.int64(found >= 0)
            at += 4
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
    dictionary, place, elements, size = dictionary_of(dictionaries, step), get(step, T_RECORDS) + get(step, T_AT), 0, 0
    for row in range(get(step, T_N)):
        first = nb.int64(load_u32(place + get(step, T_STRIDE) * row))
        length = load_i32(place + get(step, T_STRIDE) * row + 4)
        elements += max(length, 0)
        for element in range(first, first + length):
            size += _size(dictionary, load_i32(get(step, T_POOL) + 4 * element))
    put(step, T_DONE, elements)
    put(step, T_BYTES, size)


@jit
def load_texts(step: int, dictionaries: int) -> None:
    """Lists of texts as Arrow arrays: OFFSETS and VALID of the lists, DATA, OUT and ELEMENT_VALID of their elements."""
    dictionary, place, total = dictionary_of(dictionaries, step), get(step, T_RECORDS) + get(step, T_AT), 0
    store_i32(get(step, T_OFFSETS), 0)
    store_i32(get(step, T_DATA), 0)
    for row in range(get(step, T_N)):
        first = nb.int64(load_u32(place + get(step, T_STRIDE) * row))
        length = load_i32(place + get(step, T_STRIDE) * row + 4)
        for element in range(first, first + length):
            code = load_i32(get(step, T_POOL) + 4 * element)
            _write_text(dictionary, code, get(step, T_DATA), get(step, T_OUT), get(step, T_ELEMENT_VALID), total)
            total += 1
        _set_bit(get(step, T_VALID), row, length >= 0)
        store_i32(get(step, T_OFFSETS) + 4 * row + 4, total)
