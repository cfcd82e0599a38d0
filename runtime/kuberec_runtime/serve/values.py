"""Values in the types that the model declares: one of a body that does not fit is a 400, one of the store is missing.

Types are checked here, element by element: Arrow would turn 1.5 into 1, and a true into 1, without a word.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pyarrow as pa

from featuregen.plan import Input
from featuregen.schema import arrow_type
from featuregen.sources import FieldType
from kuberec_runtime.serve.errors import BadInput


def arrow_of(kind: FieldType) -> pa.DataType:
    """Returns the Arrow type of a field of one candidate, user or context."""
    return arrow_type(Input("", kind))


def one_value(value: Any, path: str, kind: FieldType) -> Any:
    """Returns a value as Python has it of the field's type; None is missing.

    Raises:
        BadInput: it is of another type.
    """
    if value is None:
        return None
    return array([value], path, kind)[0].as_py(maps_as_pydicts="lossy")


def array(values: Sequence[Any], path: str, kind: FieldType) -> pa.Array:
    """Returns the values of a body as an array of the field's type.

    Raises:
        BadInput: says at which position what came.
    """
    made = _made(values, kind)
    if made is not None:
        return made
    for i, value in enumerate(values):
        if _made([value], kind) is None:
            raise BadInput(f"{path}[{i}]" if len(values) > 1 else path, kind.value, shown(value))
    raise AssertionError("each value fits, all together do not")


def stored(values: Sequence[Any], kind: FieldType) -> pa.Array:
    """Returns values of the feature store as an array of the field's type; one of another type is missing."""
    made = _made(values, kind)
    return pa.array(fitting(values, kind), arrow_of(kind)) if made is None else made


def fitting(values: Sequence[Any], kind: FieldType) -> list[Any]:
    """Returns values of the feature store; one of another type is missing."""
    if _made(values, kind) is not None:
        return list(values)
    return [None if _made([value], kind) is None else value for value in values]


def _made(values: Sequence[Any], kind: FieldType) -> pa.Array | None:
    try:
        return pa.array(values, arrow_of(kind)) if _FITS[kind](values) else None
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError, UnicodeEncodeError):
        return None


Fits = Callable[[Iterable[Any]], bool]
_NONE = type(None)


def _plain(*types: type) -> Fits:
    """Values of these types, or missing."""
    allowed = {_NONE, *types}
    return lambda values: set(map(type, values)) <= allowed


def _each(container: type, inner: Fits) -> Fits:
    """Lists, or maps with texts as keys, whose elements all fit."""
    of_type, keys = _plain(container), _plain(str)

    def fits(values: Iterable[Any]) -> bool:
        values = list(values)
        return of_type(values) and all(
            inner(value) if container is list else keys(value) and inner(value.values())
            for value in values
            if value is not None
        )

    return fits


_TEXT, _INT, _FLOAT = _plain(str), _plain(int), _plain(int, float)
_FLOATS, _TEXTS = _each(list, _FLOAT), _each(list, _TEXT)
_FITS: dict[FieldType, Fits] = {
    FieldType.STRING: _TEXT,
    FieldType.INT: _INT,
    FieldType.FLOAT: _FLOAT,
    FieldType.STRING_LIST: _TEXTS,
    FieldType.INT_LIST: _each(list, _INT),
    FieldType.FLOAT_LIST: _FLOATS,
    FieldType.STRING_LISTS: _each(list, _TEXTS),
    FieldType.FLOAT_LISTS: _each(list, _FLOATS),
    FieldType.STRING_FLOAT_MAP: _each(dict, _FLOAT),
    FieldType.STRING_STRING_MAP: _each(dict, _TEXT),
    FieldType.STRING_FLOATS_MAP: _each(dict, _FLOATS),
    FieldType.NESTED_FLOAT_MAP: _each(dict, _each(dict, _FLOAT)),
    FieldType.NESTED_STRING_MAP: _each(dict, _each(dict, _TEXT)),
}


def shown(value: Any) -> str:
    """Returns what came, as messages call it: its JSON type, and itself if it is one text or number."""
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", int: "an int", float: "a float"}
    kind = "null" if value is None else names.get(type(value), type(value).__name__)
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        text = repr(value)
        kind += " " + (text if len(text) <= 40 else text[:37] + "...")
    return kind
