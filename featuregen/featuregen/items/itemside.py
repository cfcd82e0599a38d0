"""What an item alone decides, computed when it is put: derived columns, and every output of the item's side.

The engine computes them as it would for a batch, so that a ranking only copies bits that were there before.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from featuregen.arrays import missing, to_array
from featuregen.derivations import Derivations
from featuregen.engine import make_program
from featuregen.items.division import Division
from featuregen.plan import Input, Operation, Plan
from featuregen.results import Column
from featuregen.schema import arrow_type
from featuregen.sources import FieldType

_TEXT = Input("item.text", FieldType.STRING)


class ItemSide:
    """The item side of a divided plan. Used by one thread at a time.

    Attributes:
        defaults: output -> id of its default, -1 if there is none; of listed ids and coded combos.
    """

    def __init__(self, division: Division, contents: Mapping[str, bytes], backend: str) -> None:
        self._plan = division.item
        self._derivations = Derivations(division.item, contents)
        self._program = make_program(backend, division.item, contents) if division.item.operations else None
        self._listed = [
            make_program(backend, _of_texts(division.plan, replace(operation, default_text=None)), contents)
            for operation in division.listed
        ]
        self.defaults: dict[str, int] = {}
        combos = (coded.operation for coded in division.coded if coded.name == "combo")
        for operation in (*division.listed, *combos):
            program = make_program(backend, _of_texts(division.plan, operation), contents)
            self.defaults[operation.output.name] = int(
                _single_ids(program.run([pa.nulls(1, pa.string())], [1], 1, 1))[0]
            )

    @property
    def inputs(self) -> tuple[Input, ...]:
        """Columns that items are put with."""
        return self._plan.inputs

    def compute(self, items: pa.RecordBatch | pa.Table) -> tuple[dict[str, pa.Array], dict[str, Column]]:
        """Returns all columns of the item's side, and all outputs that are kept.

        Raises:
            FeatureError: if a column is absent or has another type.
        """
        names, rows = items.schema.names, items.num_rows
        arrays = []
        for column in self.inputs:
            if column.name not in names:
                raise missing(column, names)
            arrays.append(to_array(column, items.column(column.name)))
        steps = [1] * len(arrays)
        self._derivations.extend(arrays, steps, rows, rows, {})
        found = {column.name: array for column, array in zip(self._plan.columns, arrays, strict=True)}
        return found, self._program.run(arrays, steps, rows, rows) if self._program else {}

    def ids(self, listed: int, texts: pa.StringArray) -> Any:
        """Returns int64[n]: the id of each text for one of the listed operations, -1 if it has none."""
        return _single_ids(self._listed[listed].run([texts], [1], len(texts), len(texts)))


def nothing(columns: Sequence[Input]) -> pa.RecordBatch:
    """Returns one item of which nothing is known."""
    arrays = [pa.nulls(1, arrow_type(column)) for column in columns]
    return pa.RecordBatch.from_arrays(arrays, [column.name for column in columns])


def _of_texts(plan: Plan, operation: Operation) -> Plan:
    single = replace(operation, op="id", columns=(_TEXT.name,), mix=False)
    return Plan(plan.hash, (single,), (_TEXT,), {})


def _single_ids(columns: Mapping[str, Column]) -> Any:
    (column,) = columns.values()
    ids = np.full(column.rows, -1, np.int64)
    ids[np.diff(column.offsets) > 0] = column.ids
    return ids
