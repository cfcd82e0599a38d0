"""The plan: sides, tables, inputs, and a digest that changes exactly when the computed bits may change."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from featuregen.compiler import Input, Output, Plan, explain_difference
from featuregen.plan import Encoder, File
from featuregen.schema import sample_schema
from featuregen.spec import FieldType, Op
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
EVERY: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("every_operator.yaml").read_text())
EVERY_DIGEST = "8164822f78a6b45eb052a26e8baba890f82253e01aca3b6827545ed1b9ad38b5"


def _every(**changes: Any) -> Plan:
    spec = EVERY | changes
    return plan_of(spec["sources"], spec["list"], files=spec["files"])


def _changed(name: str, **fields: Any) -> list[dict[str, Any]]:
    return [feature | fields if feature["name"] == name else feature for feature in FEATURES]


def test_the_digest_of_a_spec_is_the_same_on_every_machine_and_in_every_release_of_this_kernel_abi() -> None:
    assert plan_of(SOURCES, FEATURES).digest == DIGEST
    assert {feature["op"] for feature in EVERY["list"]} == {op.value for op in Op}
    assert _every().digest == EVERY_DIGEST


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


def test_outputs_of_every_kind() -> None:
    outputs = {output.name: output for output in _every().outputs}
    assert outputs["prefs"] == Output("prefs", "prefs", "sparse", 0, 1000, "prefs", "user", 0, weighted=True)
    assert outputs["taste"] == Output("taste", "taste", "dense", 2, 0, None, "user", 0)
    assert outputs["taste_b"] == Output("taste_b", "taste_b", "sparse", 0, 3, "taste_b", "user", 0)
    assert outputs["cate_too"] == Output("cate_too", "cate_too", "sparse", 0, 4, "cate", "item", 0)
    assert outputs["seq__tags"] == Output("seq__tags", "seq", "sequence", 0, 100, "seq__tags", "user", 10, multi=True)
    assert outputs["seq__price"] == Output("seq__price", "seq", "sequence", 0, 3, "seq__price", "user", 10)
    assert outputs["seq__worth"] == Output("seq__worth", "seq", "sequence", 1, 0, None, "user", 10)
    assert outputs["viewed__paths"] == Output("viewed__paths", "viewed", "sequence", 2, 0, None, "user", 5)
    assert not {"spelling", "initial"} & outputs.keys(), "stubs have no output"


def test_values_of_features_are_columns_that_come_after_those_that_they_read() -> None:
    derived = {column.name: column for column in _every().columns if column.name.startswith("feature.")}
    assert [(name, column.type.value, column.per_item) for name, column in derived.items()] == [
        ("feature.price", "float", True),
        ("feature.pref", "float", True),
        ("feature.unseen", "list<string>", False),
        ("feature.tokens", "list<int>", True),
        ("feature.spelling", "string", True),
        ("feature.characters", "list<string>", True),
        ("feature.plain", "list<string>", True),
        ("feature.place", "string", False),
        ("feature.initial", "string", True),
        ("feature.distance", "float", True),
    ]
    chain = [{"name": f"f{i}", "op": "str_slice", "in": [f"feature.f{i + 1}"], "start": 1} for i in range(900)]
    chain += [{"name": "f900", "op": "str_slice", "in": ["item.cate"], "start": 1}]
    stubs = [feature | {"stub": True} for feature in chain[1:]]
    plan = plan_of(SOURCES, [chain[0] | {"encode": {"hashBuckets": 9}}, *stubs])
    assert [d.column.name for d in plan.derivations] == [f"feature.f{i}" for i in range(900, -1, -1)]


def test_the_value_of_an_id_is_the_column_that_it_reads() -> None:
    again = {"name": "again", "op": "combo", "in": ["feature.cate", "user.age"], "encode": {"hashBuckets": 9}}
    plan = plan_of(SOURCES, [*FEATURES, again])
    assert plan.operations[-1].columns == ("item.cate", "user.age")
    assert not plan.derivations


def test_ids_of_vocabularies() -> None:
    def encoder(encode: dict[str, Any], **more: Any) -> Encoder:
        feature = {"name": "f", "op": "id", "in": ["item.cate"], "encode": encode} | more
        made = plan_of(SOURCES, [feature]).operations[0].encoder
        assert made is not None
        return made

    words = (("a", 2), ("b", 3))
    assert encoder({"vocab": ["a", "b"]}) == Encoder("vocab", 4, "f", words, 1)
    assert encoder({"vocab": ["a", "b"]}, default="b") == Encoder("vocab", 4, "f", words, 1)
    assert encoder({"vocab": ["a", "b"]}, default="z") == Encoder("vocab", 4, "f", (("z", 0), *words), 1)
    assert encoder({"vocab": ["a", "b"], "unknown": 5}) == Encoder("vocab", 6, "f", (("a", 0), ("b", 1)), 5)
    assert encoder({"vocabDict": {"a": 0}}) == Encoder("vocab", 2, "f", (("a", 0),), 1)
    assert encoder({"vocabDict": {"b": 3, "a": 2}}, default="b") == Encoder("vocab", 3, "f", (("b", 0), ("a", 2)), 1)
    assert encoder({"vocabDict": {"b": 3, "a": 2}, "unknown": 0}, default="b") == Encoder("vocab", 4, "f", words, 0)
    file = {"words": {"sha256": "0" * 64}}
    feature = {"name": "f", "op": "id", "in": ["item.cate"]}
    plan = plan_of(SOURCES, [feature | {"encode": {"vocabFile": "words", "unknown": 0, "vocabSize": 9}}], files=file)
    assert plan.operations[0].encoder == Encoder("vocab", 9, "f", (), 0, File("words", "0" * 64))
    assert plan.files == (File("words", "0" * 64),)


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
    files = {name: ref | {"configMap": {"name": "feed", "key": name}} for name, ref in EVERY["files"].items()}
    assert _every(files=files).digest == EVERY_DIGEST, "where a file comes from"
    turned = [
        feature | {name: dict(reversed(feature[name].items())) for name in ("valueMap", "encode") if name in feature}
        for feature in EVERY["list"]
    ]
    assert _every(list=turned).digest == EVERY_DIGEST, "the order of a map's keys"


def test_what_can_change_a_result_changes_the_digest() -> None:
    digests = {EVERY_DIGEST}
    for name, ref in EVERY["files"].items():
        digests.add(_every(files=EVERY["files"] | {name: ref | {"sha256": "f" * 64}}).digest)
    changes: dict[str, dict[str, Any]] = {
        "city": {"prefix": "town_"},
        "price_e": {"normalizer": {"kind": "expression", "expr": "sqrt(x) + 1"}},
        "taste": {"defaults": [0.1, 0.5]},
        "level": {"valueMap": {"en": 1, "de": 2.25}},
        "label": {"show": ["key"]},
        "name": {"show": ["pkey"]},
        "shifted": {"fillMissing": False},
        "cover": {"method": "proximity_min_dist"},
        "spelling": {"steps": ["upper"]},
        "plain": {"pattern": "[0-9]"},
        "place": {"format": "{city}:{hour}"},
        "initial": {"stop": 2},
        "distance": {"parameters": {"encoding": "utf-8"}},
        "last_price": {"agg": "max"},
        "seq": {"padEmpty": False},
    }
    for name, change in changes.items():
        changed = [feature | change if feature["name"] == name else feature for feature in EVERY["list"]]
        digests.add(_every(list=changed).digest)
    assert len(digests) == 1 + len(EVERY["files"]) + len(changes)


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
    initial = [feature | {"stop": 2} if feature["name"] == "initial" else feature for feature in EVERY["list"]]
    assert explain_difference(_every().canonical, _every(list=initial).canonical) == [
        """derived column 'initial': parameters [["stop", "1"]] -> [["stop", "2"]]"""
    ]


def test_a_canonical_plan_survives_json_so_that_it_can_be_stored_beside_a_checkpoint() -> None:
    for canonical in (plan_of(SOURCES, FEATURES).canonical, _every().canonical):
        assert json.loads(json.dumps(canonical)) == canonical


def test_the_compiler_needs_neither_numpy_nor_pyarrow_nor_numba() -> None:
    code = "import sys, featuregen.compiler; print([m for m in ('numpy', 'pyarrow', 'numba') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
