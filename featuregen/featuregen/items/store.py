"""One generation of a cache: dictionaries, records and pools, all appended to; what readers see of it is a `View`.

A new version of an item is a new record in a fresh slot; the last thing that a put does is to make it the item's
current one. So a reader has the old record or the new one. `View` freezes the counts: what is written later is not
seen through it, and a record that it does not know leads to the one before it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from featuregen.errors import FeatureError
from featuregen.items.arrowstore import ArrowStore, Chunks
from featuregen.items.buffers import validity_of
from featuregen.items.dictionary import Dictionaries
from featuregen.items.division import Division
from featuregen.items.itemside import ItemSide
from featuregen.items.kernels.program import run_steps
from featuregen.items.layout import Field, Layout, Result
from featuregen.items.regions import Region
from featuregen.items.table import (
    LINK,
    STEP_WIDTH,
    STORE,
    STORE_ID,
    STORE_LISTS,
    STORE_SPANS,
    T_AT,
    T_BIT,
    T_CURRENT,
    T_FIRST,
    T_FLAG,
    T_KIND,
    T_N,
    T_OFFSETS,
    T_PART_COUNT,
    T_PARTS,
    T_POOL,
    T_RECORDS,
    T_SIZE,
    T_SOURCE,
    T_STRIDE,
    T_VALID,
)
from featuregen.results import Column

KEYS = 0
"""Number of the dictionary of item keys; a code of it names an item."""

_MOST_ELEMENTS = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class View:
    """What a reader sees: everything that was put before it was taken, whatever is written meanwhile.

    Attributes:
        store: where it all lies.
        dictionaries: int64[d, DICTIONARY_WIDTH], as they were.
        slots: number of slots, as it was.
        chunks: Arrow arrays of the columns that records cannot hold, as they were.
        alive: tables that the writer may have replaced since.
    """

    store: "Store"
    dictionaries: Any
    slots: int
    chunks: Chunks
    alive: list[Any]


@dataclass(frozen=True, slots=True)
class Items:
    """Items that were found once, to be ranked without looking for their keys again.

    Attributes:
        view: what the cache had at that time.
        codes: int32[n], -1 for a key that it did not have.
    """

    view: View
    codes: Any


class Store:
    """One generation. One thread writes; any number of threads read through views.

    Args:
        division: the divided plan.
        layout: of its records.
        side: computes what is stored.

    Attributes:
        numbers: column of texts -> number of its dictionary.
        defaults: output -> id of its default, -1 if there is none; of listed ids and coded combos.
        pool: codes of all lists of texts; those of an item are side by side.
        id_pools, weight_pools: output of several ids -> ids, and weights.
        id_tables: of each listed operation, the id of each code.
        whole: int64[fields + listed operations], 1 of a column of lists as long as every element is a text that is not
            empty, of a listed operation as long as all of them have ids; 0 of others. Kernels read it.
        slots: number of slots.
        live: number of items.
    """

    def __init__(self, division: Division, layout: Layout, side: ItemSide) -> None:
        self.division, self.layout, self._side = division, layout, side
        self.numbers = _numbers(layout)
        self.defaults = side.defaults
        self._fields = {field.column.name: field for field in layout.fields}
        self.dictionaries = Dictionaries(1 + max(self.numbers.values(), default=0))
        self.records = Region(np.uint8)
        self.current = Region(np.int32)
        self.pool = Region(np.int32)
        self.id_pools = {r.operation.output.name: Region(np.int64) for r in layout.results if r.kind == "ids"}
        self.weight_pools = {name: Region(np.float32) for name in self._weighted()}
        self.id_tables = [Region(np.int64) for _ in division.listed]
        self._arrow = ArrowStore([f.column for f in layout.fields if f.kind == "arrow"])
        self.whole = np.array([*(f.kind == "texts" for f in layout.fields), *(True for _ in division.listed)], np.int64)
        self.slots = 0
        self.live = 0

    def whole_at(self, number: int) -> int:
        """Returns the address of an element of `whole`."""
        return int(self.whole.ctypes.data) + 8 * number

    def field(self, column: str) -> Field:
        """Returns where a stored column is."""
        return self._fields[column]

    def _weighted(self) -> list[str]:
        outputs = [r.operation.output for r in self.layout.results if r.kind == "ids"]
        return [output.name for output in outputs if output.weighted]

    @property
    def nbytes(self) -> int:
        """Bytes that are in use."""
        regions = [self.records, self.current, self.pool, *self.id_pools.values()]
        regions += [*self.weight_pools.values(), *self.id_tables]
        return self.dictionaries.nbytes + sum(region.nbytes for region in regions) + self._arrow.nbytes

    def view(self) -> View:
        """Returns what is there now."""
        table, alive = self.dictionaries.snapshot()
        return View(self, table, self.slots, self._arrow.chunks(), alive)

    def append(self, columns: Mapping[str, pa.Array], results: Mapping[str, Column], rows: int) -> int:
        """Writes records that no key leads to yet; returns the slot of the first."""
        first = self.slots
        begun, self.records.size = self.records.size, first * self.layout.size
        self.records.extend(rows * self.layout.size)
        if begun > first * self.layout.size:  # a put failed halfway: what it wrote is not there
            self.records.array[first * self.layout.size : begun] = 0
        table = np.zeros((len(self.layout.fields) + len(self.layout.results) + 1, STEP_WIDTH), np.int64)
        table[:, T_N], table[:, T_FIRST] = rows, first
        table[:, T_RECORDS], table[:, T_STRIDE] = self.records.address, self.layout.size
        held: list[Any] = []
        for step, field in zip(table, self.layout.fields, strict=False):
            self._field(step, field, columns[field.column.name], held)
        for step, result in zip(table[len(self.layout.fields) :], self.layout.results, strict=False):
            self._result(step, result, results[result.operation.output.name], held)
        self._lists(table[-1], columns, held)
        run_steps(table, self.dictionaries.table, 0)
        self._extend_id_tables()
        self._arrow.append(columns, rows)
        self.slots += rows
        return first

    def publish(self, codes: Any, first: int) -> None:
        """Makes the records from slot `first` on those of the keys."""
        self.current.size = max(self.current.size, self.dictionaries.count(KEYS))
        unknown = np.unique(codes[self.current.array[codes] == 0])
        step = np.zeros((1, STEP_WIDTH), np.int64)
        fields = [T_KIND, T_N, T_FIRST, T_RECORDS, T_STRIDE, T_CURRENT, T_SOURCE]
        address = codes.ctypes.data
        step[0, fields] = (
            LINK,
            len(codes),
            first,
            self.records.address,
            self.layout.size,
            self.current.address,
            address,
        )
        run_steps(step, self.dictionaries.table, 0)
        self.live += len(unknown)

    def remove(self, codes: Any) -> None:
        """Makes items unknown."""
        known = np.unique(codes[codes >= 0])
        known = known[self.current.array[known] != 0]
        self.current.array[known] = 0
        self.live -= len(known)

    def _field(self, step: Any, field: Field, array: pa.Array, held: list[Any]) -> None:
        if field.kind not in ("number", "text"):
            step[T_KIND] = -1
            return
        step[T_AT] = field.at
        name = field.column.name
        if field.kind == "number":
            valid, data = array.buffers()
            step[T_KIND], step[T_SIZE], step[T_FLAG] = STORE, 8, field.flag
            step[T_SOURCE] = data.address + 8 * array.offset
            step[T_VALID], step[T_BIT] = validity_of(array, valid)
        else:
            codes = self.dictionaries.encode(self.numbers[name], array)
            held.append(codes)
            step[T_KIND], step[T_SIZE], step[T_SOURCE] = STORE, 4, codes.ctypes.data

    def _lists(self, step: Any, columns: Mapping[str, pa.Array], held: list[Any]) -> None:
        """Makes the step that stores all lists of texts."""
        parts, total = [], 0
        for number, field in enumerate(self.layout.fields):
            if field.kind != "texts":
                continue
            array = columns[field.column.name]
            valid, offsets = array.buffers()[:2]
            lists = np.frombuffer(offsets, np.int32)[array.offset : array.offset + len(array) + 1]
            texts = array.values.slice(int(lists[0]), int(lists[-1] - lists[0]))
            codes = self.dictionaries.encode(self.numbers[field.column.name], texts)
            held += [lists, codes]
            if len(codes) and int(codes.min()) <= 0:
                self._is_not_whole(number, field.column.name)
            total += len(codes)
            parts.append([codes.ctypes.data, lists.ctypes.data, *validity_of(array, valid), field.at])
        held.append(np.array(parts, np.int64))
        begin = self.pool.size
        if begin + total > _MOST_ELEMENTS:
            raise FeatureError(None, "the lists of the item cache have more than 2^32 elements", "keep fewer items")
        self.pool.extend(total)
        step[T_KIND], step[T_PARTS], step[T_PART_COUNT] = STORE_LISTS, held[-1].ctypes.data, len(parts)
        step[T_POOL], step[T_SIZE] = self.pool.address, begin

    def _is_not_whole(self, number: int, column: str) -> None:
        """Notes it before a record is published that it is true of."""
        self.whole[number] = 0
        for index, operation in enumerate(self.division.listed):
            if operation.columns[0] == column:
                self.whole[len(self.layout.fields) + index] = 0

    def _result(self, step: Any, result: Result, column: Column, held: list[Any]) -> None:
        name = result.operation.output.name
        step[T_AT] = result.at
        if result.kind == "dense":
            values = np.ascontiguousarray(column.values)
            held.append(values)
            step[T_KIND], step[T_SIZE], step[T_SOURCE] = STORE, 4 * result.operation.output.width, values.ctypes.data
            return
        ids, offsets = np.ascontiguousarray(column.ids), np.ascontiguousarray(column.offsets)
        held += [ids, offsets]
        if result.kind == "id":
            step[T_KIND], step[T_SIZE] = STORE_ID, result.size
            step[T_SOURCE], step[T_OFFSETS] = ids.ctypes.data, offsets.ctypes.data
            return
        begin = self.id_pools[name].size
        self.id_pools[name].extend(len(ids))[:] = ids
        if name in self.weight_pools:
            self.weight_pools[name].extend(len(ids))[:] = column.weights
        self._spans(step, offsets, begin, name)

    def _spans(self, step: Any, offsets: Any, begin: int, name: str) -> None:
        if begin + int(offsets[-1] - offsets[0]) > _MOST_ELEMENTS:
            raise FeatureError(None, f"'{name}' has more than 2^32 elements in the item cache", "keep fewer items")
        step[T_KIND], step[T_OFFSETS], step[T_SIZE] = STORE_SPANS, offsets.ctypes.data, begin

    def _extend_id_tables(self) -> None:
        """The ids of texts that are new since the last put."""
        for index, operation in enumerate(self.division.listed):
            ids, number = self.id_tables[index], self.numbers[operation.columns[0]]
            if ids.size < self.dictionaries.count(number):
                texts = self.dictionaries.texts(number, ids.size)
                made = self._side.ids(index, texts)
                if len(made) and int(made[1 if ids.size == 0 else 0 :].min(initial=0)) < 0:
                    self.whole[len(self.layout.fields) + index] = 0
                ids.extend(len(texts))[:] = made


def _numbers(layout: Layout) -> dict[str, int]:
    """Returns the number of the dictionary of every column of texts."""
    numbers = {field.column.name: KEYS for field in layout.fields if field.kind == "key"}
    for field in layout.fields:
        if field.kind in ("text", "texts"):
            numbers[field.column.name] = len(set(numbers.values()) | {KEYS})
    return numbers
