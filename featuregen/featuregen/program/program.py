"""A plan as the table of operations that the kernels run: constants once per engine, addresses once per call.

All that a kernel writes is preallocated here: scratch that grows, and one fresh block per call for all outputs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from featuregen.errors import FeatureError
from featuregen.kernels import layout
from featuregen.kernels.program import run_program
from featuregen.plan import Operation, Output, Plan
from featuregen.program.columns import ColumnTable
from featuregen.program.rows import Constants, Rows
from featuregen.program.scratch import Entry, Sizes
from featuregen.results import Column

_MAX_IDS = 2**31 - 1
_LARGE = 2**20
"""Elements or bytes of an array for which no more room is made than it needs."""


class Program:
    """The operation table of a plan, and the contents of its files. Not for use by two threads at once."""

    def __init__(self, plan: Plan, files: Mapping[str, bytes] | None = None) -> None:
        self.plan = plan
        self.columns = ColumnTable(plan.columns)
        self.exports = self.columns.exports
        groups: dict[tuple[str, tuple[str, ...]], int] = {}
        for operation in plan.operations:
            if operation.behavior:
                groups.setdefault(_group(operation), len(groups))
        self._groups = list(groups)
        self._first = len(groups)
        self.table = np.zeros((self._first + len(plan.operations), layout.OPERATION_WIDTH), np.int64)
        self._address, self._count = int(self.table.ctypes.data), len(self.table)
        self._outputs = self.table[self._first :, layout.O_IDS : layout.O_ELEMENT_OFFSETS + 1]
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
        self._counting = any(self._sizes.depends_on_content(entry) for entry in self._entries)
        self._call: tuple[int, int, list[int]] | None = None
        self._bounds = np.zeros_like(self.columns.sizes)

    def run(self, arrays: Sequence[pa.Array], steps: Sequence[int], rows: int, user_rows: int) -> dict[str, Column]:
        """Runs the plan.

        Args:
            arrays: one array for each column of the plan, of its type.
            steps: 1 where an array has a value for every row, 0 where its first value holds for all rows.
            rows: number of rows.
            user_rows: number of rows of user-side outputs: `rows`, or 1.
        """
        self.exports.export(arrays)
        return self.run_exported(arrays, steps, rows, user_rows)

    def run_exported(
        self, arrays: Sequence[pa.Array | None], steps: Sequence[int], rows: int, user_rows: int
    ) -> dict[str, Column]:
        """Does what `run` does of arrays that are in `exports` already, and releases them.

        An array may be None: then whoever exported it keeps it alive until this has ended.
        """
        self.columns.fill(arrays, steps)
        call = rows, user_rows, list(steps)
        if self._counting or call != self._call or (self.columns.sizes > self._bounds).any():
            self._make_room(call)
        block = np.empty(self._block, np.int64)  # one for all outputs, which are parts of it
        np.multiply(self._present, block.__array_interface__["data"][0], out=self._outputs)
        self._outputs += self._offsets
        run_program(self._address, self._count)
        parts = block, block.view(np.int32), block.view(np.float32)
        return {
            output.name: _column(output, count, place, *parts)
            for output, count, place in zip(self.plan.outputs, self._rows, self._parts, strict=True)
        }

    def _make_room(self, call: tuple[int, int, list[int]]) -> None:
        """Sets all scratch, and the places of outputs, for arrays as large as these and a little larger.

        So it is done seldom: a server's requests, and a worker's batches, are of about one size.
        """
        rows, user_rows, _ = call
        sizes = self.columns.sizes
        bounds = sizes if self._counting else np.where(sizes < _LARGE, sizes + sizes // 4 + 16, sizes)
        self._bounds = bounds if call != self._call else np.maximum(bounds, self._bounds)
        self._call = None  # until all is set
        self.columns.bound(self._bounds)
        self._sizes.begin({name: self.columns.elements(number) for name, number in self._logs.items()})
        for number, (behavior, _) in enumerate(self._groups):
            self._sizes.group(self.table[number], number, behavior, user_rows)
        self._rows = self._counts(rows, user_rows)
        self.table[self._first :, layout.O_ROWS] = self._rows
        self._parts, self._block = self._places(self._rows)
        places = np.array(self._parts, np.int64)
        self._present = (places >= 0).astype(np.int64)
        self._offsets = 8 * places * self._present
        self._call = call

    def _counts(self, rows: int, user_rows: int) -> list[int]:
        return [user_rows if output.side == "user" else rows for output in self.plan.outputs]

    def _places(self, rows: list[int]) -> tuple[list[tuple[int, ...]], int]:
        """Sets all scratch; returns where outputs are in a block of int64, -1 for none, and the size of the block."""
        places: list[tuple[int, ...]] = []
        at = 0
        for entry, count in zip(self._entries, rows, strict=True):
            output, capacity = entry.operation.output, self._sizes.operation(entry, count)
            ids = offsets = values = weights = elements = element_offsets = -1
            most = capacity
            if output.kind == "dense" or (output.kind == "sequence" and not output.buckets):
                values, at = at, at + (capacity * output.width + 1) // 2
            else:
                if output.multi:
                    most += self._sizes.inner_elements(entry, count)
                elif output.kind == "sparse" and entry.row[layout.O_FOUND]:
                    most *= entry.operation.dim
                ids, at = at, at + most
            if output.kind != "dense":
                offsets, at = at, at + (count + 2) // 2
            if output.weighted:
                weights, at = at, at + (most + 1) // 2
            if output.multi:
                elements, at = at, at + (count + 2) // 2
                element_offsets, at = at, at + (capacity + 2) // 2
            if most > _MAX_IDS:
                raise FeatureError(output.feature, f"a batch gives {most} ids", "use smaller batches")
            places.append((ids, offsets, values, weights, elements, element_offsets))
        return places, at + 1


def _column(output: Output, rows: int, places: tuple[int, ...], block: Any, int32: Any, float32: Any) -> Column:
    """Cuts an output out of the block, which is seen as three types."""
    ids, offsets, values, weights, elements, element_offsets = places
    if output.kind == "dense":
        return Column(rows, values=float32[2 * values : 2 * values + rows * output.width].reshape(rows, output.width))
    bounds = int32[2 * offsets : 2 * offsets + rows + 1]
    count = int(bounds[rows])
    if ids < 0:
        found = float32[2 * values : 2 * values + count * output.width].reshape(count, output.width)
        return Column(rows, offsets=bounds, values=found)
    column = Column(rows, block[ids : ids + count], bounds)
    if output.weighted:
        return replace(column, weights=float32[2 * weights : 2 * weights + count])
    if output.multi:
        starts = int32[2 * elements : 2 * elements + rows + 1]
        ends = int32[2 * element_offsets : 2 * element_offsets + int(starts[rows]) + 1]
        return replace(column, elements=starts, element_offsets=ends)
    return column


def _group(operation: Operation) -> tuple[str, tuple[str, ...]]:
    """Returns what decides which events an operation sees."""
    return operation.behavior, tuple(sorted(operation.actions))
