"""How much memory an operation needs in a call: scratch of its kernel, and the most that it may write.

Kernels allocate nothing. Buffers are shared by all operations, because one runs after the other, and they only grow.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from featuregen.kernels import layout
from featuregen.kernels.program import run_program
from featuregen.plan import Operation
from featuregen.program.columns import ColumnTable
from featuregen.program.rows import capacity_of


class Scratch:
    """Buffers by name."""

    def __init__(self) -> None:
        self._held: dict[str, tuple[int, int, Any]] = {}  # size, address, buffer
        self._outgrown: list[Any] = []

    def begin(self) -> None:
        """Begins a call: what an earlier one has outgrown is no longer in use."""
        self._outgrown.clear()

    def of(self, name: str, size: int) -> int:
        """Returns the address of a buffer of at least `size` bytes, which may be written until the next call."""
        held = self._held.get(name)
        if held is None or held[0] < size:
            if held is not None:
                self._outgrown.append(held)
            buffer = np.empty(max(64, size + size // 2), np.uint8)
            held = self._held[name] = (buffer.size, int(buffer.ctypes.data), buffer)
        return held[1]


@dataclass(slots=True)
class Entry:
    """An operation, its row of the table, and what is fixed about it.

    Attributes:
        operation: the operation.
        row: int64[OPERATION_WIDTH].
        inputs: numbers of the columns, -1 for none.
        group: number of the choice of events that it reads, -1 for none.
        spans: int64[variables, 2] of its expression, None if it has none.
    """

    operation: Operation
    row: Any
    inputs: list[int]
    group: int
    spans: Any


class Sizes:
    """Sets the scratch of operations for one call."""

    def __init__(self, columns: ColumnTable) -> None:
        self._columns, self._scratch = columns, Scratch()
        self.events: dict[str, int] = {}  # of each behaviour, in all rows
        self._groups: list[tuple[int, int]] = []

    def begin(self, events: dict[str, int]) -> None:
        """Begins a call."""
        self._scratch.begin()
        self.events = events

    def group(self, row: Any, number: int, behavior: str, rows: int) -> None:
        """Sets where a choice of events is written; it stays until all operations have read it."""
        row[layout.O_ROWS] = rows
        offsets = self._scratch.of(f"group{number}", 4 * (rows + 1))
        positions = self._scratch.of(f"positions{number}", 4 * self.events[behavior])
        row[layout.O_GROUP_OFFSETS], row[layout.O_GROUP_POSITIONS] = offsets, positions
        if number == 0:
            self._groups.clear()
        self._groups.append((offsets, positions))

    def depends_on_content(self, entry: Entry) -> bool:
        """Says whether how much an operation may write is found only by looking at all values."""
        if entry.operation.op == "combo":
            return any(self._columns.shapes[number].nested for number in entry.inputs)
        return entry.operation.op == "match" and int(entry.row[layout.O_TAKES]) != layout.TAKE_NUMBERS

    def inner_elements(self, entry: Entry, rows: int) -> int:
        """Returns the elements of all lists within the lists that a sequence reads."""
        number = entry.inputs[0]
        return self._columns.inner_elements(number) * (rows if self._columns.steps[number] == 0 else 1)

    def operation(self, entry: Entry, rows: int) -> int:
        """Sets the scratch of an operation; returns the most ids, numbers or elements that it may write."""
        if entry.group >= 0:
            entry.row[layout.O_GROUP_OFFSETS : layout.O_GROUP_POSITIONS + 1] = self._groups[entry.group]
        capacity = _SIZES[entry.operation.op](self, entry, rows)
        operation, row = entry.operation, entry.row
        joined = operation.op in ("combo", "match") or operation.show  # their buffers are made already
        if operation.encoder is not None and row[layout.O_PREFIX_SIZE] and not joined:
            self._buffer(entry, max(24, self._text_bytes(entry)))
        if operation.encoder is None or operation.op == "combine":
            row[layout.O_FOUND] = self._scratch.of("found", 8 * capacity * operation.dim)
        return capacity

    def _elements(self, number: int) -> int:
        return self._columns.elements(number)

    def _text_bytes(self, entry: Entry) -> int:
        return sum(self._columns.text_bytes(number) for number in entry.inputs if number >= 0)

    def _buffer(self, entry: Entry, size: int) -> None:
        entry.row[layout.O_BUFFER] = self._scratch.of("buffer", int(entry.row[layout.O_PREFIX_SIZE]) + size)

    def _index(self, row: Any, entries: int) -> None:
        """Makes room for an index that the kernel builds."""
        capacity = capacity_of(entries)
        slots, records = self._scratch.of("slots", 8 * capacity), self._scratch.of("records", 24 * (entries + 1))
        row[layout.O_INDEX : layout.O_INDEX + 3] = slots, capacity - 1, records

    def _count(self, entry: Entry, kind: int, rows: int) -> int:
        """Lets the kernel count what it may write."""
        counting = entry.row.copy()
        counting[layout.O_KIND], counting[layout.O_ROWS], counting[layout.O_FOUND] = kind, rows, 0
        return int(run_program(int(counting.ctypes.data), 1))

    def _id(self, entry: Entry, rows: int) -> int:
        number = entry.inputs[0]
        return rows + (self._elements(number) if self._columns.shapes[number].nested else 0)

    def _rows(self, entry: Entry, rows: int) -> int:
        return rows

    def _combo(self, entry: Entry, rows: int) -> int:
        row, inputs = entry.row, entry.inputs
        lists = [number for number in inputs if self._columns.shapes[number].nested]
        texts = sum(self._elements(number) for number in lists) + len(inputs)
        row[layout.O_STATE] = self._scratch.of("state", 24 * len(inputs) + layout.TEXT_BYTES * texts)
        self._buffer(entry, self._text_bytes(entry) + 25 * len(inputs))
        return self._count(entry, layout.OP_COUNT_COMBO, rows) if lists else rows

    def _lookup(self, entry: Entry, rows: int) -> int:
        row, (table, keys) = entry.row, entry.inputs
        row[layout.O_SHARED] = rows > 1 and self._columns.steps[table] == 0
        if row[layout.O_SHARED]:
            self._index(row, self._elements(table))
        takes = row[layout.O_TAKES]
        if takes == layout.TAKE_VECTORS:
            row[layout.O_STATE] = self._scratch.of("state", 8 * entry.operation.dim)
        if takes in (layout.TAKE_NUMBERS, layout.TAKE_VECTORS):
            return rows
        row[layout.O_FOUND_OFFSETS] = self._scratch.of("offsets", 4 * (rows + 1)) if takes == layout.TAKE_ALL else 0
        if row[layout.O_SHOW]:
            self._buffer(entry, self._text_bytes(entry) + 8)
        per_row = rows if self._columns.steps[keys] == 0 else 1
        return rows + per_row * self._elements(keys)

    def _match(self, entry: Entry, rows: int) -> int:
        row, (table, _, skeys) = entry.row, entry.inputs
        row[layout.O_SHARED] = rows > 1 and self._columns.steps[table] == 0
        row[layout.O_STATE] = self._scratch.of("state", 24)
        self._buffer(entry, self._text_bytes(entry) + 8)
        if skeys >= 0:
            row[layout.O_TEXTS] = self._scratch.of("texts", layout.TEXT_BYTES * (self._elements(skeys) + 1))
        if row[layout.O_SHARED]:
            outer, inner = self._elements(table), self._columns.inner_elements(table)
            self._index(row, outer)
            row[layout.O_REGIONS] = self._scratch.of("regions", 24 * outer)
            row[layout.O_REGION_SLOTS] = self._scratch.of("region slots", 8 * (4 * inner + 2 * outer))
            row[layout.O_REGION_RECORDS] = self._scratch.of("region records", 24 * inner)
            row[layout.O_LIVE] = self._scratch.of("live", outer)
            row[layout.O_LIVE_INNER] = self._scratch.of("live inner", inner)
        takes = int(row[layout.O_TAKES])
        if takes == layout.TAKE_NUMBERS:
            return rows
        if takes == layout.TAKE_ALL:
            row[layout.O_FOUND_OFFSETS] = self._scratch.of("offsets", 4 * (rows + 1))
        row[layout.O_TAKES] = layout.TAKE_COUNT
        counted = self._count(entry, layout.OP_COUNT_MATCH, rows)
        row[layout.O_TAKES] = takes
        return rows + counted

    def _expr(self, entry: Entry, rows: int) -> int:
        for variable, number in enumerate(entry.inputs):
            if self._columns.shapes[number].nested:
                size = 8 * (self._elements(number) + 1)
                entry.spans[variable, 0] = self._scratch.of(f"variable{variable}", size)
        return rows

    def _overlap(self, entry: Entry, rows: int) -> int:
        row, (query, title) = entry.row, entry.inputs
        queries, titles = self._elements(query) + 1, self._elements(title) + 1
        most = max(queries, titles)
        self._index(row, most)
        row[layout.O_TEXTS] = self._scratch.of("texts", layout.TEXT_BYTES * most)
        row[layout.O_MORE_TEXTS] = self._scratch.of("more texts", layout.TEXT_BYTES * most)
        row[layout.O_QUERY] = self._scratch.of("query", 4 * queries)
        row[layout.O_TITLE] = self._scratch.of("title", 4 * titles)
        row[layout.O_KEPT] = self._scratch.of("kept", 4 * titles)
        row[layout.O_STATE] = self._scratch.of("state", 4 * (most + 1))
        return rows

    def _kv_dot(self, entry: Entry, rows: int) -> int:
        row, (query, document) = entry.row, entry.inputs
        queries, most = self._elements(query), max(self._elements(query), self._elements(document))
        self._index(row, most)
        row[layout.O_PLACES] = queries >> 6
        row[layout.O_QUERY] = self._scratch.of("query", 8 * ((queries >> 6) + 1))
        row[layout.O_TITLE] = self._scratch.of("title", 8 * (queries + 1))
        row[layout.O_STATE] = self._scratch.of("state", 8 * (most + 1))
        return rows

    def _events(self, entry: Entry) -> tuple[int, int]:
        """Returns the number of events in all rows, and the step of the rows."""
        return self.events[entry.operation.behavior], self._columns.steps[self._columns.index["now"]]

    def _window(self, entry: Entry, rows: int) -> int:
        row, operation = entry.row, entry.operation
        events, row[layout.O_GROUP_STEP] = self._events(entry)
        distinct = events if entry.inputs and row[layout.O_GROUP_STEP] == 0 else 0
        self._index(row, distinct)
        row[layout.O_COUNTS] = self._scratch.of("counts", 16 * (distinct + 1) * (operation.dim + 1))
        row[layout.O_STATE] = self._scratch.of("state", 8 * (distinct + 1) * operation.dim)
        return rows

    def _sequence(self, entry: Entry, rows: int) -> int:
        row, operation = entry.row, entry.operation
        if operation.behavior:
            elements, row[layout.O_GROUP_STEP] = self._events(entry)
            shared = row[layout.O_GROUP_STEP] == 0
        else:
            aligned = self._columns.index[operation.aligned]
            elements, shared = self._elements(aligned), self._columns.steps[aligned] == 0
        elements = min(elements * (rows if shared else 1), rows * operation.output.length)
        elements += rows if operation.pad_empty else 0
        if operation.encoder is None:
            row[layout.O_FOUND_OFFSETS] = self._scratch.of("offsets", 4 * (rows + 1))
        return elements


_SIZES: dict[str, Callable[[Sizes, Entry, int], int]] = {
    "id": Sizes._id,
    "combo": Sizes._combo,
    "raw": Sizes._rows,
    "combine": Sizes._rows,
    "lookup": Sizes._lookup,
    "match": Sizes._match,
    "expr": Sizes._expr,
    "overlap": Sizes._overlap,
    "kv_dot": Sizes._kv_dot,
    "window": Sizes._window,
    "sequence": Sizes._sequence,
}
