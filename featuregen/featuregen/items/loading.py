"""Items out of the cache: some records copied at one moment, and their columns as Arrow arrays again."""

from typing import Any

import numpy as np
import pyarrow as pa

from featuregen.items.arrowstore import take
from featuregen.items.dictionary import read_texts
from featuregen.items.kernels.program import run_steps
from featuregen.items.layout import FLAGS, Field, Result
from featuregen.items.store import KEYS, View
from featuregen.items.table import (
    COPY,
    FIND,
    FOLLOW,
    LOAD,
    LOAD_ID,
    LOAD_IDS,
    LOAD_NUMBER,
    LOAD_TEXT,
    LOAD_TEXTS,
    MEASURE_TEXT,
    MEASURE_TEXTS,
    STEP_WIDTH,
    T_BYTES,
    T_CAPACITY,
    T_CODES,
    T_COLUMN,
    T_CURRENT,
    T_DATA,
    T_DICTIONARY,
    T_DONE,
    T_ELEMENT_VALID,
    T_FLAG,
    T_FLAGS,
    T_KIND,
    T_N,
    T_NEEDED,
    T_OFFSETS,
    T_OUT,
    T_POOL,
    T_RECORDS,
    T_ROOM,
    T_SCRATCH,
    T_SIZE,
    T_SOURCE,
    T_STRIDE,
    T_VALID,
    T_WEIGHT_POOL,
    T_WEIGHTS,
)
from featuregen.results import Column
from featuregen.schema import arrow_type
from featuregen.sources import FieldType


