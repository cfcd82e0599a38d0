"""Derived columns: the values of features that other features read as `feature.<name>`, computed before the outputs.

One implementation for every backend, so that a kernel reads the same bits as NumPy. In a ranking a column of the user's
side has one row, and a column of the item's side may come with the items: the item cache has computed it before.
"""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from featuregen.errors import FeatureError
from featuregen.plan import Derivation, Operation, Plan
from featuregen.sources import FieldType
from featuregen.udf import find_udf
from featuregen.vectors.columns import Reader, Texts, lists_of, numbers_of
from featuregen.vectors.numbers import known_numbers, whole_vectors
from featuregen.vectors.spans import Floats, spans_of_lengths
from featuregen.vectors.text import COLUMNS, list_array
from featuregen.vectors.values import compute_value


class Derivations:
    """Computes the derived columns of a plan.

    Raises:
        FeatureError: naming the feature whose custom function cannot be found.
    """

    def __init__(self, plan: Plan, files: Mapping[str, bytes]) -> None:
        self._plan, self._files = plan, files
        for operation in (derivation.operation for derivation in plan.derivations):
            if operation.op == "custom":
                _check_function(operation)

    def extend(
        self, arrays: list[pa.Array], steps: list[int], rows: int, user_rows: int, known: Mapping[str, pa.Array]
    ) -> None:
        """Appends the derived columns, in the order of the plan, to the columns of a run.

        Args:
            arrays: one array for each input.
            steps: 1 where an array has a value for every row, 0 where its first value holds for all rows.
            rows: number of rows.
            user_rows: number of rows of user-side columns: `rows`, or 1.
            known: columns that were computed before, by name.
        """
        reader = Reader(self._plan.inputs, arrays, steps)
        for derivation in self._plan.derivations:
            name, on_user_side = derivation.column.name, derivation.side == "user"
            count = user_rows if on_user_side else rows
            array = known[name] if name in known else self._column(reader, derivation, count)
            arrays.append(array)
            steps.append(int(not on_user_side or user_rows == rows))
            reader.add(name, array, steps[-1])

    def _column(self, reader: Reader, derivation: Derivation, rows: int) -> pa.Array:
        operation, kind = derivation.operation, derivation.column.type
        if operation.op in COLUMNS:
            array = COLUMNS[operation.op](reader, derivation, rows, self._files)
            return _numbers(derivation, _vectors(array, operation.dim)) if _is_number(kind) else array
        value = compute_value(reader, self._plan, operation, rows)
        if isinstance(value, Texts):
            _, element = value.spans.expand()
            return list_array(spans_of_lengths(value.spans.lengths), value.values.take(pa.array(element)))
        assert isinstance(value, np.ndarray), operation.op
        return _numbers(derivation, value)


def _check_function(operation: Operation) -> None:
    try:
        find_udf(operation.method)
    except FeatureError as error:
        raise FeatureError(operation.output.feature, error.problem, error.hint) from error


def _is_number(kind: FieldType) -> bool:
    return kind in (FieldType.FLOAT, FieldType.FLOAT_LIST)


def _vectors(array: pa.Array, dim: int) -> Floats:
    """Returns the numbers of a column of numbers or of lists; a list of another length is missing."""
    if not pa.types.is_list(array.type):
        return numbers_of(array)[:, None]
    spans, values = lists_of(array)
    return whole_vectors(spans, numbers_of(values), dim)


def _numbers(derivation: Derivation, value: Floats) -> pa.Array:
    """Returns numbers after normalizer and default as a column; a missing one is null."""
    numbers = known_numbers(derivation.operation, value)
    flat = numbers.reshape(-1)
    array = pa.array(flat, mask=np.isnan(flat))
    if derivation.column.type is FieldType.FLOAT:
        return array
    return list_array(spans_of_lengths(np.full(len(numbers), numbers.shape[1])), array)
