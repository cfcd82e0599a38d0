"""Tables as people store them to the flat schema of samples, and which of their rows do not fit.

Columns are named as in the schema (`user.age`) or nested (a struct `user` with a field `age`). A column that is missing
or of a hopeless type is the file's fault and ends the training; a row that does not fit is a bad record.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

REQUIRED_PREFIXES = ("label.", "now")

I64 = NDArray[np.int64]


class DecodeError(ValueError):
    """A message or a row that does not fit the schema."""


class ColumnError(DecodeError):
    """A column that is missing, or whose type no value of the schema's type can have: no row of it fits."""


class Fitting(NamedTuple):
    """The rows that fit: their samples, int64[n] where each stood in the table; and what is wrong with the others."""

    table: pa.Table
    at: I64
    bad: list[tuple[int, str]]


def conform(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Returns the table in the flat schema; fields that nobody reads are left out, absent ones are null.

    Raises:
        ColumnError: a required column is missing or a type cannot be converted.
        DecodeError: a value does not fit.
    """
    table.validate(full=True)  # kernels read raw buffers: offsets of a stranger are not to be trusted
    columns = []
    for field in schema:
        column = _column(table, field.name)
        if column is None:
            if field.name.startswith(REQUIRED_PREFIXES):
                raise ColumnError(f"column '{field.name}' is missing")
            columns.append(pa.nulls(table.num_rows, field.type))
            continue
        columns.append(_cast(column, field))
    return checked(pa.Table.from_arrays(columns, schema=schema).combine_chunks())


def checked(table: pa.Table) -> pa.Table:
    """Returns the table of the flat schema if labels and times are there and parallel lists are as long.

    Raises:
        DecodeError: says which is not.
    """
    names = table.schema.names
    for name in names:
        if name.startswith(REQUIRED_PREFIXES) and table.column(name).null_count:
            raise DecodeError(f"'{name}' is null")
    for behavior, lists in parallel_lists(names).items():
        lengths = [pc.fill_null(pc.list_value_length(table.column(n)), 0) for n in lists]
        for name, other in zip(lists[1:], lengths[1:], strict=True):
            if not lengths[0].equals(other):
                raise DecodeError(f"'{behavior}': the lists '{lists[0]}' and '{name}' differ in length")
    return table


def fitting(table: pa.Table, convert: Callable[[pa.Table], pa.Table]) -> Fitting:
    """Converts a table; if that fails, halves it until the rows to blame are found: a few bad ones cost a few calls.

    Args:
        table: n rows as they were read.
        convert: raises `DecodeError` if any row does not fit, and gives one row for one row otherwise.

    Raises:
        ColumnError: no row can fit.
    """
    good: list[pa.Table] = []
    at: list[I64] = []
    bad: list[tuple[int, str]] = []

    def take(first: int, count: int) -> None:
        try:
            good.append(convert(table.slice(first, count)))
            at.append(np.arange(first, first + count, dtype=np.int64))
        except ColumnError:
            raise
        except DecodeError as error:
            if count == 1:
                bad.append((first, str(error)))
                return
            take(first, count // 2)
            take(first + count // 2, count - count // 2)

    take(0, table.num_rows)
    if not good:
        return Fitting(convert(table.slice(0, 0)), np.empty(0, np.int64), bad)
    return Fitting(pa.concat_tables(good), np.concatenate(at), bad)


def parallel_lists(names: list[str]) -> dict[str, list[str]]:
    """The lists of each behaviour that has more than one: {behavior.clicks: [behavior.clicks.item, ...]}."""
    lists: dict[str, list[str]] = {}
    for name in names:
        if name.startswith("behavior."):
            lists.setdefault(name.rsplit(".", 1)[0], []).append(name)
    return {behavior: members for behavior, members in lists.items() if len(members) > 1}


def _column(table: pa.Table, name: str) -> pa.ChunkedArray | None:
    at = table.schema.get_field_index(name)
    if at >= 0:
        return table.column(at)
    first, *path = name.split(".")
    at = table.schema.get_field_index(first)
    if at < 0 or not path:
        return None
    column = table.column(at)
    for step in path:
        if not pa.types.is_struct(column.type) or column.type.get_field_index(step) < 0:
            return None
        column = pc.struct_field(column, step)
    return column


def _cast(column: pa.ChunkedArray, field: pa.Field) -> pa.ChunkedArray:
    try:
        if pa.types.is_timestamp(column.type) and pa.types.is_integer(field.type):
            column = column.cast(pa.timestamp("ms", column.type.tz), safe=False)
        return column.cast(field.type)
    except pa.ArrowNotImplementedError as error:
        raise ColumnError(f"column '{field.name}' is {column.type}, expected {field.type}: {error}") from error
    except pa.ArrowInvalid as error:
        raise DecodeError(f"column '{field.name}': {error}") from error
