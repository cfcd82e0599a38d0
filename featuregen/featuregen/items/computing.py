"""One request after the other over a table of steps: memory, addresses, and what the kernels wrote as columns.

What they write is allocated in blocks, one for all outputs of the same shape. A kernel that needs more room than it has
says so, and everything is run again with more.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from featuregen.items.kernels.program import address_of, run_steps
from featuregen.items.loading import Records, room_for
from featuregen.items.steps import StepTable
from featuregen.items.store import Store, View
from featuregen.items.table import (
    COPY,
    FOLLOW,
    SPARE,
    STEP_WIDTH,
    T_BUFFER,
    T_CAPACITY,
    T_CODES,
    T_CURRENT,
    T_DONE,
    T_EVENT_CODES,
    T_KIND,
    T_N,
    T_NEEDED,
    T_OFFSETS,
    T_OUT,
    T_RECORDS,
    T_ROOM,
    T_SCRATCH,
    T_SIZE,
    T_SOURCE,
    T_STAMP,
    T_STRIDE,
    T_WEIGHTS,
)
from featuregen.results import Column

_NUMBERS = np.arange(4096)
_LAST_STAMP = 2**31 - 1
_FLOATS = pa.float64()


class Computing:
    """Runs the steps of a store. Used by one thread at a time."""

    def __init__(self, store: Store, places: Mapping[str, int]) -> None:
        self.store = store
        self._steps = StepTable(store, places)
        self._table = self._steps.table
        self._begin = np.zeros((2, STEP_WIDTH), np.int64)
        self._begin[:, T_KIND] = FOLLOW, COPY
        self._begin[:, T_RECORDS], self._begin[:, T_STRIDE] = store.records.address, store.layout.size
        self._begin[0, T_CURRENT], self._begin[1, T_SIZE] = store.current.address, store.layout.whole
        self._copy_at = _columns(self._steps.of_copy)
        self._codes_at = _columns(self._steps.of_codes)
        self._dense_steps = np.array(self._steps.dense.steps, np.int64)
        self._ones_steps = np.array(self._steps.ones.steps, np.int64)
        self._many_steps = np.array(self._steps.many.steps, np.int64)
        self._offsets_steps = np.concatenate((self._ones_steps, self._many_steps))
        self._capacities = [1024] * len(self._steps.many.names)
        self._place_many()
        self._stamp, self._rows, self._room = 0, 0, 0
        self._grow_rows(1024)
        self._grow_scratch(self._steps.combos, T_BUFFER, 1024)
        self._grow_scratch(self._steps.maps, T_SCRATCH, 1 << 14)
        self._events_steps = list(self._steps.events.values())
        self._grow_events(1 << 12)

    def copy(self, view: View, codes: Any) -> Records:
        """Copies the records of some items: what `compute` and `columns` are about."""
        rows = self._rows = len(codes)
        if rows > self._room:
            self._grow_rows(rows + rows // 4)
        begin = self._begin
        begin[:, T_N] = rows
        begin[0, T_SOURCE], begin[0, T_SIZE] = codes.ctypes.data, view.slots
        run_steps(begin, view.dictionaries, 0)
        return Records(view, self._codes[:rows], self._slots[:rows], self._copied, self._room)

    def compute(self, view: View, exported: int, event_codes: Mapping[str, Any]) -> dict[str, pa.Array]:
        """Runs all steps; returns the columns that the rest of the plan reads.

        Args:
            view: what the reader sees.
            exported: address of the addresses of the exported columns of the rest of the plan.
            event_codes: int32[events], the codes of events' attributes that are known already, by column.
        """
        table, steps = self._table, self._steps
        self._stamp += 1
        if self._stamp > _LAST_STAMP:
            steps.forget()
            self._stamp = 1
        table[:, T_N], table[steps.combos, T_STAMP] = self._rows, self._stamp
        for name, step in steps.events.items():
            codes = event_codes.get(name)
            table[step, T_EVENT_CODES], table[step, T_SIZE] = (
                (0, 0) if codes is None else (address_of(codes), len(codes))
            )
        while True:
            self._allocate()
            table[:, T_NEEDED] = 0
            run_steps(table, view.dictionaries, exported)
            if not table[:, T_NEEDED].any():
                return self._made()
            self._make_room()

    def columns(self) -> dict[str, Column]:
        """Returns the outputs that the last `compute` wrote; the arrays are the caller's to keep."""
        rows, steps, result = self._rows, self._steps, {}
        for name, values in zip(steps.dense.names, self._dense, strict=True):
            result[name] = Column(rows, values=values)
        for (_, name, _), values in zip(steps.wide, self._wide, strict=True):
            result[name] = Column(rows, values=values)
        totals = self._table[self._ones_steps, T_DONE].tolist()
        for name, ids, offsets, total in zip(steps.ones.names, self._ones, self._offsets, totals, strict=False):
            result[name] = Column(rows, ids if total == rows else ids[:total], offsets)
        totals = self._table[self._many_steps, T_DONE].tolist()
        offsets_of_many = self._offsets[len(self._ones) :]
        for name, start, offsets, total in zip(
            steps.many.names, self._many_starts, offsets_of_many, totals, strict=True
        ):
            weights = self._many_weights[name][:total] if self._many_weights.get(name) is not None else None
            result[name] = Column(rows, self._many_ids[start : start + total], offsets, weights=weights)
        return result

    def _allocate(self) -> None:
        """Allocates what is written. Offsets of outputs of one id come before those of several."""
        rows, steps, table = self._rows, self._steps, self._table
        self._dense = _block(table, self._dense_steps, T_OUT, (len(self._dense_steps), rows, 1), np.float32)
        self._ones = _block(table, self._ones_steps, T_OUT, (len(self._ones_steps), rows), np.int64)
        self._offsets = _block(table, self._offsets_steps, T_OFFSETS, (len(self._offsets_steps), rows + 1), np.int32)
        self._wide = [np.empty((rows, width), np.float32) for _, _, width in steps.wide]
        for (step, _, _), values in zip(steps.wide, self._wide, strict=True):
            table[step, T_OUT] = address_of(values)
        ids = np.empty(self._many_size, np.int64)
        table[self._many_steps, T_OUT] = self._many_places + address_of(ids)
        self._many_ids = ids
        self._many_weights = {}
        for name, step, size in zip(steps.many.names, steps.many.steps, self._capacities, strict=True):
            if name in steps.weighted:
                self._many_weights[name] = weights = np.empty(size, np.float32)
                table[step, T_WEIGHTS] = address_of(weights)

    def _place_many(self) -> None:
        """Says where in one array the ids of outputs that have several in a row begin."""
        ends = np.cumsum([0, *self._capacities])
        self._many_starts, self._many_size = ends[:-1].tolist(), int(ends[-1])
        self._many_places = 8 * ends[:-1]
        self._table[self._many_steps, T_CAPACITY] = self._capacities

    def _make_room(self) -> None:
        steps, needed = self._steps, self._table[:, T_NEEDED]
        for group, field in ((steps.combos, T_BUFFER), (steps.maps, T_SCRATCH)):
            if needed[group].any():
                self._grow_scratch(group, field, 2 * int(needed[group].max()))
        if needed[self._events_steps].any():
            self._grow_events(2 * int(needed[self._events_steps].max()))
        for index, step in enumerate(steps.many.steps):
            if needed[step]:
                self._capacities[index] = int(needed[step]) * 5 // 4
        self._place_many()

    def _grow_rows(self, rows: int) -> None:
        steps, table = self._steps, self._table
        self._room = room = room_for(rows)
        self._slots, self._codes = np.empty(room, np.int32), np.empty(room + SPARE, np.int32)
        self._copied = np.empty(room * self.store.layout.size + 4 * SPARE, np.uint8)
        begin = self._begin
        begin[:, T_OUT] = self._slots.ctypes.data, self._copied.ctypes.data
        begin[0, T_CODES], begin[1, T_SOURCE] = self._codes.ctypes.data, self._slots.ctypes.data
        begin[1, T_ROOM], table[:, T_ROOM] = room, room
        for places, array in ((self._copy_at, self._copied), (self._codes_at, self._codes)):
            table[places[0], places[1]] = places[2] * room + array.ctypes.data
        self._numbers = _block(table, steps.numbers.steps, T_OUT, (len(steps.numbers.steps), room), np.float64)
        self._buffer = pa.py_buffer(self._numbers)

    def _grow_scratch(self, group: list[int], field: int, size: int) -> None:
        scratch = np.empty(size, np.uint8)
        setattr(self, f"_scratch{field}", scratch)
        self._table[group, field], self._table[group, T_CAPACITY] = scratch.ctypes.data, size

    def _grow_events(self, size: int) -> None:
        """Each step has scratch of its own: others read what is in it."""
        self._events = np.empty((len(self._events_steps), size), np.uint8)
        self._table[self._events_steps, T_SCRATCH] = address_of(self._events) + size * _NUMBERS[: len(self._events)]
        self._table[self._events_steps, T_CAPACITY] = size

    def _made(self) -> dict[str, pa.Array]:
        rows, room, buffers = self._rows, self._room, [None, self._buffer]
        names = enumerate(self._steps.numbers.names)
        return {name: pa.Array.from_buffers(_FLOATS, rows, buffers, 0, index * room) for index, name in names}


def _columns(places: list[tuple[int, int, int]]) -> Any:
    return np.array(places, np.int64).reshape(-1, 3).T


def _block(table: Any, steps: Any, field: int, shape: tuple[int, ...], kind: Any) -> Any:
    """Allocates one array for several steps and tells each where its part is."""
    block = np.empty(shape, kind)
    if len(steps):
        table[steps, field] = address_of(block) + block.strides[0] * _NUMBERS[: len(steps)]
    return block
