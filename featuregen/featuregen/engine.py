"""The engine: one plan, run over batches of samples (training) and over one user with many items (ranking).

Both go through the same compiled program; the only difference is whether a column advances from row to row, so a served
feature and a trained one are the same bits by construction.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from featuregen.arrays import from_values, missing, to_array
from featuregen.errors import FeatureError
from featuregen.plan import Input, Plan
from featuregen.program import Program
from featuregen.results import Column, Features
from featuregen.schema import arrow_type

__all__ = ["Column", "Engine", "Features", "Request"]

# pyarrow imports pandas, if it is installed, when it first makes an array: here and not within a request.
_NO_TIME = pa.array([0], pa.int64())


@dataclass(frozen=True, slots=True)
class Request:
    """One user with n items as a plan reads them; the arrays are never written to, so they may be kept.

    Attributes:
        rows: number of items.
        shared: an array of one row for each input of user, context and behaviour, and `now`; in the plan's order.
        items: an array of n rows for each input of the item and each context field that is perItem.
    """

    rows: int
    shared: tuple[pa.Array, ...]
    items: tuple[pa.Array, ...]


class Engine:
    """Runs a plan. One engine is used by one thread at a time; the kernels run without the GIL."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._program = Program(plan)
        self._per_item = [column.of_candidate for column in plan.inputs]
        self._shared = [column for column, own in zip(plan.inputs, self._per_item, strict=True) if not own]
        self._shared_type = pa.struct([pa.field(column.name, arrow_type(column)) for column in self._shared])
        self._steps = [int(own) for own in self._per_item]

    def batch(self, table: pa.Table | pa.RecordBatch) -> Features:
        """Computes the features of n samples.

        Args:
            table: flat columns of `sample_schema`; others are ignored. Arrow types that cast without loss are taken.

        Raises:
            FeatureError: if a column is absent or has another type, or `now` is null where a behaviour is read.
        """
        names = table.schema.names
        arrays = []
        for column in self.plan.inputs:
            if column.name == "now" and not self.plan.behaviors and "now" not in names:
                arrays.append(_NO_TIME)
                continue
            if column.name not in names:
                raise missing(column, names)
            arrays.append(to_array(column, table.column(column.name)))
        if self.plan.behaviors and arrays[-1].null_count:
            raise FeatureError(None, "column 'now' has nulls", "every sample needs the time of its request, int64 ms")
        rows = table.num_rows
        return Features(rows, self._program.run(arrays, [1] * len(arrays), rows, rows))

    def rank(
        self,
        user: Mapping[str, object],
        items: pa.RecordBatch,
        context: Mapping[str, object],
        behavior: Mapping[str, Mapping[str, Sequence[object]]],
        now_ms: int,
    ) -> Features:
        """Computes the features of one user with n items.

        Args:
            user: field -> value; absent fields are missing.
            items: one row for each candidate: `item.*` columns, and `context.*` for fields that are perItem.
            context: field -> value of the request.
            behavior: behaviour name -> its parallel lists `item`, `action`, `ts` and item fields, oldest first.
            now_ms: time of the request.

        Returns:
            User-side outputs with one row, the others with n.

        Raises:
            FeatureError: naming the column or value that has a wrong type or is absent.
        """
        return self.run(self.request(user, items, context, behavior, now_ms))

    def request(
        self,
        user: Mapping[str, object],
        items: pa.RecordBatch,
        context: Mapping[str, object],
        behavior: Mapping[str, Mapping[str, Sequence[object]]],
        now_ms: int,
    ) -> Request:
        """Reads what the plan needs of one user and n items; the arguments and errors of `rank`."""
        names = items.schema.names
        values = {column.name: _request_value(column, user, context, behavior, now_ms) for column in self._shared}
        shared = from_values(self._shared, self._shared_type, values)
        arrays = []
        for column, own in zip(self.plan.inputs, self._per_item, strict=True):
            if own and column.name not in names:
                raise missing(column, names)
            if own:
                arrays.append(to_array(column, items.column(column.name)))
        return Request(items.num_rows, tuple(shared), tuple(arrays))

    def run(self, request: Request) -> Features:
        """Computes what `rank` does of a request that was read before, such as one that was logged."""
        shared, items = iter(request.shared), iter(request.items)
        arrays = [next(items) if own else next(shared) for own in self._per_item]
        return Features(request.rows, self._program.run(arrays, self._steps, request.rows, 1))


def _request_value(
    column: Input,
    user: Mapping[str, object],
    context: Mapping[str, object],
    behavior: Mapping[str, Mapping[str, Sequence[object]]],
    now_ms: int,
) -> object:
    source, _, name = column.name.partition(".")
    if source == "now":
        return int(now_ms)
    if source == "behavior":
        log, _, attribute = name.partition(".")
        return behavior.get(log, {}).get(attribute)
    return (user if source == "user" else context).get(name)
