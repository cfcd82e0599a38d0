"""One request after the other over a table of steps: which items, memory and addresses, and what the kernels wrote.

A kernel that needs more room than it has says so, and everything is run again with more.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from featuregen.items.dictionary import read_texts
from featuregen.items.kernels.program import address_of, run_steps
from featuregen.items.loading import Records, room_for
from featuregen.items.outputs import Outputs
from featuregen.items.steps import BEGIN, StepTable
from featuregen.items.store import Store, View
from featuregen.items.table import (
    FIND,
    SPARE,
    T_BUFFER,
    T_CAPACITY,
    T_CODES,
    T_EVENT_CODES,
    T_KIND,
    T_N,
    T_NEEDED,
    T_OUT,
    T_ROOM,
    T_SCRATCH,
    T_SIZE,
    T_SOURCE,
    T_STAMP,
)
from featuregen.results import Column

_LAST_STAMP = 2**31 - 1
_FLOATS = pa.float64()


class Computing:
    """Runs the steps of a store. Used by one thread at a time."""

    def __init__(self, store: Store, places: Mapping[str, int]) -> None:
        self.store = store
        self._steps = StepTable(store, places)
        self._table = self._steps.table
        self._outputs = Outputs(self._steps)
        self._copy_at = _columns(self._steps.of_copy)
        self._codes_at = _columns(self._steps.of_codes)
        self._view: View | None = None
        self._items: Any = None
        self._next = 0
        self._stamp, self._rows, self._room = 0, 0, 0
        self._grow_rows(1024)
        self._grow_scratch(self._steps.combos, T_BUFFER, 1024)
        self._grow_scratch(self._steps.maps, T_SCRATCH, 1 << 14)
        self._events_steps = list(self._steps.events.values())
        self._grow_events(1 << 12)

    def begin(self, view: View, items: Any) -> int:
        """Says which items the next request is about; returns their number.

        Args:
            view: what the reader sees.
            items: int32[n], codes that were found before; or keys as an Arrow array, which are found by the way.
        """
        rows = self._rows = len(items)
        if rows > self._room:
            self._grow_rows(rows + rows // 4)
        self._view, self._items, self._next = view, items, 0
        find, follow = self._table[0], self._table[1]
        self._table[:, T_N] = rows
        follow[T_SIZE] = view.slots
        if isinstance(items, pa.Array):
            find[T_KIND], follow[T_SOURCE] = FIND, self._found_at
            read_texts(find, items)
        else:
            find[T_KIND], follow[T_SOURCE] = -1, address_of(items)
        return rows

    def records(self) -> Records:
        """Returns the items' records, which are copied now and not with the first step of `compute`."""
        assert self._view is not None
        run_steps(self._table[:BEGIN], self._view.dictionaries, 0)
        self._next = BEGIN
        return Records(self._view, self._codes[: self._rows], self._slots[: self._rows], self._copied, self._room)

    def compute(self, exported: int, event_codes: Mapping[str, Any]) -> dict[str, pa.Array]:
        """Runs all steps; returns the columns that the rest of the plan reads.

        Args:
            exported: address of the addresses of the exported columns of the rest of the plan.
            event_codes: int32[events], the codes of events' attributes that are known already, by column.
        """
        table, steps, view = self._table, self._steps, self._view
        assert view is not None
        self._stamp += 1
        if self._stamp > _LAST_STAMP:
            steps.forget()
            self._stamp = 1
        table[steps.combos, T_STAMP] = self._stamp
        for (name, _), step in steps.events.items():
            codes = event_codes.get(name)
            table[step, T_EVENT_CODES], table[step, T_SIZE] = (
                (0, 0) if codes is None else (address_of(codes), len(codes))
            )
        while True:
            self._outputs.allocate(self._rows)
            table[:, T_NEEDED] = 0
            run_steps(table[self._next :], view.dictionaries, exported)
            if not table[:, T_NEEDED].any():
                return self._made()
            self._make_room()

    def columns(self) -> dict[str, Column]:
        """Returns the outputs that the last `compute` wrote; the arrays are the caller's to keep."""
        return self._outputs.columns()

    def _make_room(self) -> None:
        steps, needed = self._steps, self._table[:, T_NEEDED]
        for group, field in ((steps.combos, T_BUFFER), (steps.maps, T_SCRATCH)):
            if needed[group].any():
                self._grow_scratch(group, field, 2 * int(needed[group].max()))
        if needed[self._events_steps].any():
            self._grow_events(2 * int(needed[self._events_steps].max()))
        self._outputs.make_room()

    def _grow_rows(self, rows: int) -> None:
        steps, table = self._steps, self._table
        self._room = room = room_for(rows)
        self._slots, self._codes = np.empty(room, np.int32), np.empty(room + SPARE, np.int32)
        self._copied = np.empty(room * self.store.layout.size + 4 * SPARE, np.uint8)
        self._found, self._hashes = np.empty(room, np.int32), np.empty(room, np.int64)
        self._found_at = address_of(self._found)
        find, follow, copy = table[:BEGIN]
        find[T_OUT], find[T_SCRATCH] = self._found_at, address_of(self._hashes)
        follow[T_OUT], follow[T_CODES] = address_of(self._slots), address_of(self._codes)
        copy[T_SOURCE], copy[T_OUT] = address_of(self._slots), address_of(self._copied)
        table[:, T_ROOM] = room
        for places, array in ((self._copy_at, self._copied), (self._codes_at, self._codes)):
            table[places[0], places[1]] = places[2] * room + array.ctypes.data
        self._numbers = np.empty((len(steps.numbers.steps), room), np.float64)
        table[steps.numbers.steps, T_OUT] = address_of(self._numbers) + 8 * room * np.arange(len(self._numbers))
        self._buffer = pa.py_buffer(self._numbers)

    def _grow_scratch(self, group: list[int], field: int, size: int) -> None:
        scratch = np.empty(size, np.uint8)
        setattr(self, f"_scratch{field}", scratch)
        self._table[group, field], self._table[group, T_CAPACITY] = scratch.ctypes.data, size

    def _grow_events(self, size: int) -> None:
        """Each step has scratch of its own: others read what is in it."""
        self._events = np.empty((len(self._events_steps), size), np.uint8)
        self._table[self._events_steps, T_SCRATCH] = address_of(self._events) + size * np.arange(len(self._events))
        self._table[self._events_steps, T_CAPACITY] = size

    def _made(self) -> dict[str, pa.Array]:
        rows, room, buffers = self._rows, self._room, [None, self._buffer]
        names = enumerate(self._steps.numbers.names)
        return {name: pa.Array.from_buffers(_FLOATS, rows, buffers, 0, index * room) for index, name in names}


def _columns(places: list[tuple[int, int, int]]) -> Any:
    return np.array(places, np.int64).reshape(-1, 3).T
