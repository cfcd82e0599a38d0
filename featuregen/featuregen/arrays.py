"""What comes in, as Arrow arrays of the plan's types: types are checked here, once for each batch, and never later."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from featuregen.errors import FeatureError
from featuregen.plan import Input
from featuregen.schema import arrow_type


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
        given[column.name] = _pairs(value) if isinstance(value, Mapping) else value
    try:
        row = pa.array([given], struct)
    except _NOT_OF_TYPE:
        return [_from_value(column, given[column.name]) for column in columns]
    return [row.field(index) for index in range(len(columns))]


_NOT_OF_TYPE = (pa.ArrowInvalid, pa.ArrowTypeError, TypeError, ValueError, OverflowError)


def _pairs(entries: Mapping[Any, Any]) -> list[tuple[Any, Any]]:
    """A map, also one of maps, as Arrow takes it."""
    return [(key, _pairs(value) if isinstance(value, Mapping) else value) for key, value in entries.items()]


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
