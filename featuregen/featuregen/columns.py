"""Arrow arrays to rows of the column table: types are checked here, once for each batch, and nothing is copied."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from featuregen.errors import FeatureError
from featuregen.layout import KIND_FLOAT, KIND_INT, KIND_TEXT
from featuregen.plan import Input
from featuregen.schema import arrow_type
from featuregen.spec import FieldType


def to_array(column: Input, value: pa.ChunkedArray | pa.Array) -> pa.Array:
    """Returns one contiguous array of the input's type.

    Raises:
        FeatureError: if the values cannot be had in that type without loss.
    """
    wanted = arrow_type(column)
    if isinstance(value, pa.ChunkedArray):
        value = value.chunk(0) if value.num_chunks == 1 else value.combine_chunks()
    if isinstance(value, pa.ChunkedArray):  # combine_chunks keeps chunks that would overflow int32 offsets
        raise FeatureError(None, f"column '{column.name}' is larger than 2 GiB", "use smaller batches")
    if value.type.equals(wanted):
        return value
    try:
        return value.cast(wanted)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        problem = f"column '{column.name}' is {value.type}, the plan reads {wanted}"
        raise FeatureError(None, problem, str(error)) from None


def from_values(columns: Sequence[Input], struct: pa.StructType, values: Mapping[str, Any]) -> list[pa.Array]:
    """Returns an array of one row for each column from the Python values of a request; maps are dicts.

    All at once as one struct, which costs half of one call per column.

    Raises:
        FeatureError: if a value is not of the input's type.
    """
    given = {}
    for column in columns:
        value = values[column.name]
        is_map = column.type is FieldType.STRING_FLOAT_MAP and isinstance(value, Mapping)
        given[column.name] = list(value.items()) if is_map else value
    try:
        row = pa.array([given], struct)
    except _NOT_OF_TYPE:
        return [_from_value(column, given[column.name]) for column in columns]
    return [row.field(index) for index in range(len(columns))]


_NOT_OF_TYPE = (pa.ArrowInvalid, pa.ArrowTypeError, TypeError, ValueError, OverflowError)


def _from_value(column: Input, value: object) -> pa.Array:
    """Makes one column by itself, to find out which value is not of its type."""
    try:
        return pa.array([value], arrow_type(column))
    except _NOT_OF_TYPE as error:
        shown = repr(value)
        problem = f"'{column.name}' is {shown if len(shown) < 60 else shown[:57] + '...'}"
        raise FeatureError(None, problem, f"it is declared as {column.type.value}: {error}") from None


def missing(column: Input, found: Sequence[str]) -> FeatureError:
    """Returns the error for a column that a batch does not have."""
    hint = "a column of nulls says that the values are missing; the batch has: " + ", ".join(sorted(found)[:40])
    return FeatureError(None, f"the batch has no column '{column.name}'", hint)


def element_count(array: pa.Array) -> int:
    """Returns the number of elements of a list or map array's rows; of rows if it is plain."""
    if not pa.types.is_nested(array.type):
        return len(array)
    if len(array) == 0:
        return 0
    offsets = np.frombuffer(array.buffers()[1], np.int32)
    return int(offsets[array.offset + len(array)]) - int(offsets[array.offset])


def text_bytes(array: pa.Array, shape: tuple[str, int]) -> int:
    """Returns an upper bound of the bytes of one row's texts."""
    nesting, kind = shape
    if kind != KIND_TEXT:
        return 0
    data = (array.values if nesting == "list" else array).buffers()[2]
    return 0 if data is None else int(data.size)


def _address(buffer: pa.Buffer | None) -> int:
    return 0 if buffer is None or buffer.size == 0 else int(buffer.address)


def shape_of(column: Input) -> tuple[str, int]:
    """Returns ("plain" | "list" | "map", kind of the elements), which an input's type decides once."""
    kind = arrow_type(column)
    if pa.types.is_map(kind):
        return "map", KIND_TEXT
    nesting, value = ("list", kind.value_type) if pa.types.is_list(kind) else ("plain", kind)
    if pa.types.is_string(value):
        return nesting, KIND_TEXT
    return nesting, KIND_FLOAT if pa.types.is_floating(value) else KIND_INT


def describe(array: pa.Array, step: int, shape: tuple[str, int]) -> tuple[int, ...]:
    """Returns an array's row of the column table; the array must stay alive while its addresses are used."""
    nesting, kind = shape
    buffers = array.buffers()
    valid, bit = _address(buffers[0]) if array.null_count else 0, array.offset
    offsets = items = items_valid = items_bit = 0
    values = array
    if nesting != "plain":
        offsets = _address(buffers[1]) + 4 * bit
        values = array.values
        if nesting == "map":
            entries = values
            values, numbers = entries.field(0), entries.field(1)
            held = numbers.buffers()
            items_bit = numbers.offset
            items = _address(held[1]) + 8 * items_bit
            items_valid = _address(held[0]) if numbers.null_count else 0
        buffers = values.buffers()
    child_bit = values.offset
    child_valid = _address(buffers[0]) if values.null_count else 0
    data, texts = _address(buffers[1]) + 8 * child_bit, 0
    if kind == KIND_TEXT:
        data, texts = _address(buffers[2]), _address(buffers[1]) + 4 * child_bit
    # The order of featuregen.layout: C_KIND, C_STEP, C_VALID, C_VALID_BIT, C_LIST, C_DATA, C_TEXT, C_CHILD_VALID, ...
    return kind, step, valid, bit, offsets, data, texts, child_valid, child_bit, items, items_valid, items_bit
