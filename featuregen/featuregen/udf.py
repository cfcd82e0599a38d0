"""Custom functions: found by name, called with rows or with Arrow arrays, their results checked by type and length.

A function comes from a package that declares an entry point in the group `featuregen.udfs`; `edit_distance` is built
in. Its arguments are the feature's fields in order, a missing value (null, "", NaN, []) being None, and the feature's
`parameters` as keywords. It returns None for a missing result. Marked with `batch` it gets Arrow arrays instead and
returns one array; that is faster, and the arrays have nulls where values are missing.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib.metadata import entry_points
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from featuregen.edit_distance import edit_distance
from featuregen.errors import FeatureError, did_you_mean
from featuregen.sources import FieldType

GROUP = "featuregen.udfs"
_BATCH = "__featuregen_batch__"
_F = TypeVar("_F", bound=Callable[..., Any])
_TYPES: dict[FieldType, tuple[type, pa.DataType]] = {
    FieldType.STRING: (str, pa.string()),
    FieldType.STRING_LIST: (str, pa.list_(pa.string())),
    FieldType.FLOAT: (float, pa.float64()),
    FieldType.FLOAT_LIST: (float, pa.list_(pa.float64())),
}


def batch(function: _F) -> _F:
    """Marks a function as one that takes Arrow arrays and returns one."""
    setattr(function, _BATCH, True)
    return function


def is_batch(function: Callable[..., Any]) -> bool:
    """Returns whether a function takes Arrow arrays."""
    return bool(getattr(function, _BATCH, False))


BUILT_IN: Mapping[str, Callable[..., Any]] = {"edit_distance": batch(edit_distance)}


@cache
def find_udf(name: str) -> Callable[..., Any]:
    """Returns a function by its name.

    Raises:
        FeatureError: if there is none, or it cannot be imported.
    """
    installed = {point.name: point for point in entry_points(group=GROUP)}
    if name in BUILT_IN:
        return BUILT_IN[name]
    if name not in installed:
        hint = did_you_mean(name, [*BUILT_IN, *installed], f"built in, or in the entry points {GROUP}")
        raise FeatureError(None, f"there is no custom function '{name}'", hint)
    point = installed[name]
    try:
        function = point.load()
    except Exception as error:
        hint = f"it is {point.value} of {point.dist.name if point.dist else 'an unknown package'}"
        raise FeatureError(None, f"custom function '{name}' cannot be imported: {error!r}", hint) from error
    if not callable(function):
        problem = f"custom function '{name}' is no function, it is of type {type(function).__name__}"
        raise FeatureError(None, problem, f"{point.value} has to name a function")
    return function


def call_udf(
    feature: str,
    name: str,
    arrays: Sequence[pa.Array],
    rows: int,
    kind: FieldType,
    dim: int,
    parameters: Mapping[str, str],
) -> pa.Array:
    """Returns a function's results for all rows.

    Args:
        feature: names the feature in messages.
        name: name of the function.
        arrays: its arguments, of `rows` rows each.
        rows: number of rows.
        kind: declared type of the result: string, list<string>, float or list<float>.
        dim: numbers in each list<float>.
        parameters: keyword arguments.

    Raises:
        FeatureError: naming the function, the row and what is wrong with its result, or with what it raised.
    """
    function = find_udf(name)
    arguments = [_without_missing(array) for array in arrays]
    if is_batch(function):
        return _call_batch(function, feature, name, arguments, rows, kind, dim, parameters)
    values = []
    for row, given in enumerate(zip(*(_values(array) for array in arguments), strict=True)):
        try:
            value = function(*given, **parameters)
        except Exception as error:
            raise FeatureError(
                feature, f"custom function '{name}' failed on row {row}: {error!r}", _shown(given)
            ) from error
        values.append(_checked(feature, name, row, value, kind, dim))
    return pa.array(values, _TYPES[kind][1])


def _call_batch(
    function: Callable[..., Any],
    feature: str,
    name: str,
    arguments: list[pa.Array],
    rows: int,
    kind: FieldType,
    dim: int,
    parameters: Mapping[str, str],
) -> pa.Array:
    try:
        result = function(*arguments, **parameters)
    except Exception as error:
        raise FeatureError(feature, f"custom function '{name}' failed: {error!r}") from error
    hint = "a batch function returns one Arrow array, with a value for each row"
    if isinstance(result, pa.ChunkedArray):
        result = result.combine_chunks()
    if not isinstance(result, pa.Array):
        raise FeatureError(feature, f"custom function '{name}' returned {type(result).__name__}", hint)
    if len(result) != rows:
        raise FeatureError(feature, f"custom function '{name}' returned {len(result)} values for {rows} rows", hint)
    wanted = _TYPES[kind][1]
    try:
        result = result.cast(wanted)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        problem = f"custom function '{name}' returned {result.type}, its declared type is {kind.value}"
        raise FeatureError(feature, problem, f"return {wanted}, or declare another type") from None
    if kind is FieldType.FLOAT_LIST:
        wrong = pc.fill_null(pc.not_equal(pc.list_value_length(result), dim), False)
        if pc.any(wrong).as_py():
            row = pc.index(wrong, True).as_py()
            raise _wrong_length(feature, name, row, len(result[row].as_py()), dim)
    return result


def _without_missing(array: pa.Array) -> pa.Array:
    """Returns an array with nulls for empty texts, lists and maps, and for NaN."""
    if pa.types.is_nested(array.type):
        missing = pc.equal(pc.list_value_length(array if pa.types.is_list(array.type) else _as_list(array)), 0)
    elif pa.types.is_string(array.type):
        missing = pc.equal(pc.binary_length(array), 0)
    elif pa.types.is_floating(array.type):
        missing = pc.is_nan(array)
    else:
        return array
    missing = pc.fill_null(missing, False)
    if not pc.any(missing).as_py():
        return array
    present = pa.array(range(len(array)), pa.int64())
    return array.take(pc.if_else(missing, None, present))


def _as_list(array: pa.MapArray) -> pa.ListArray:
    return pa.ListArray.from_arrays(array.offsets, array.keys, mask=array.is_null())


def _values(array: pa.Array) -> list[Any]:
    """Returns Python values; maps, also maps of maps, as dicts."""
    values = array.to_pylist()
    if not pa.types.is_map(array.type):
        return values
    nested = pa.types.is_map(array.type.item_type)
    return [value and {key: dict(one) if nested and one else one for key, one in value} for value in values]


def _checked(feature: str, name: str, row: int, value: Any, kind: FieldType, dim: int) -> Any:
    """Returns a result in its type's Python form."""
    wanted, _ = _TYPES[kind]
    many = kind in (FieldType.STRING_LIST, FieldType.FLOAT_LIST)
    if value is None:
        return None
    if many and (isinstance(value, str) or not isinstance(value, Sequence)):
        raise _wrong_type(feature, name, row, value, kind)
    checked = [_checked_one(feature, name, row, one, wanted, kind) for one in (value if many else [value])]
    if kind is FieldType.FLOAT_LIST and len(checked) != dim:
        raise _wrong_length(feature, name, row, len(checked), dim)
    return checked if many else checked[0]


def _checked_one(feature: str, name: str, row: int, value: Any, wanted: type, kind: FieldType) -> Any:
    if value is None or (wanted is str and isinstance(value, str)):
        return value
    if wanted is float and isinstance(value, int | float) and not isinstance(value, bool):
        return None if math.isnan(value) else float(value)
    raise _wrong_type(feature, name, row, value, kind)


def _wrong_type(feature: str, name: str, row: int, value: Any, kind: FieldType) -> FeatureError:
    problem = (
        f"custom function '{name}' returned {type(value).__name__} on row {row}, its declared type is {kind.value}"
    )
    return FeatureError(feature, problem, f"it returned {_shown(value)}; None is a missing value")


def _wrong_length(feature: str, name: str, row: int, length: int, dim: int) -> FeatureError:
    problem = f"custom function '{name}' returned {length} numbers on row {row}, dim is {dim}"
    return FeatureError(feature, problem, "return as many as dim says, or None")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
