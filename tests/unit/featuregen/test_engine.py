"""The engine takes what Arrow gives: slices, chunks, types that cast without loss; and refuses the rest by name."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from featuregen.engine import Engine
from featuregen.errors import FeatureError
from tests.unit.featuregen.cases import plan_of, request_of, row_of, table_of

SOURCES: dict[str, Any] = {
    "user": {"key": "uid", "fields": {"age": "int", "m": "map<string,float>"}},
    "item": {"key": "iid", "fields": {"cate": "string", "price": "float", "tags": "list<string>"}},
    "context": {"fields": {"recall": "list<string>"}, "perItem": ["recall"]},
    "behavior": {"log": {}},
}
FEATURES: list[dict[str, Any]] = [
    {"name": "uid", "op": "id", "in": ["user.uid"], "encode": {"hashBuckets": 1000}},
    {"name": "tags", "op": "id", "in": ["item.tags"], "encode": {"hashBuckets": 1000}},
    {"name": "price", "op": "raw", "in": ["item.price"]},
    {
        "name": "cross",
        "op": "combo",
        "in": ["user.age", "item.tags", "context.recall"],
        "encode": {"hashBuckets": 1000},
    },
    {"name": "look", "op": "lookup", "map": "user.m", "key": "item.tags"},
    {"name": "clk", "op": "window", "behavior": "log", "windows": ["1h"], "by": "item.cate"},
    {"name": "seq", "op": "sequence", "behavior": "log", "length": 3, "fields": [{"in": "item.iid", "like": "uid"}]},
]
ROW: dict[str, Any] = {
    "user.uid": "u1",
    "user.age": 30,
    "user.m": {"a": 1.5, "b": 2.0},
    "item.cate": "c",
    "item.price": 9.75,
    "item.tags": ["a", "b"],
    "context.recall": ["r1", "r2"],
    "behavior.log.cate": ["c", "d", "c"],
    "behavior.log.item": ["i1", "i2", "i3"],
    "behavior.log.ts": [1000, 2000, 3000],
    "now": 4000,
}
PLAN = plan_of(SOURCES, FEATURES)


def test_shapes_and_dtypes_are_those_of_the_contract() -> None:
    columns = Engine(PLAN).batch(table_of(PLAN, [ROW, ROW])).columns
    assert list(columns) == [output.name for output in PLAN.outputs]
    cross = columns["cross"]
    assert (cross.ids.dtype, cross.offsets.dtype) == (np.int64, np.int32)
    assert cross.offsets.tolist() == [0, 4, 8]
    assert cross.values is None
    assert (columns["clk"].values.dtype, columns["clk"].values.shape) == (np.float32, (2, 1))
    assert columns["clk"].values.tolist() == [[2.0], [2.0]]
    assert columns["look"].values.tolist() == [[3.5], [3.5]]


def test_the_result_belongs_to_the_caller_and_survives_the_next_call() -> None:
    engine = Engine(PLAN)
    first = engine.batch(table_of(PLAN, [ROW]))
    before = row_of(first, 0)
    engine.batch(table_of(PLAN, [ROW | {"user.uid": "other", "item.price": 1.0}] * 50))
    assert row_of(first, 0) == before


def test_a_table_of_many_chunks_is_one_batch() -> None:
    engine, table = Engine(PLAN), table_of(PLAN, [ROW, ROW | {"item.tags": None}])
    expected = row_of(engine.batch(table), 0), row_of(engine.batch(table), 1)
    both = engine.batch(pa.concat_tables([table, table]))
    assert both.rows == 4
    assert (row_of(both, 2), row_of(both, 3)) == expected


def test_a_record_batch_is_taken_like_a_table() -> None:
    table = table_of(PLAN, [ROW])
    assert row_of(Engine(PLAN).batch(table.to_batches()[0]), 0) == row_of(Engine(PLAN).batch(table), 0)


def test_types_that_cast_without_loss_are_taken() -> None:
    table = table_of(PLAN, [ROW])
    other = table.set_column(table.schema.get_field_index("item.price"), "item.price", pa.array([9.75], pa.float32()))
    other = other.set_column(table.schema.get_field_index("user.age"), "user.age", pa.array([30], pa.int16()))
    dictionary = pa.array(["u1"]).dictionary_encode()
    other = other.set_column(table.schema.get_field_index("user.uid"), "user.uid", dictionary)
    other = other.set_column(table.schema.get_field_index("item.cate"), "item.cate", pa.array(["c"], pa.large_string()))
    assert row_of(Engine(PLAN).batch(other), 0) == row_of(Engine(PLAN).batch(table), 0)


def test_a_column_of_nulls_of_no_type_is_missing_values() -> None:
    table = table_of(PLAN, [ROW])
    other = table.set_column(table.schema.get_field_index("item.tags"), "item.tags", pa.nulls(1))
    assert row_of(Engine(PLAN).batch(other), 0)["tags"] == []


def test_an_empty_batch_has_empty_columns() -> None:
    features = Engine(PLAN).batch(table_of(PLAN, []))
    assert features.rows == 0
    assert features.columns["tags"].offsets.tolist() == [0]
    assert features.columns["price"].values.shape == (0, 1)


def test_a_ranking_without_items_still_has_the_user() -> None:
    features = Engine(PLAN).rank(**request_of(PLAN, ROW, []))
    assert features.columns["uid"].ids.tolist() == row_of(Engine(PLAN).batch(table_of(PLAN, [ROW])), 0)["uid"]
    assert features.columns["clk"].values.shape == (0, 1)


def test_what_a_request_leaves_out_is_missing() -> None:
    request = request_of(PLAN, ROW, [ROW]) | {"user": {}, "behavior": {}, "context": {}}
    row = row_of(Engine(PLAN).rank(**request), 0)
    assert (row["uid"], row["cross"], row["look"], row["clk"], row["seq__iid"]) == ([], [], [0.0], [0.0], [])


def test_a_large_map_and_a_long_log_are_indexed_without_a_change() -> None:
    user = ROW | {
        "user.m": {f"t{i}": float(i) for i in range(3000)},
        "behavior.log.ts": list(range(900)),
        "behavior.log.cate": [f"c{i % 37}" for i in range(900)],
        "behavior.log.item": [f"i{i}" for i in range(900)],
    }
    rows = [user | {"item.tags": [f"t{i * 30}", "none"], "item.cate": f"c{i}"} for i in range(100)]
    engine = Engine(PLAN)
    ranked, batch = engine.rank(**request_of(PLAN, user, rows)), engine.batch(table_of(PLAN, rows))
    assert [row_of(ranked, i) for i in range(100)] == [row_of(batch, i) for i in range(100)]
    assert row_of(ranked, 7)["look"] == [210.0]


@pytest.mark.parametrize("words", [400, 256])
def test_more_ids_than_fit_are_refused_by_name(words: int) -> None:
    fields = [f"l{n}" for n in range(8)]  # 256 ** 8 is 0 in 64 bits
    sources = {"user": {"key": "uid", "fields": {name: "list<string>" for name in fields}}}
    feature = {"name": "all", "op": "combo", "in": [f"user.{name}" for name in fields], "encode": {"hashBuckets": 9}}
    plan = plan_of(sources, [feature])
    row = {f"user.{name}": [str(n) for n in range(words)] for name in fields}
    with pytest.raises(FeatureError, match=r"feature 'all': a batch gives \d+ ids"):
        Engine(plan, backend="numba").batch(table_of(plan, [row]))
    assert row_of(Engine(plan, backend="numba").batch(table_of(plan, [row | {"user.l7": []}])), 0) == {"all": []}


def test_an_absent_column_is_refused_by_name() -> None:
    with pytest.raises(FeatureError, match=r"the batch has no column 'item\.price'"):
        Engine(PLAN).batch(table_of(PLAN, [ROW]).drop_columns(["item.price"]))


def test_an_absent_item_column_of_a_ranking_is_refused_by_name() -> None:
    request = request_of(PLAN, ROW, [ROW])
    request["items"] = request["items"].drop_columns(["context.recall"])
    with pytest.raises(FeatureError, match=r"no column 'context\.recall'"):
        Engine(PLAN).rank(**request)


def test_a_column_of_another_type_is_refused_by_name() -> None:
    table = table_of(PLAN, [ROW])
    other = table.set_column(table.schema.get_field_index("user.age"), "user.age", pa.array(["old"]))
    with pytest.raises(FeatureError, match=r"column 'user\.age' is string, the plan reads int64"):
        Engine(PLAN).batch(other)


def test_a_request_value_of_another_type_is_refused_by_name() -> None:
    request = request_of(PLAN, ROW, [ROW])
    request["user"]["age"] = "old"
    with pytest.raises(FeatureError, match=r"'user\.age' is 'old'\n  it is declared as int"):
        Engine(PLAN).rank(**request)


def test_a_sample_without_a_time_is_refused_where_behaviour_is_read() -> None:
    with pytest.raises(FeatureError, match="column 'now' has nulls"):
        Engine(PLAN).batch(table_of(PLAN, [ROW, ROW | {"now": None}]))


def test_a_plan_without_behaviour_needs_no_time() -> None:
    plan = plan_of(SOURCES, FEATURES[:3])
    features = Engine(plan).batch(table_of(plan, [ROW]).drop_columns(["now"]))
    assert row_of(features, 0)["price"] == [9.75]
