"""The table of steps of a ranking over one store, with all that is the same for every request."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from featuregen.items.division import Coded
from featuregen.items.regions import Region
from featuregen.items.store import KEYS, Store
from featuregen.items.table import (
    COMBO,
    COPY,
    COUNT,
    ENCODE_EVENTS,
    FIND,
    FOLLOW,
    LOAD,
    LOAD_ID,
    LOAD_IDS,
    LOAD_LISTED,
    LOOKUP,
    MATCH,
    MEMO_SLOTS,
    OVERLAP,
    STEP_WIDTH,
    T_ACTION_COUNT,
    T_ACTIONS,
    T_BUCKETS,
    T_CODES,
    T_COLUMN,
    T_COMBINER,
    T_CURRENT,
    T_DATA,
    T_DEFAULT,
    T_DICTIONARY,
    T_EVENTS,
    T_IS_LIST,
    T_KIND,
    T_MARKS,
    T_MAX_AGE,
    T_MAX_EVENTS,
    T_MIX,
    T_MULTIPLIER,
    T_NOW,
    T_OF_USER,
    T_PART_COUNT,
    T_PARTS,
    T_POOL,
    T_PREFIX,
    T_PREFIX_SIZE,
    T_RECORDS,
    T_SCRATCH,
    T_SECOND,
    T_SECOND_DICTIONARY,
    T_SECOND_POOL,
    T_SECOND_STRIDE,
    T_SIZE,
    T_SOURCE,
    T_STAMPS,
    T_STD,
    T_STRIDE,
    T_TEXTS,
    T_USER,
    T_WEIGHT_POOL,
    T_WHOLE,
    T_WINDOW_COUNT,
    T_WINDOWS,
)
from featuregen.kernels.buckets import multiplier_of
from featuregen.kernels.layout import COMBINE_COUNT, COMBINE_MAX, COMBINE_MEAN, COMBINE_MIN, COMBINE_SUM
from featuregen.sources import FieldType

BEGIN = 3
"""Number of the steps that find the items and copy their records."""
_ITEM_PART = -1
_COMBINERS = {"sum": COMBINE_SUM, "mean": COMBINE_MEAN, "min": COMBINE_MIN, "max": COMBINE_MAX, "count": COMBINE_COUNT}


@dataclass
class Group:
    """Steps that write outputs of the same shape."""

    names: list[str] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)

    def add(self, name: str, step: int) -> None:
        """Adds a step and what it writes."""
        self.names.append(name)
        self.steps.append(step)


class StepTable:
    """Steps of a store.

    Args:
        store: the store.
        places: column of the rest of the plan -> its number, by which kernels find what was exported of a request.

    Attributes:
        table: int64[s, STEP_WIDTH]; the first BEGIN ones find the items and copy their records.
        dense: one float32 in each row.
        wide: output and width: several float32 in each row.
        ones: one id, or none, in each row; combos last.
        many: several ids in each row.
        weighted: names of those of `many` that have weights.
        numbers: columns of coded numbers.
        combos: steps that need a buffer for texts.
        maps: steps that need a table.
        events: column of an attribute that events are counted by, and its dictionary's number -> step that encodes it.
        of_copy, of_codes: (step, field, byte): addresses of fields of the copied records, and of the items' own codes.
    """

    def __init__(self, store: Store, places: Mapping[str, int]) -> None:
        self.store, self._places, division = store, places, store.division
        self._rows: list[dict[int, int]] = []
        self._alive: list[Any] = []
        self.dense, self.ones, self.many, self.numbers = Group(), Group(), Group(), Group()
        self.events: dict[tuple[str, int], int] = {}
        self._counts: list[tuple[int, tuple[str, int]]] = []
        self.wide: list[tuple[int, str, int]] = []
        self.weighted: set[str] = set()
        self.combos: list[int] = []
        self.maps: list[int] = []
        self._marks: Region | None = None
        self._memos: list[Any] = []
        self.of_copy: list[tuple[int, int, int]] = []
        self.of_codes: list[tuple[int, int, int]] = []
        self._types = {column.name: column.type for column in division.plan.columns}
        self._add_begin()
        self._add_results()
        for index, operation in enumerate(division.listed):
            name, text = operation.output.name, operation.columns[0]
            fields = {T_SOURCE: store.id_tables[index].address, T_POOL: store.pool.address}
            fields[T_WHOLE] = store.whole_at(len(store.layout.fields) + index)
            step = self._load(LOAD_LISTED, store.field(text).at, fields | {T_DEFAULT: store.defaults[name]})
            self.many.add(name, step)
        for coded in division.coded:
            self._add_coded(coded)
        self.table = np.zeros((len(self._rows), STEP_WIDTH), np.int64)
        for row, values in zip(self.table, self._rows, strict=True):
            row[list(values)] = list(values.values())
        for step, encoded in self._counts:
            self.table[step, T_EVENTS] = self.table[self.events[encoded]].ctypes.data

    def _add(self, kind: int, fields: Mapping[int, int]) -> int:
        self._rows.append({T_KIND: kind, **fields})
        return len(self._rows) - 1

    def _add_begin(self) -> None:
        """Adds the steps that find the items and copy their records."""
        store = self.store
        records = {T_RECORDS: store.records.address, T_STRIDE: store.layout.size}
        self._add(FIND, {T_DICTIONARY: KEYS})
        self._add(FOLLOW, records | {T_CURRENT: store.current.address})
        self._add(COPY, records | {T_SIZE: store.layout.whole})

    def _load(self, kind: int, at: int, fields: Mapping[int, int]) -> int:
        """Adds a step that reads a field of the copied records."""
        step = self._add(kind, {T_STRIDE: self.store.layout.word(at), **fields})
        self.of_copy.append((step, T_COLUMN, at))
        return step

    def _add_results(self) -> None:
        store = self.store
        for result in store.layout.results:
            output = result.operation.output
            if result.kind == "id":
                self.ones.add(output.name, self._load(LOAD_ID, result.at, {T_SIZE: result.size}))
            elif result.kind == "ids":
                weights = store.weight_pools.get(output.name)
                fields = {T_POOL: store.id_pools[output.name].address}
                if weights is not None:
                    fields[T_WEIGHT_POOL] = weights.address
                    self.weighted.add(output.name)
                self.many.add(output.name, self._load(LOAD_IDS, result.at, fields))
            elif output.width == 1:
                self.dense.add(output.name, self._load(LOAD, result.at, {T_SIZE: 4}))
            else:
                step = self._load(LOAD, result.at, {T_SIZE: 4 * output.width})
                self.wide.append((step, output.name, output.width))

    def _operand(self, step: int, column: str, place: int, stride: int, pool: int | None) -> None:
        """Says where a step finds the codes of a column."""
        field_, row = self.store.field(column), self._rows[step]
        if field_.kind == "key":
            self.of_codes.append((step, place, 0))
            row[stride] = 4
            return
        self.of_copy.append((step, place, field_.at))
        row[stride] = self.store.layout.word(field_.at)
        if field_.kind == "texts":
            assert pool is not None, column
            row[pool] = self.store.pool.address

    def _add_coded(self, coded: Coded) -> None:
        if coded.name == "combo":
            self._add_combo(coded)
            return
        if coded.name == "count":
            self._add_count(coded)
            return
        store, operation = self.store, coded.operation
        fields = {T_USER: self._places[coded.user[0]], T_DICTIONARY: store.numbers[coded.item[0]]}
        if coded.name == "overlap":
            counted = operation.columns[0 if operation.method == "query_common_ratio" else 1]
            fields[T_OF_USER] = counted == coded.user[0]
            fields[T_IS_LIST] = self._types[coded.user[0]] is FieldType.STRING_LIST
        else:
            fields[T_COMBINER] = _COMBINERS[operation.combiner]
        if not coded.column:
            assert operation.default_numbers is not None, operation.output.name
            fields |= {T_SIZE: 4, T_DEFAULT: self._keep(np.array(operation.default_numbers, np.float64))}
        step = self._add({"lookup": LOOKUP, "match": MATCH, "overlap": OVERLAP}[coded.name], fields)
        self._operand(step, coded.item[0], T_CODES, T_STRIDE, T_POOL)
        if coded.name == "match":
            self._rows[step][T_SECOND_DICTIONARY] = store.numbers[coded.item[1]]
            self._operand(step, coded.item[1], T_SECOND, T_SECOND_STRIDE, T_SECOND_POOL)
        self.maps.append(step)
        if coded.name == "overlap":
            self._marks = self._marks or Region(
                np.uint8
            )  # for all steps and dictionaries: every code has a place in it
            self._rows[step][T_MARKS] = self._marks.address
            self._rows[step][T_WHOLE] = store.whole_at(store.layout.fields.index(store.field(coded.item[0])))
        if coded.column:
            self.numbers.add(coded.column, step)
        else:
            self.dense.add(operation.output.name, step)

    def _add_count(self, coded: Coded) -> None:
        store, operation, index = self.store, coded.operation, self._places
        behavior, output = store.division.plan.behaviors[operation.behavior], operation.output
        event, stamps, now, *action = coded.user
        encoded = event, store.numbers[coded.item[0]]
        if encoded not in self.events:
            self.events[encoded] = self._add(ENCODE_EVENTS, {T_USER: index[event], T_DICTIONARY: encoded[1]})
        texts = [text.encode() for text in operation.actions]
        fields = {
            T_STAMPS: index[stamps],
            T_NOW: index[now],
            T_ACTIONS: index[action[0]] if action else 0,
            T_ACTION_COUNT: len(texts),
            T_TEXTS: self._keep(np.cumsum([0, *map(len, texts)], dtype=np.int32)),
            T_DATA: self._keep(np.frombuffer(b"".join(texts) + bytes(8), np.uint8)),
            T_MAX_EVENTS: behavior.max_events,
            T_MAX_AGE: behavior.max_age_ms,
            T_WINDOWS: self._keep(np.array(operation.windows_ms, np.int64)),
            T_WINDOW_COUNT: len(operation.windows_ms),
        }
        step = self._add(COUNT, fields)
        self._operand(step, coded.item[0], T_CODES, T_STRIDE, None)
        self.maps.append(step)
        self._counts.append((step, encoded))
        if output.width == 1:
            self.dense.add(output.name, step)
        else:
            self.wide.append((step, output.name, output.width))

    def _add_combo(self, coded: Coded) -> None:
        store, operation = self.store, coded.operation
        assert operation.encoder is not None, operation.output.name
        parts = [
            (_ITEM_PART, 0) if c in coded.item else (self._places[c], self._types[c] is FieldType.INT)
            for c in operation.columns
        ]
        memo = np.zeros(2 * MEMO_SLOTS, np.int64)
        self._memos.append(memo)
        fields = {
            T_DICTIONARY: store.numbers[coded.item[0]],
            T_DEFAULT: store.defaults[operation.output.name],
            T_BUCKETS: operation.encoder.buckets,
            T_MULTIPLIER: multiplier_of(operation.encoder.buckets),
            T_MIX: operation.mix,
            T_STD: store.division.plan.hash == "std64",
            T_PARTS: self._keep(np.array(parts, np.int64)),
            T_PART_COUNT: len(parts),
            T_PREFIX: self._keep(np.frombuffer(operation.prefix.encode() + bytes(8), np.uint8)),
            T_PREFIX_SIZE: len(operation.prefix.encode()),
            T_SCRATCH: self._keep(memo),
        }
        step = self._add(COMBO, fields)
        self._operand(step, coded.item[0], T_CODES, T_STRIDE, None)
        self.combos.append(step)
        self.ones.add(operation.output.name, step)

    def _keep(self, array: Any) -> int:
        self._alive.append(array)
        return int(array.ctypes.data)

    def forget(self) -> None:
        """Empties the combos' memory."""
        for memo in self._memos:
            memo[:] = 0
