"""Turns rows of Python values into batches and requests, and results back into rows, so that tests can compare them."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from featuregen.compiler import compile_plan
from featuregen.engine import Features
from featuregen.plan import Plan
from featuregen.rows import row_values
from featuregen.schema import sample_schema
from featuregen.spec import FeatureSpec

Row = Mapping[str, Any]


def plan_of(
    sources: Mapping[str, Any],
    features: Sequence[Mapping[str, Any]],
    hash: str = "farm64",
    files: Mapping[str, Any] | None = None,
) -> Plan:
    spec = {"hash": hash, "sources": sources, "list": features, "files": files or {}}
    return compile_plan(FeatureSpec.model_validate(spec))


def pairs_of(value: Any) -> Any:
    """Maps, also maps of maps, as the lists of pairs that Arrow takes."""
    return [(key, pairs_of(inner)) for key, inner in value.items()] if isinstance(value, dict) else value


def table_of(plan: Plan, rows: Sequence[Row]) -> pa.Table:
    schema = sample_schema(plan)
    columns = {}
    for field in schema:
        values = [row.get(field.name) for row in rows]
        columns[field.name] = pa.array([pairs_of(value) for value in values], field.type)
    return pa.table(columns, schema=schema)


def row_of(features: Features, index: int) -> dict[str, list[Any]]:
    """Row `index` of a result, as the oracle writes it; a user-side column of a ranking has one row for all."""
    return {name: row_values(column, 0 if column.rows == 1 else index) for name, column in features.columns.items()}


def request_of(plan: Plan, user: Row, items: Sequence[Row]) -> dict[str, Any]:
    """Arguments of Engine.rank: what is the user's from `user`, what is a candidate's from `items`."""
    schema = sample_schema(plan)
    per_item = [i.name for i in plan.inputs if i.of_candidate]
    columns = [pa.array([item.get(name) for item in items], schema.field(name).type) for name in per_item]
    behavior: dict[str, dict[str, Any]] = {}
    for name, value in user.items():
        if name.startswith("behavior."):
            _, log, attribute = name.split(".")
            behavior.setdefault(log, {})[attribute] = value
    return {
        "user": {name[5:]: value for name, value in user.items() if name.startswith("user.")},
        "items": pa.RecordBatch.from_arrays(columns, names=per_item)
        if columns
        else pa.RecordBatch.from_struct_array(pa.array([{}] * len(items), pa.struct([]))),
        "context": {name[8:]: value for name, value in user.items() if name.startswith("context.")},
        "behavior": behavior,
        "now_ms": user["now"],
    }
