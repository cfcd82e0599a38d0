"""Numbers in NumPy: raw and combine, and the tail of all: rescaled, defaulted, then a bucket, an id or float32.

A missing number is NaN. All is float64 until the last rounding.
"""

import math

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from featuregen.plan import Operation, Rescale
from featuregen.vectors.columns import Reader
from featuregen.vectors.expression import evaluate
from featuregen.vectors.spans import Floats, Ints, Spans, fold, spans_of_rows


def raw(reader: Reader, operation: Operation, rows: int) -> Floats:
    """Returns the number, or the vector, of a field; a list of another length is missing as a whole."""
    name = operation.columns[0]
    if not pa.types.is_list(reader.array(name).type):
        return reader.numbers(name, rows)[:, None]
    return whole_vectors(*reader.vectors(name, rows), operation.dim)


def whole_vectors(spans: Spans, numbers: Floats, width: int) -> Floats:
    """Returns the lists that have `width` numbers; others are missing."""
    result = np.full((len(spans), width), np.nan)
    whole = np.flatnonzero(spans.lengths == width)
    result[whole] = numbers[spans.starts[whole][:, None] + np.arange(width)]
    return result


def combine(reader: Reader, operation: Operation, rows: int) -> Floats:
    """Returns one number of several: of a list of numbers, or of texts by the value map."""
    name = operation.columns[0]
    if operation.value_map:
        texts = reader.texts(name, rows)
        words = pa.array([word for word, _ in operation.value_map], pa.string())
        known = np.array([*(number for _, number in operation.value_map), np.nan])
        spans, numbers = texts.spans, known[np.asarray(pc.index_in(texts.values, value_set=words).fill_null(-1))]
    else:
        spans, numbers = reader.vectors(name, rows)
    row, element = spans.expand()
    present = ~np.isnan(numbers[element])
    return fold(numbers[element[present]], spans_of_rows(row[present], rows), operation.combiner)[:, None]


def rescaled(rescale: Rescale | None, x: Floats) -> Floats:
    """Returns the numbers rescaled; a missing one stays missing, and so is what rescales to no number."""
    if rescale is None:
        return x
    a, b = rescale.a, rescale.b
    with np.errstate(all="ignore"):
        if rescale.kind == "log10":
            logarithms = np.full(x.shape, b)
            large = x > a
            logarithms[large] = [math.log10(value) for value in x[large].tolist()]  # NumPy's differs in the last bit
            return np.where(np.isnan(x), np.nan, logarithms)
        if rescale.kind == "zscore":
            return (x - a) / b
        if rescale.kind == "minmax":
            return (x - a) / (b - a)
    assert rescale.program is not None
    result = evaluate(rescale.program, lambda _: x.reshape(-1, 1), x.size).reshape(x.shape)
    return np.where(np.isnan(x), np.nan, result)


def known_numbers(operation: Operation, x: Floats) -> Floats:
    """Returns the value of a number: rescaled, and a missing one replaced by its default, if there is one."""
    x = rescaled(operation.rescale, x)
    if operation.default_numbers is None:
        return x
    return np.where(np.isnan(x), np.array(operation.default_numbers), x)


def number_ids(operation: Operation, x: Floats) -> tuple[Spans, Ints]:
    """Returns the ids of each row of known numbers: buckets, or truncated whole numbers; none of a missing one."""
    if operation.boundaries is not None:
        ids = np.searchsorted(np.array(operation.boundaries), x, side="right").astype(np.int64)
        present = ~np.isnan(x)
    else:
        assert operation.encoder is not None
        buckets, default = operation.encoder.buckets, operation.default_numbers
        inside = _inside(x, buckets)
        if default is not None:
            x = np.where(inside, x, np.array(default))
            inside = _inside(x, buckets)
        ids, present = np.where(inside, x, 0.0).astype(np.int64), inside
    row, _ = np.nonzero(present)
    return spans_of_rows(row, len(x)), ids[present]


def _inside(x: Floats, buckets: int) -> NDArray[np.bool_]:
    whole = np.trunc(x)
    return (whole >= 0) & (whole < buckets)


def float32_of(x: Floats) -> NDArray[np.float32]:
    """Returns numbers rounded once; a missing one is 0."""
    with np.errstate(over="ignore"):
        return np.where(np.isnan(x), 0.0, x).astype(np.float32)
