"""A plan run by NumPy and Arrow alone, where numba is missing: the same bits as the kernels, several times slower.

Each operation's value (`values`) goes through one of the two tails: texts are encoded, numbers become buckets, ids or
float32.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from featuregen.errors import FeatureError
from featuregen.plan import Operation, Plan
from featuregen.results import Column
from featuregen.vectors.columns import Reader, Texts
from featuregen.vectors.ids import TextEncoder, mixed_ids, text_ids, weighted_ids
from featuregen.vectors.numbers import float32_of, known_numbers, number_ids
from featuregen.vectors.sequences import Sequence as Elements
from featuregen.vectors.spans import Floats, Ints, Spans, offsets_of, spans_of_lengths
from featuregen.vectors.values import compute_value

_MAX_IDS = 2**31 - 1


class NumpyProgram:
    """Runs the operations of a plan one after the other. It keeps nothing between runs."""

    def __init__(self, plan: Plan, files: Mapping[str, bytes] | None = None) -> None:
        self.plan = plan
        encoders = {o.encoder for o in plan.operations if o.encoder is not None}
        self._encoders = {encoder: TextEncoder(plan.hash, encoder, files or {}) for encoder in encoders}

    def run(self, arrays: Sequence[pa.Array], steps: Sequence[int], rows: int, user_rows: int) -> dict[str, Column]:
        """Runs the plan.

        Args:
            arrays: one array for each column of the plan, of its type.
            steps: 1 where an array has a value for every row, 0 where its first value holds for all rows.
            rows: number of rows.
            user_rows: number of rows of user-side outputs: `rows`, or 1.
        """
        reader = Reader(self.plan.columns, arrays, steps)
        result = {}
        for operation in self.plan.operations:
            count = user_rows if operation.output.side == "user" else rows
            result[operation.output.name] = self._column(reader, operation, count)
        return result

    def _column(self, reader: Reader, operation: Operation, rows: int) -> Column:
        if operation.output.weighted:
            spans, ids, weights = weighted_ids(reader, self._encoder(operation), operation, rows)
            return Column(rows, ids, offsets_of(spans), weights=float32_of(weights))
        if operation.mix:
            return _ids(operation, rows, *mixed_ids(reader, self._encoder(operation), self.plan.hash, operation, rows))
        value = compute_value(reader, self.plan, operation, rows)
        if isinstance(value, Elements):
            return self._sequence(operation, value, rows)
        if isinstance(value, Texts):
            return _ids(operation, rows, *text_ids(self._encoder(operation), operation, value))
        if isinstance(value, tuple):
            return _ids(operation, rows, *_apart(operation, *value))
        numbers = known_numbers(operation, value)
        if operation.output.kind == "dense":
            return Column(rows, values=float32_of(numbers))
        return _ids(operation, rows, *number_ids(operation, numbers))

    def _encoder(self, operation: Operation) -> TextEncoder:
        assert operation.encoder is not None, operation.output.name
        return self._encoders[operation.encoder]

    def _sequence(self, operation: Operation, elements: Elements, rows: int) -> Column:
        """Every element has its ids, or the default's; or its numbers."""
        bounds, values = offsets_of(elements.spans), elements.values
        if not isinstance(values, Texts):
            numbers = known_numbers(operation, values)
            if operation.boundaries is None:
                return Column(rows, offsets=bounds, values=float32_of(numbers))
            return Column(rows, number_ids(operation, numbers)[1], bounds)
        spans, ids = text_ids(self._encoder(operation), operation, values)
        if not operation.output.multi:
            return Column(rows, ids, bounds)
        of_elements = offsets_of(spans)
        return Column(rows, ids, of_elements[bounds], elements=bounds, element_offsets=of_elements)


def _apart(operation: Operation, spans: Spans, numbers: Floats) -> tuple[Spans, Ints]:
    """Each of several numbers goes through the tail by itself; a row without any has a missing one."""
    lengths = spans.lengths
    filled = spans_of_lengths(np.maximum(lengths, 1))
    _, place = Spans(filled.starts, filled.starts + lengths).expand()
    x = np.full(int(filled.lengths.sum()), np.nan)
    x[place] = numbers
    of_numbers, ids = number_ids(operation, known_numbers(operation, x[:, None]))
    ends = np.concatenate((np.zeros(1, np.int64), of_numbers.stops))
    return Spans(ends[filled.starts], ends[filled.stops]), ids


def _ids(operation: Operation, rows: int, spans: Spans, ids: Ints) -> Column:
    if len(ids) > _MAX_IDS:
        raise FeatureError(operation.output.feature, f"a batch gives {len(ids)} ids", "use smaller batches")
    return Column(rows, ids, offsets_of(spans))
