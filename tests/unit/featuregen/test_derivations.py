"""Derived columns: computed once per side, or taken from the items that already have them."""

from typing import Any

import pyarrow as pa
import pytest

from featuregen.derivations import Derivations
from featuregen.engine import Backend, Engine
from featuregen.errors import FeatureError
from tests.unit.featuregen.cases import plan_of, request_of, row_of, table_of

SOURCES: dict[str, Any] = {
    "user": {"key": "uid", "fields": {"name": "string", "taste": "list<float>"}},
    "item": {"key": "iid", "fields": {"title": "string", "price": "float"}},
}
FEATURES: list[dict[str, Any]] = [
    {"name": "first", "op": "str_slice", "in": ["item.title"], "stop": 1, "stub": True},
    {"name": "hello", "op": "str_format", "in": ["user.name"], "format": "hi {name}", "stub": True},
    {
        "name": "both",
        "op": "str_format",
        "in": ["feature.hello", "feature.first"],
        "format": "{hello} {first}",
        "stub": True,
    },
    {"name": "id", "op": "id", "in": ["feature.both"], "encode": {"vocab": ["hi ann r"]}},
    {"name": "cheap", "op": "raw", "in": ["item.price"], "normalizer": {"kind": "zscore", "mean": 1, "stddev": 2}},
    {"name": "sum", "op": "expr", "in": ["feature.cheap", "user.taste"], "expr": "cheap + reduce_sum(taste)"},
]
PLAN = plan_of(SOURCES, FEATURES)
ROW: dict[str, Any] = {
    "now": 0,
    "user.name": "ann",
    "user.taste": [1.0, 2.0],
    "item.title": "red",
    "item.price": 5.0,
}


def test_columns_are_of_one_row_on_the_user_side_of_a_ranking() -> None:
    table = table_of(PLAN, [ROW | {"item.title": title} for title in ("red", "", "blue")])
    arrays = [table.column(column.name).combine_chunks() for column in PLAN.inputs]
    steps = [int(column.of_candidate) for column in PLAN.inputs]
    arrays = [array if step else array.slice(0, 1) for array, step in zip(arrays, steps, strict=True)]
    Derivations(PLAN, {}).extend(arrays, steps, rows=3, user_rows=1, known={})
    found = {column.name: array.to_pylist() for column, array in zip(PLAN.columns, arrays, strict=True)}
    assert found["feature.hello"] == ["hi ann"]
    assert found["feature.both"] == ["hi ann r", None, "hi ann b"]
    assert found["feature.cheap"] == [2.0, 2.0, 2.0]
    assert steps[len(PLAN.inputs) :] == [int(d.side != "user") for d in PLAN.derivations]


def test_a_missing_number_is_null_after_normalizer_and_default() -> None:
    arrays = [
        table_of(PLAN, [ROW | {"item.price": None}]).column(column.name).combine_chunks() for column in PLAN.inputs
    ]
    Derivations(PLAN, {}).extend(arrays, [1] * len(arrays), rows=1, user_rows=1, known={})
    names = [column.name for column in PLAN.columns]
    assert arrays[names.index("feature.cheap")].to_pylist() == [None]


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_an_item_column_that_comes_with_the_items_is_taken(backend: Backend) -> None:
    request = request_of(PLAN, ROW, [ROW, ROW])
    request["items"] = request["items"].append_column("feature.first", pa.array(["r", "x"]))
    ranked = Engine(PLAN, backend=backend).rank(**request)
    assert [row_of(ranked, index)["id"] for index in range(2)] == [[2], [1]]
    assert row_of(ranked, 1)["sum"] == [5.0]


def test_a_column_that_depends_on_the_user_is_never_taken_from_the_items() -> None:
    request = request_of(PLAN, ROW, [ROW])
    request["items"] = request["items"].append_column("feature.both", pa.array(["stale"]))
    assert row_of(Engine(PLAN).rank(**request), 0)["id"] == [2]


def test_an_item_column_of_another_type_is_refused_by_name() -> None:
    request = request_of(PLAN, ROW, [ROW])
    request["items"] = request["items"].append_column("feature.cheap", pa.array([["a"]]))
    with pytest.raises(FeatureError, match=r"column 'feature\.cheap' is list<.*>, the plan reads double"):
        Engine(PLAN).rank(**request)
