"""A plan as the table of operations that the kernels run: constants once per engine, addresses once per call.

All that a kernel writes is preallocated here: scratch that grows, and one fresh block per call for all outputs.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from featuregen import layout
from featuregen.columns import ColumnTable
from featuregen.errors import FeatureError
from featuregen.kernels import run_program
from featuregen.plan import Operation, Output, Plan
from featuregen.program_rows import Constants, Rows
from featuregen.program_scratch import Entry, Sizes
from featuregen.results import Column

_MAX_IDS = 2**31 - 1


class Program:
    """The operation table of a plan, and the contents of its files. Not for use by two threads at once."""

    def __init__(self, plan: Plan, files: Mapping[str, bytes] | None = None) -> None:
        self.plan = plan
        self.columns = ColumnTable(plan.columns)
        groups: dict[tuple[str, tuple[str, ...]], int] = {}
        for operation in plan.operations:
            if operation.behavior:
                groups.setdefault(_group(operation), len(groups))
        self._groups = list(groups)
        self._first = len(groups)
        self.table = np.zeros((self._first + len(plan.operations), layout.OPERATION_WIDTH), np.int64)
        self._address, self._count = int(self.table.ctypes.data), len(self.table)
        self._constants = Constants()
        rows = Rows(plan, files or {}, self._constants, self.columns)
        for (behavior, actions), number in groups.items():
            rows.select(self.table[number], plan.behaviors[behavior], actions)
        self._entries = []
        for row, operation in zip(self.table[self._first :], plan.operations, strict=True):
            inputs = [self.columns.index[name] if name else -1 for name in operation.columns]
            group = groups[_group(operation)] if operation.behavior else -1
            self._entries.append(Entry(operation, row, inputs, group, rows.operation(row, operation)))
        self._sizes = Sizes(self.columns)
        self._logs = {name: self.columns.index[f"behavior.{name}.ts"] for name in plan.behaviors}
        self._user_side = np.array([output.side == "user" for output in plan.outputs])

    def run(self, arrays: Sequence[pa.Array], steps: Sequence[int], rows: int, user_rows: int) -> dict[str, Column]:
        """Runs the plan.

        Args:
            arrays: one array for each column of the plan, of its type.
            steps: 1 where an array has a value for every row, 0 where its first value holds for all rows.
            rows: number of rows.
            user_rows: number of rows of user-side outputs: `rows`, or 1.
        """
        self.columns.fill(arrays, steps)
        self._sizes.begin({name: self.columns.elements(number) for name, number in self._logs.items()})
        for number, (behavior, _) in enumerate(self._groups):
            self._sizes.group(self.table[number], number, behavior, user_rows)
        counts = np.where(self._user_side, user_rows, rows)
        self.table[self._first :, layout.O_ROWS] = counts
        made = self._allocate(counts.tolist())
        run_program(self._address, self._count)
        return {
            entry.operation.output.name: _column(entry.operation.output, count, *arrays)
            for entry, count, arrays in zip(self._entries, counts.tolist(), made, strict=True)
        }

    def _allocate(self, rows: list[int]) -> list[tuple[Any, ...]]:
        """Sets all scratch, carves all outputs out of one fresh block, and writes their addresses to the table."""
        places, at = [], 0
        for entry, count in zip(self._entries, rows, strict=True):
            sizes = self._output_sizes(entry, count)
            held = []
            for dtype, size in sizes:
                held.append((dtype, size, at if size >= 0 else -1))
                at += (dtype.itemsize * size + 7) & ~7 if size >= 0 else 0
            places.append(held)
        block = np.empty(at + 8, np.uint8)
        base = int(block.ctypes.data)
        self.table[self._first :, layout.O_IDS : layout.O_ELEMENT_OFFSETS + 1] = [
            [base + place if place >= 0 else 0 for _, _, place in held] for held in places
        ]
        return [
            tuple(np.frombuffer(block, dtype, size, place) if place >= 0 else None for dtype, size, place in held)
            for held in places
        ]

    def _output_sizes(self, entry: Entry, rows: int) -> list[tuple[Any, int]]:
        """Returns dtype and length, -1 for none, of ids, offsets, values, weights, elements and element offsets."""
        operation, output = entry.operation, entry.operation.output
        capacity = self._sizes.operation(entry, rows)
        ids = capacity
        if output.multi:
            ids += self._sizes.inner_elements(entry, rows)
        elif output.kind == "sparse" and entry.row[layout.O_FOUND]:
            ids *= operation.dim
        if max(ids, capacity) > _MAX_IDS:
            raise FeatureError(output.feature, f"a batch gives {ids} ids", "use smaller batches")
        values = -1
        if output.kind == "dense" or (output.kind == "sequence" and not output.buckets):
            ids, values = -1, capacity * output.width
        return [
            (_INT64, ids),
            (_INT32, rows + 1 if output.kind != "dense" else -1),
            (_FLOAT32, values),
            (_FLOAT32, ids if output.weighted else -1),
            (_INT32, rows + 1 if output.multi else -1),
            (_INT32, capacity + 1 if output.multi else -1),
        ]


_INT64, _INT32, _FLOAT32 = np.dtype(np.int64), np.dtype(np.int32), np.dtype(np.float32)


def _column(
    output: Output, rows: int, ids: Any, offsets: Any, values: Any, weights: Any, elements: Any, element_offsets: Any
) -> Column:
    """Cuts what was allocated to what was written."""
    if ids is None:
        values = values.reshape(-1, output.width)
        return Column(rows, offsets=offsets, values=values if offsets is None else values[: offsets[rows]])
    total = offsets[rows]
    if elements is not None:
        return Column(
            rows, ids[:total], offsets, elements=elements, element_offsets=element_offsets[: elements[rows] + 1]
        )
    return Column(rows, ids[:total], offsets, weights=None if weights is None else weights[:total])


def _group(operation: Operation) -> tuple[str, tuple[str, ...]]:
    """Returns what decides which events an operation sees."""
    return operation.behavior, tuple(sorted(operation.actions))
