"""What the oracle's operators share: reading Python values, encoding texts, rescaling numbers, and the two tails."""

import math
from collections.abc import Callable, Mapping, Sequence
from ctypes import c_float
from dataclasses import dataclass
from pathlib import Path

from featuregen.files import read_files, vocabulary
from featuregen.hash64 import HASHES
from featuregen.oracle.expression import evaluate
from featuregen.plan import Encoder, Operation, Plan, Rescale

Row = Mapping[str, object]
Files = Mapping[str, bytes]
NO_FILES: Files = {}
Number = float | None
"""None is a missing number."""


@dataclass(frozen=True)
class Context:
    """A plan and the content of its files."""

    plan: Plan
    files: Files

    @classmethod
    def of(cls, plan: Plan, folder: str | Path | None) -> "Context":
        """Reads the plan's files."""
        return cls(plan, read_files(plan, folder))


def elements(value: object) -> list[object]:
    """Returns the elements of a list; a single value is a list of one, a missing list has none."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return list(value)
    return [] if value is None else [value]


def texts(value: object) -> list[str]:
    """Returns the non-missing values of an id-like field as texts: a whole number is its decimal text."""
    return [str(one) for one in elements(value) if one is not None and one != ""]


def number(value: object) -> Number:
    """Returns a number as float64; null and NaN are missing."""
    if not isinstance(value, int | float) or math.isnan(value):
        return None
    return float(value)


def numbers(value: object) -> list[Number]:
    """Returns the numbers of a list, or of a single value; missing ones keep their place."""
    return [number(one) for one in elements(value)]


def entries(value: object) -> list[tuple[str, object]]:
    """Returns the entries of a map in their order: of equal keys the last one, none whose key is null or empty."""
    pairs = list(value.items()) if isinstance(value, Mapping) else elements(value)
    found: dict[str, object] = {}
    for pair in pairs:
        assert isinstance(pair, tuple)
        key, inner = pair
        if key is not None and key != "":
            found.pop(key, None)  # so that it takes the place of the last one
            found[key] = inner
    return list(found.items())


def float32(value: float) -> float:
    """Returns a float64 rounded once to float32 (overflow gives infinity)."""
    return c_float(value).value


def encode(plan_hash: str, encoder: Encoder, text: str, files: Files = NO_FILES) -> int | None:
    """Returns the id of a non-empty text, None if the encoder does not take it (identity, out of range)."""
    if encoder.kind == "hash":
        return HASHES[plan_hash](text.encode()) % encoder.buckets
    if encoder.kind == "vocab":
        return vocabulary(encoder, files).get(text, encoder.unknown)
    digits = text.isascii() and text.isdigit() and len(text) <= 18
    return int(text) if digits and int(text) < encoder.buckets else None


def encoder_of(operation: Operation) -> Encoder:
    """Returns the encoder that an operation of texts has."""
    assert operation.encoder is not None, operation.output.name
    return operation.encoder


def encode_text(context: Context, operation: Operation, text: str) -> int | None:
    """Returns the id of a non-empty text behind the feature's prefix."""
    return encode(context.plan.hash, encoder_of(operation), operation.prefix + text, context.files)


def encode_default(context: Context, operation: Operation) -> int | None:
    """Returns the id that stands for a missing value (it has no prefix), None if there is none."""
    default = operation.default_text
    return None if default is None else encode(context.plan.hash, encoder_of(operation), default, context.files)


def text_tail(context: Context, operation: Operation, found: Sequence[str]) -> list[int]:
    """Texts to ids: what cannot be encoded is dropped; if nothing is left it is the default, or nothing."""
    ids = [one for one in (encode_text(context, operation, text) for text in found) if one is not None]
    default = encode_default(context, operation)
    return [default] if not ids and default is not None else ids


def rescale(how: Rescale | None, x: Number) -> Number:
    """Rescales a number; a missing one, and a result that is not a number, is missing."""
    if x is None or how is None:
        return x
    if how.kind == "log10":
        return math.log10(x) if x > how.a else how.b
    if how.kind == "zscore":
        return number((x - how.a) / how.b)
    if how.kind == "minmax":
        return number((x - how.a) / (how.b - how.a))
    assert how.program is not None
    return number(evaluate(how.program, [x]))


def with_defaults(operation: Operation, found: Sequence[Number]) -> list[Number]:
    """Rescales numbers; a missing one is its default as it is, if there is one."""
    rescaled = [rescale(operation.rescale, x) for x in found]
    defaults = operation.default_numbers or (None,) * len(rescaled)
    return [default if x is None else x for x, default in zip(rescaled, defaults, strict=True)]


def number_tail(operation: Operation, found: Sequence[Number]) -> list[int] | list[float]:
    """Numbers (as many as the feature has) to ids or float32: rescale, default, then boundaries or a whole id."""
    values = with_defaults(operation, found)
    if operation.boundaries is not None:
        limits = operation.boundaries
        return [sum(limit <= x for limit in limits) for x in values if x is not None]
    if operation.encoder is not None:
        return _whole_ids(operation, operation.encoder, values)
    return [0.0 if x is None else float32(x) for x in values]


def _whole_ids(operation: Operation, encoder: Encoder, values: Sequence[Number]) -> list[int]:
    """Numbers truncated to ids; one that is none is the default, which is truncated as well."""
    ids = []
    for index, x in enumerate(values):
        default = operation.default_numbers[index] if operation.default_numbers else None
        candidates = [math.trunc(y) for y in (x, default) if y is not None and math.isfinite(y)]
        ids += [one for one in candidates if 0 <= one < encoder.buckets][:1]
    return ids


def combine(combiner: str, values: Sequence[float]) -> Number:
    """Makes one number of several, in their order; missing if there is none."""
    if not values:
        return None
    if combiner == "count":
        return float(len(values))
    result = values[0]
    for value in values[1:]:
        if combiner in ("sum", "mean"):
            result += value
        elif value < result if combiner == "min" else value > result:
            result = value
    return number(result / len(values) if combiner == "mean" else result)


Compute = Callable[[Context, Operation, Row], object]
"""What an operator makes of a row: a list of ids or numbers, or the value of a derived column."""
