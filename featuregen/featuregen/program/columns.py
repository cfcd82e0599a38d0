"""Arrow arrays as rows of the kernels' column table: addresses and offsets, and nothing is copied.

A type is a `Shape`, which the plan's inputs decide once: elements, and perhaps another column below them, for the items
of a map or for inner lists. Each level has a row of its own in the table.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from featuregen.kernels import layout
from featuregen.kernels.layout import KIND_FLOAT, KIND_INT, KIND_TEXT
from featuregen.kernels.program import run_program
from featuregen.plan import Input
from featuregen.program.exports import Exports
from featuregen.schema import arrow_type

_ROW_BYTES = 8 * layout.COLUMN_WIDTH


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
        sizes: int64[rows, 2], of each row of the table: elements of all rows of the array, and bytes of their texts.
        exports: through which the kernels read the arrays.
    """

    def __init__(self, inputs: Sequence[Input]) -> None:
        self.index = {column.name: number for number, column in enumerate(inputs)}
        self.shapes = [shape_of(arrow_type(column)) for column in inputs]
        self._rows = np.cumsum([0, *(shape.levels for shape in self.shapes)]).tolist()
        self.table = np.zeros((self._rows[-1], layout.COLUMN_WIDTH), np.int64)
        base = int(self.table.ctypes.data)
        self.addresses = [base + _ROW_BYTES * row for row in self._rows[:-1]]
        self.steps: Sequence[int] = ()
        self.sizes = np.zeros((self._rows[-1], 2), np.int64)
        self._bounds: list[list[int]] = []
        self._arrays: Sequence[pa.Array | None] = ()
        self.exports = Exports(len(inputs))
        self._first_rows = np.array(self._rows[:-1], np.int64)
        self._shapes = np.array([row for n, shape in enumerate(self.shapes) for row in _rows_of(n, shape)], np.int64)
        self._set_constants()

    def _set_constants(self) -> None:
        shapes, table = self._shapes.reshape(-1, layout.SHAPE_WIDTH), self.table
        table[:, layout.C_KIND], table[:, layout.C_STEP] = shapes[:, layout.S_KIND], 1
        for row in np.flatnonzero(shapes[:, layout.S_ARRAY] < 0).tolist():
            table[row - 1, layout.C_CHILD] = int(table.ctypes.data) + _ROW_BYTES * row
        self._describe = np.zeros((2, layout.OPERATION_WIDTH), np.int64)
        op = self._describe[0]
        op[layout.O_KIND], op[layout.O_ROWS], op[layout.O_EXPORTS] = (
            layout.OP_DESCRIBE,
            len(table),
            self.exports.address,
        )
        op[layout.O_SHAPES], op[layout.O_COLUMNS] = self._shapes.ctypes.data, table.ctypes.data
        op[layout.O_SIZES] = self.sizes.ctypes.data
        self.exports.tell_release(self._describe[1])
        self._describe_address = int(self._describe.ctypes.data)

    def fill(self, arrays: Sequence[pa.Array | None], steps: Sequence[int]) -> None:
        """Describes the arrays of a call, one for each column, that were exported, and keeps them until the next."""
        self._arrays, self.steps = arrays, steps
        self.table[self._first_rows, layout.C_STEP] = steps
        run_program(self._describe_address, len(self._describe))

    def bound(self, sizes: NDArray[np.int64]) -> None:
        """Says how large the arrays may be: what `elements`, `inner_elements` and `text_bytes` return from now on."""
        self._bounds = sizes.tolist()

    def elements(self, column: int) -> int:
        """Returns the number of elements of all rows; of rows if the column is plain."""
        return self._bounds[self._rows[column]][0]

    def inner_elements(self, column: int) -> int:
        """Returns the number of elements of all inner lists, or inner maps."""
        return self._bounds[self._rows[column] + 1][0]

    def text_bytes(self, column: int) -> int:
        """Returns an upper bound of the bytes of the texts that one row joins."""
        return sum(size for _, size in self._bounds[self._rows[column] : self._rows[column + 1]])


def _rows_of(array: int, shape: Shape) -> list[tuple[int, ...]]:
    """Returns what `layout.S_ARRAY` and the following say of each level."""
    has_elements = shape.is_map or shape.below is None
    rows = [(array, shape.nested, shape.is_map, shape.kind, has_elements)]
    return rows + (_rows_of(-1, shape.below) if shape.below else [])
