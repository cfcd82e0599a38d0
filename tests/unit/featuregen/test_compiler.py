"""The plan: sides, tables, inputs, and a digest that changes exactly when the computed bits may change."""

import json
import subprocess
import sys
from typing import Any

from featuregen.compiler import Input, Output, explain_difference
from featuregen.schema import sample_schema
from featuregen.spec import FieldType
from tests.unit.featuregen.cases import plan_of

SOURCES: dict[str, Any] = {
    "user": {"key": "uid", "fields": {"age": "int", "prefs": "map<string,float>", "unused": "string"}},
    "item": {"key": "iid", "fields": {"cate": "string", "price": "float"}},
    "context": {"fields": {"hour": "int", "recall": "string"}, "perItem": ["recall"]},
    "behavior": {"clicks": {"maxEvents": 50, "maxAge": "24h"}},
}
FEATURES: list[dict[str, Any]] = [
    {"name": "uid", "op": "id", "in": ["user.uid"], "encode": {"hashBuckets": 1000003}},
    {"name": "cate", "op": "id", "in": ["item.cate"], "encode": {"vocab": ["shoes", "books"]}, "default": "none"},
    {"name": "recall", "op": "id", "in": ["context.recall"], "encode": {"hashBuckets": 100}},
    {"name": "hour", "op": "id", "in": ["context.hour"], "encode": {"identityBuckets": 24}},
    {
        "name": "price",
        "op": "raw",
        "in": ["item.price"],
        "normalizer": {"kind": "log10", "threshold": 0.01, "default": -2},
    },
    {"name": "price_b", "op": "raw", "in": ["item.price"], "boundaries": [10, 20.5]},
    {"name": "age_cate", "op": "combo", "in": ["user.age", "item.cate"], "encode": {"hashBuckets": 5003}},
    {
        "name": "age_hour",
        "op": "combo",
        "in": ["user.age", "context.hour"],
        "encode": {"hashBuckets": 50},
        "combo": "mix",
    },
    {"name": "pref", "op": "lookup", "map": "user.prefs", "key": "item.cate", "combiner": "max"},
    {"name": "clk", "op": "window", "behavior": "clicks", "windows": ["1h", "24h"]},
    {
        "name": "clk_cate",
        "op": "window",
        "behavior": "clicks",
        "actions": ["click"],
        "by": "item.cate",
        "windows": ["6h"],
    },
    {
        "name": "seq",
        "op": "sequence",
        "behavior": "clicks",
        "actions": ["click", "buy"],
        "length": 20,
        "fields": [{"in": "item.iid", "encode": {"hashBuckets": 7}}, {"in": "item.cate", "like": "cate"}],
    },
]
DIGEST = "ce6c8db6525bada40b9822fe93ea51f9e44e98711554bcaab8cf65975975cbf7"


def _changed(name: str, **fields: Any) -> list[dict[str, Any]]:
    return [feature | fields if feature["name"] == name else feature for feature in FEATURES]


def test_the_digest_of_a_spec_is_the_same_on_every_machine_and_in_every_release_of_this_kernel_abi() -> None:
    assert plan_of(SOURCES, FEATURES).digest == DIGEST


def test_outputs_say_kind_size_table_and_side() -> None:
    outputs = {output.name: output for output in plan_of(SOURCES, FEATURES).outputs}
    assert list(outputs)[-2:] == ["seq__iid", "seq__cate"]
    assert outputs["cate"] == Output("cate", "cate", "sparse", 0, 4, "cate", "item", 0)
    assert outputs["price_b"] == Output("price_b", "price_b", "sparse", 0, 3, "price_b", "item", 0)
    assert outputs["clk"] == Output("clk", "clk", "dense", 2, 0, None, "user", 0)
    assert outputs["seq__cate"] == Output("seq__cate", "seq", "sequence", 0, 4, "cate", "user", 20)
    assert {name: output.side for name, output in outputs.items()} == {
        "uid": "user",
        "cate": "item",
        "recall": "cross",
        "hour": "user",
        "price": "item",
        "price_b": "item",
        "age_cate": "cross",
        "age_hour": "user",
        "pref": "cross",
        "clk": "user",
        "clk_cate": "cross",
        "seq__iid": "user",
        "seq__cate": "user",
    }


def test_tables_are_named_by_the_owner_of_the_encoder_and_shared_by_like() -> None:
    assert plan_of(SOURCES, FEATURES).tables == {
        "age_cate": 5003,
        "age_hour": 50,
        "cate": 4,
        "hour": 24,
        "price_b": 3,
        "recall": 100,
        "seq__iid": 7,
        "uid": 1000003,
    }


def test_inputs_are_the_columns_that_are_read_and_no_others() -> None:
    plan = plan_of(SOURCES, FEATURES)
    assert [column.name for column in plan.inputs] == [
        "user.age",
        "user.prefs",
        "user.uid",
        "item.cate",
        "item.price",
        "context.hour",
        "context.recall",
        "behavior.clicks.action",
        "behavior.clicks.cate",
        "behavior.clicks.item",
        "behavior.clicks.ts",
        "now",
    ]
    assert Input("context.recall", FieldType.STRING, per_item=True) in plan.inputs
    assert Input("behavior.clicks.ts", FieldType.INT, is_list=True) in plan.inputs


def test_the_sample_schema_has_the_inputs_and_the_labels() -> None:
    schema = sample_schema(plan_of(SOURCES, FEATURES), ["click"])
    assert str(schema.field("user.prefs").type) == "map<string, double>"
    assert str(schema.field("behavior.clicks.cate").type) == "list<item: string>"
    assert str(schema.field("label.click").type) == "float"
    assert schema.names[-2:] == ["now", "label.click"]


def test_what_cannot_change_a_result_does_not_change_the_digest() -> None:
    sources = SOURCES | {"user": SOURCES["user"] | {"fields": SOURCES["user"]["fields"] | {"other": "string"}}}
    assert plan_of(sources, FEATURES).digest == DIGEST
    assert plan_of(SOURCES, _changed("seq", actions=["buy", "click"])).digest == DIGEST
    assert plan_of(SOURCES, _changed("clk", windows=["60m", "24h"])).digest == DIGEST
    assert plan_of(SOURCES, _changed("pref", default=0)).digest == DIGEST


def test_a_difference_between_plans_is_explained_feature_by_feature() -> None:
    old = plan_of(SOURCES, FEATURES)
    new = plan_of(
        SOURCES | {"behavior": {"clicks": {"maxEvents": 20, "maxAge": "24h"}}},
        [feature for feature in _changed("uid", encode={"hashBuckets": 5}) if feature["name"] != "price"],
        "std64",
    )
    assert explain_difference(old.canonical, new.canonical) == [
        "hash: farm64 -> std64",
        "behavior 'clicks': maxEvents 50 -> 20",
        "feature 'price': removed",
        "feature 'uid': buckets 1000003 -> 5",
    ]
    assert explain_difference(old.canonical, plan_of(SOURCES, FEATURES).canonical) == []
    assert explain_difference(old.canonical, plan_of(SOURCES, FEATURES[::-1]).canonical) == [
        "features: their order changed"
    ]


def test_a_canonical_plan_survives_json_so_that_it_can_be_stored_beside_a_checkpoint() -> None:
    canonical = plan_of(SOURCES, FEATURES).canonical
    assert json.loads(json.dumps(canonical)) == canonical


def test_the_compiler_needs_neither_numpy_nor_pyarrow_nor_numba() -> None:
    code = "import sys, featuregen.compiler; print([m for m in ('numpy', 'pyarrow', 'numba') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
