"""Arrow arrays as rows of the kernels' column table: addresses and offsets, and nothing is copied.

A type is a `Shape`, which the plan's inputs decide once: elements, and perhaps another column below them, for the items
of a map or for inner lists. Each level has a row of its own in the table.
"""

from collections.abc import Sequence
from ctypes import c_int32
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from featuregen.layout import C_LIST, COLUMN_WIDTH, KIND_FLOAT, KIND_INT, KIND_TEXT
from featuregen.plan import Input
from featuregen.schema import arrow_type

_ROW_BYTES = 8 * COLUMN_WIDTH


@dataclass(frozen=True, slots=True)
class Shape:
    """How a type lies in memory.

    Attributes:
        nested: there is a list of elements for each row; else one element.
        is_map: the elements are keys.
        kind: of the elements: KIND_TEXT, KIND_INT or KIND_FLOAT.
        below: the items of a map, or the inner lists of a list of lists.
    """

    nested: bool
    is_map: bool
    kind: int
    below: "Shape | None" = None

    @property
    def levels(self) -> int:
        """Number of rows in the column table."""
        return 1 + (self.below.levels if self.below else 0)


def shape_of(kind: pa.DataType) -> Shape:
    """Returns the shape of an Arrow type that inputs may have."""
    if pa.types.is_map(kind):
        return Shape(True, True, KIND_TEXT, shape_of(kind.item_type))
    if pa.types.is_list(kind):
        inner = shape_of(kind.value_type)
        return Shape(True, False, KIND_TEXT, inner) if inner.nested else Shape(True, False, inner.kind)
    if pa.types.is_string(kind):
        return Shape(False, False, KIND_TEXT)
    return Shape(False, False, KIND_FLOAT if pa.types.is_floating(kind) else KIND_INT)


class ColumnTable:
    """The column table of a plan, and how large the arrays of a call are.

    Attributes:
        table: int64[rows, COLUMN_WIDTH].
        index: name of a column to its number.
        shapes: of each column.
        addresses: of each column's row.
        steps: of each column, in this call.
        text_bytes: of each column, an upper bound of the bytes of the texts that one row joins, in this call.
    """

    def __init__(self, inputs: Sequence[Input]) -> None:
        self.index = {column.name: number for number, column in enumerate(inputs)}
        self.shapes = [shape_of(arrow_type(column)) for column in inputs]
        self._rows = np.cumsum([0, *(shape.levels for shape in self.shapes)]).tolist()
        self.table = np.zeros((self._rows[-1], COLUMN_WIDTH), np.int64)
        base = int(self.table.ctypes.data)
        self.addresses = [base + _ROW_BYTES * row for row in self._rows[:-1]]
        self.steps: Sequence[int] = ()
        self.text_bytes: list[int] = []
        self._arrays: Sequence[pa.Array] = ()

    def fill(self, arrays: Sequence[pa.Array], steps: Sequence[int]) -> None:
        """Describes the arrays of a call, one for each column, and keeps them alive until the next."""
        self._arrays, self.steps, self.text_bytes = arrays, steps, []
        rows: list[tuple[int, ...]] = []
        for array, step, shape, address in zip(arrays, steps, self.shapes, self.addresses, strict=True):
            self.text_bytes.append(_describe(array, step, shape, address, rows))
        self.table[:] = rows

    def elements(self, column: int) -> int:
        """Returns the number of elements of all rows; of rows if the column is plain."""
        first, last = self._span(column, 0)
        return last - first

    def inner_elements(self, column: int) -> int:
        """Returns the number of elements of all inner lists, or inner maps."""
        first, last = self._span(column, 1)
        return last - first

    def _span(self, column: int, level: int) -> tuple[int, int]:
        """First and last + 1 element of all rows at a level."""
        first, last = (0, len(self._arrays[column])) if level == 0 else self._span(column, level - 1)
        offsets = int(self.table[self._rows[column] + level, C_LIST])
        if not offsets or first == last:
            return first, last
        return _int32(offsets + 4 * first), _int32(offsets + 4 * last)


def _int32(address: int) -> int:
    return c_int32.from_address(address).value


def address_of(buffer: pa.Buffer | None) -> int:
    """Returns where a buffer lies, 0 if there is none or nothing in it."""
    return 0 if buffer is None or buffer.size == 0 else int(buffer.address)


def validity_of(array: pa.Array, buffer: pa.Buffer | None) -> tuple[int, int]:
    """Returns where an array's own validity bitmap lies, 0 if nothing is missing, and the bit of its first value."""
    return address_of(buffer) if array.null_count else 0, array.offset


def _describe(array: pa.Array, step: int, shape: Shape, address: int, rows: list[tuple[int, ...]]) -> int:
    """Appends the rows of an array, whose first has an address; returns the bytes of its texts."""
    buffers = array.buffers()
    valid, bit = validity_of(array, buffers[0])
    elements: Any = array
    below: Any = None
    lists = 0
    if shape.nested:
        lists, elements = address_of(buffers[1]) + 4 * bit, array.values
        if shape.is_map:
            elements, below = elements.field(0), elements.field(1)
        elif shape.below is not None:
            elements, below = None, elements
        buffers = elements.buffers() if elements is not None else []
    child_valid = child_bit = data = texts = size = 0
    if elements is not None:
        child_valid, child_bit = validity_of(elements, buffers[0])
        if shape.kind == KIND_TEXT:
            data, texts = address_of(buffers[2]), address_of(buffers[1]) + 4 * child_bit
            size = buffers[2].size if buffers[2] is not None else 0
        else:
            data = address_of(buffers[1]) + 8 * child_bit
    child = address + _ROW_BYTES if below is not None else 0
    # The order of featuregen.layout: C_KIND, C_STEP, C_VALID, C_VALID_BIT, C_LIST, C_DATA, C_TEXT, C_CHILD_VALID, ...
    rows.append((shape.kind, step, valid, bit, lists, data, texts, child_valid, child_bit, child))
    if below is not None:
        assert shape.below is not None
        size += _describe(below, 1, shape.below, child, rows)
    return size