def room_for(rows: int) -> int:
    """Returns for how many rows memory is made: an odd multiple of 8, so that columns begin in different cache sets."""
    return 8 * (-(-rows // 8) | 1)


def find(view: View, keys: pa.StringArray) -> Any:
    """Returns int32[n], the code of each key; -1 if the cache does not know it."""
    codes, hashes = np.empty(len(keys), np.int32), np.empty(len(keys), np.int64)
    step = _step(FIND, len(keys))
    row = step[0]
    read_texts(row, keys)
    row[T_DICTIONARY], row[T_OUT], row[T_SCRATCH] = KEYS, codes.ctypes.data, hashes.ctypes.data
    run_steps(step, view.dictionaries, 0)
    return codes


class Records:
    """The records of some items: a copy, so that all columns of an item are of one version.

    Args:
        view: what the reader sees.
        codes: int32[n], codes of keys; -1 of an item that is not there.
        slots: int32[n], where the records were; 0, the record of nothing, of such an item.
        copied: uint8[room * size], the records as columns: see the kernel `copy`.
        room: rows that there is room for.
    """

    def __init__(self, view: View, codes: Any, slots: Any, copied: Any, room: int) -> None:
        self._view, self._rows, self._layout = view, len(codes), view.store.layout
        self._codes, self._slots, self._copy, self._room = codes, slots, copied, room

    @classmethod
    def of(cls, view: View, codes: Any) -> "Records":
        """Copies the records of items; codes of keys that were deleted become -1."""
        store, size, room = view.store, view.store.layout.size, room_for(len(codes))
        slots, known = np.empty(len(codes), np.int32), np.empty(len(codes), np.int32)
        copied = np.empty(room * size, np.uint8)
        steps = _step(FOLLOW, len(codes), 2)
        steps[:, T_RECORDS], steps[:, T_STRIDE] = store.records.address, size
        steps[0, T_CURRENT], steps[0, T_SIZE] = store.current.address, view.slots
        steps[0, T_SOURCE], steps[0, T_OUT], steps[0, T_CODES] = codes.ctypes.data, slots.ctypes.data, known.ctypes.data
        steps[1, T_KIND], steps[1, T_SOURCE], steps[1, T_OUT] = COPY, slots.ctypes.data, copied.ctypes.data
        steps[1, T_SIZE], steps[1, T_ROOM] = store.layout.whole, room
        run_steps(steps, view.dictionaries, 0)
        return cls(view, known, slots, copied, room)

    def keys(self) -> pa.StringArray:
        """Returns the items' keys; of an item that is not there a null."""
        return self._texts(KEYS, self._codes)

    def codes_of(self, field: Field) -> Any:
        """Returns int32[n], the codes of a text column; no more than 0 where there is no text. They are not copied."""
        return self._codes if field.kind == "key" else self._words(field.at)

    def array(self, field: Field) -> pa.Array:
        """Returns a stored column."""
        if field.kind == "arrow":
            return take(self._view.chunks, field.column.name, self._slots)
        if field.kind == "number":
            return self._numbers(field)
        if field.kind == "texts":
            return self._lists(field)
        return self._texts(self._view.store.numbers[field.column.name], self.codes_of(field))

    def column(self, result: Result) -> Column:
        """Returns a stored output."""
        width = result.operation.output.width
        if result.kind == "dense":
            values = np.empty((self._rows, width), np.float32)
            self._run(self._of_record(LOAD, result.at), {T_SIZE: 4 * width, T_OUT: values.ctypes.data})
            return Column(self._rows, values=values)
        offsets = np.empty(self._rows + 1, np.int32)
        fields = {T_OFFSETS: offsets.ctypes.data, T_SIZE: result.size}
        if result.kind == "id":
            ids = np.empty(self._rows, np.int64)
            total = self._run(self._of_record(LOAD_ID, result.at), fields | {T_OUT: ids.ctypes.data})
            return Column(self._rows, ids[:total], offsets)
        name, store = result.operation.output.name, self._view.store
        step = self._of_record(LOAD_IDS, result.at)
        self._run(step, {T_POOL: store.id_pools[name].address})  # says how many there are
        ids = np.empty(int(step[0, T_NEEDED]), np.int64)
        fields |= {T_OUT: ids.ctypes.data, T_CAPACITY: len(ids)}
        weights = None
        if name in store.weight_pools:
            weights = np.empty(len(ids), np.float32)
            fields |= {T_WEIGHTS: weights.ctypes.data, T_WEIGHT_POOL: store.weight_pools[name].address}
        total = self._run(step, fields)
        return Column(self._rows, ids[:total], offsets, weights=None if weights is None else weights[:total])

    def _words(self, at: int) -> Any:
        return self._copy[at * self._room : at * self._room + 4 * self._rows].view(np.int32)

    def _numbers(self, field: Field) -> pa.Array:
        values, valid = np.empty(self._rows, np.int64), np.zeros(self._rows // 8 + 1, np.uint8)
        fields = {T_OUT: values.ctypes.data, T_VALID: valid.ctypes.data, T_FLAG: field.flag}
        fields[T_FLAGS] = int(self._copy.ctypes.data) + FLAGS
        self._run(self._of_record(LOAD_NUMBER, field.at), fields)
        kind = pa.int64() if field.column.type is FieldType.INT else pa.float64()
        return pa.Array.from_buffers(kind, self._rows, [pa.py_buffer(valid), pa.py_buffer(values)])

    def _texts(self, number: int, codes: Any) -> pa.Array:
        step = _step(MEASURE_TEXT, len(codes))
        fields = {T_CODES: codes.ctypes.data, T_DICTIONARY: number}
        data = np.empty(self._run(step, fields), np.uint8)
        offsets, valid = np.empty(len(codes) + 1, np.int32), np.zeros(len(codes) // 8 + 1, np.uint8)
        step[0, T_KIND] = LOAD_TEXT
        fields = {T_OFFSETS: offsets.ctypes.data, T_OUT: data.ctypes.data, T_VALID: valid.ctypes.data}
        self._run(step, fields)
        buffers = [pa.py_buffer(valid), pa.py_buffer(offsets), pa.py_buffer(data)]
        return pa.StringArray.from_buffers(len(codes), buffers[1], buffers[2], buffers[0])

    def _lists(self, field: Field) -> pa.Array:
        store, name = self._view.store, field.column.name
        step = self._of_record(MEASURE_TEXTS, field.at)
        elements = self._run(step, {T_DICTIONARY: store.numbers[name], T_POOL: store.pool.address})
        data, texts = np.empty(int(step[0, T_BYTES]), np.uint8), np.empty(elements + 1, np.int32)
        known, offsets = np.zeros(elements // 8 + 1, np.uint8), np.empty(self._rows + 1, np.int32)
        valid = np.zeros(self._rows // 8 + 1, np.uint8)
        step[0, T_KIND] = LOAD_TEXTS
        fields = {T_OFFSETS: offsets.ctypes.data, T_VALID: valid.ctypes.data, T_DATA: texts.ctypes.data}
        self._run(step, fields | {T_OUT: data.ctypes.data, T_ELEMENT_VALID: known.ctypes.data})
        words = pa.StringArray.from_buffers(elements, pa.py_buffer(texts), pa.py_buffer(data), pa.py_buffer(known))
        kind = arrow_type(field.column)
        buffers = [pa.py_buffer(valid), pa.py_buffer(offsets)]
        return pa.ListArray.from_buffers(kind, self._rows, buffers, children=[words])

    def _of_record(self, kind: int, at: int) -> Any:
        step = _step(kind, self._rows)
        step[0, T_COLUMN], step[0, T_ROOM] = int(self._copy.ctypes.data) + at * self._room, self._room
        step[0, T_STRIDE] = self._layout.word(at)
        return step

    def _run(self, step: Any, fields: dict[int, int]) -> int:
        step[0, list(fields)] = list(fields.values())
        run_steps(step, self._view.dictionaries, 0)
        return int(step[0, T_DONE])


def _step(kind: int, rows: int, count: int = 1) -> Any:
    step = np.zeros((count, STEP_WIDTH), np.int64)
    step[:, T_KIND], step[:, T_N] = kind, rows
    return step
