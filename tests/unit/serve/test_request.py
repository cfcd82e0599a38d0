"""Bodies that fit become requests; the rest says which field, what was expected and what came."""

import io
import json
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pytest
import yaml

from featuregen.compiler import compile_plan
from featuregen.spec import FeatureSpec
from kuberec_api.model import RecModel
from kuberec_runtime.serve.errors import BadInput, UnsupportedType
from kuberec_runtime.serve.request import ARROW, JSON, MSGPACK, RankRequest, Sides, media_type, parse


@pytest.fixture(scope="module")
def sides() -> Sides:
    text = (Path(__file__).parents[3] / "examples" / "feed.yaml").read_text()
    document = next(d for d in yaml.safe_load_all(text) if d["kind"] == "RecModel")
    document["spec"]["features"]["sources"]["context"] = {
        "fields": {"hour": "int", "position": "int"},
        "perItem": ["position"],
    }
    spec = RecModel.model_validate(document).spec.features
    return Sides.of(spec.sources, compile_plan(spec))


def parsed(body: Any, sides: Sides) -> RankRequest:
    return parse(json.dumps(body).encode(), JSON, sides)


def test_items_may_be_keys_columns_or_rows(sides: Sides) -> None:
    keys = parsed({"items": ["a", "b"]}, sides)
    columns = parsed({"items": {"item_id": ["a", "b"], "price": [1, 2.5]}}, sides)
    rows = parsed({"items": [{"item_id": "a", "price": 1}, {"item_id": "b", "price": 2.5}]}, sides)
    assert keys.keys == columns.keys == rows.keys == ["a", "b"]
    assert columns.columns["item.price"].equals(rows.columns["item.price"])
    assert columns.columns["item.price"].to_pylist() == [1.0, 2.5]
    assert keys.count == 2 and parsed({"items": []}, sides).count == 0


def test_json_msgpack_and_arrow_give_the_same_request(sides: Sides) -> None:
    rest = {"user": {"user_id": "u", "cate_pref": {"c": 1.0}}, "context": {"hour": 3}, "now": 7}
    body = {**rest, "items": {"item_id": ["a", "b"], "price": [1.0, None]}}
    table = pa.table({"item.item_id": ["a", "b"], "item.price": pa.array([1.0, None], pa.float32())})
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema.with_metadata({"kuberec": json.dumps(rest)})) as writer:
        writer.write_table(table)
    expected = parsed(body, sides)
    assert parse(msgspec.msgpack.encode(body), MSGPACK, sides) == expected
    assert parse(sink.getvalue(), ARROW, sides) == expected
    assert expected.user == {"user_id": "u", "cate_pref": {"c": 1.0}}


def test_behavior_may_be_events_or_parallel_lists(sides: Sides) -> None:
    events = [{"item": "a", "action": "click", "ts": 1}, {"item": "b", "action": "click", "ts": 2}]
    lists = {"item": ["a", "b"], "action": ["click", "click"], "ts": [1, 2]}
    as_events = parsed({"items": ["x"], "behavior": {"clicks": events}}, sides)
    assert as_events.behavior == parsed({"items": ["x"], "behavior": {"clicks": lists}}, sides).behavior
    assert parsed({"items": ["x"]}, sides).behavior is None


def test_a_per_item_context_field_comes_once_for_each_candidate(sides: Sides) -> None:
    request = parsed({"items": ["a", "b"], "context": {"hour": 3, "position": [4, 5]}}, sides)
    assert request.context == {"hour": 3}
    assert request.columns["context.position"].to_pylist() == [4, 5]


@pytest.mark.parametrize(
    ("body", "field", "expected", "got"),
    [
        ([], "body", "an object", "a list"),
        ({}, "items", "keys, columns or rows of candidates", "nothing"),
        ({"items": ["a"], "usr": {}}, "usr", "did you mean 'user'?", "an unknown name"),
        ({"items": "a"}, "items", "a list of keys, a list of rows, or an object of columns", "a string 'a'"),
        ({"items": ["a", 5]}, "items[1]", "string", "an int 5"),
        ({"items": ["a", None]}, "item.item_id", "a string for each candidate", "null at position 1"),
        ({"items": {"item_id": ["a"], "price": [1, 2]}}, "items.price", "1 values", "2"),
        ({"items": {"item_id": ["a"], "prise": [1]}}, "item.prise", "did you mean 'item.price'?", "an unknown name"),
        ({"items": {"item_id": "a"}}, "items.item_id", "a list, one value for each candidate", "a string 'a'"),
        ({"items": [{"item_id": "a"}, 3]}, "items[1]", "an object", "an int 3"),
        ({"items": ["a"], "user": {"age": "x"}}, "user.age", "int", "a string 'x'"),
        ({"items": ["a"], "user": {"age": 1.5}}, "user.age", "int", "a float 1.5"),
        ({"items": ["a"], "user": {"age": 2**70}}, "user.age", "int", "an int"),
        ({"items": ["a"], "user": {"cate_pref": [1]}}, "user.cate_pref", "map<string,float>", "a list"),
        ({"items": ["a"], "user": 3}, "user", "an object", "an int 3"),
        ({"items": ["a"], "context": {"position": [1, 2]}}, "context.position", "1 values", "2"),
        ({"items": ["a"], "now": "x"}, "now", "milliseconds since the epoch", "a string 'x'"),
        ({"items": ["a"], "behavior": {"klicks": []}}, "behavior.klicks", "did you mean", "an unknown name"),
        ({"items": ["a"], "behavior": {"clicks": {"item": ["a"]}}}, "behavior.clicks.action", "a list", "nothing"),
        (
            {"items": ["a"], "behavior": {"clicks": {"item": ["a"], "action": ["x"], "ts": [1, 2]}}},
            "behavior.clicks.ts",
            "1 values, as many as item",
            "2",
        ),
        (
            {"items": ["a"], "behavior": {"clicks": {"item": ["a"], "action": ["x"], "ts": [None]}}},
            "behavior.clicks.ts",
            "milliseconds since the epoch for each event",
            "null",
        ),
    ],
)
def test_what_does_not_fit_is_named(sides: Sides, body: Any, field: str, expected: str, got: str) -> None:
    with pytest.raises(BadInput) as refused:
        parsed(body, sides)
    assert refused.value.field == field
    assert expected in refused.value.expected
    assert got in refused.value.got
    assert refused.value.status == 400


NESTED: dict[str, tuple[Any, Any]] = {
    "list<string>": (["a", None], ["a", 1]),
    "list<list<string>>": ([["a"], None, []], ["a"]),
    "list<list<float>>": ([[1.0, None], []], [[True]]),
    "map<string,float>": ({"a": 1.0, "b": None}, {"a": "x"}),
    "map<string,string>": ({"a": "x", "b": None}, {"a": 1}),
    "map<string,list<float>>": ({"a": [1.0, 2.5], "b": None}, {"a": 1.0}),
    "map<string,map<string,float>>": ({"a": {"b": 1.0}, "c": {}}, {"a": {"b": [1]}}),
    "map<string,map<string,string>>": ({"a": {"b": "x"}, "c": None}, {"a": {"b": 2}}),
}


@pytest.fixture(scope="module")
def nested() -> Sides:
    fields = {f"f{n}": kind for n, kind in enumerate(NESTED)}
    events = {"paid": "float", "place": "string"}
    sources = {
        "user": {"key": "user_id", "fields": fields},
        "item": {"key": "item_id", "fields": {**fields, "words": "list<string>"}},
        "behavior": {"clicks": {"fields": events}},
    }
    paid = {
        "name": "paid",
        "op": "window",
        "behavior": "clicks",
        "windows": ["1h"],
        "agg": "sum",
        "value": "event.paid",
    }
    words = {"in": "item.words", "encode": {"hashBuckets": 10}}
    read = {"name": "read", "op": "sequence", "behavior": "clicks", "length": 3, "fields": [words]}
    spec = FeatureSpec.model_validate({"sources": sources, "list": [paid, read]})
    return Sides.of(spec.sources, compile_plan(spec))


@pytest.mark.parametrize("kind", NESTED)
def test_every_nested_type_is_taken_of_users_and_of_items(nested: Sides, kind: str) -> None:
    name, (fits, _) = f"f{list(NESTED).index(kind)}", NESTED[kind]
    request = parsed({"user": {name: fits}, "items": [{"item_id": "a", name: fits}, {"item_id": "b"}]}, nested)
    assert request.user == {name: fits}
    column = request.columns[f"item.{name}"]
    assert column.to_pylist(maps_as_pydicts="strict") == [fits, None]


@pytest.mark.parametrize("kind", NESTED)
def test_an_element_of_another_type_is_refused_and_not_converted(nested: Sides, kind: str) -> None:
    name, (_, wrong) = f"f{list(NESTED).index(kind)}", NESTED[kind]
    with pytest.raises(BadInput) as refused:
        parsed({"items": {"item_id": ["a", "b"], name: [None, wrong]}}, nested)
    assert (refused.value.field, refused.value.expected) == (f"items.{name}[1]", kind)


def test_events_bring_the_own_fields_that_are_read(nested: Sides) -> None:
    lists = {"item": ["a"], "action": ["buy"], "ts": [1], "paid": [2], "words": [["x", "y"]]}
    assert parsed({"items": ["x"], "behavior": {"clicks": lists}}, nested).behavior == {"clicks": lists}
    unread = parsed({"items": ["x"], "behavior": {"clicks": lists | {"place": ["top"]}}}, nested).behavior
    assert unread == {"clicks": lists | {"place": ["top"]}}
    one = {"item": "a", "action": "buy", "ts": 1}
    assert parsed({"items": ["x"], "behavior": {"clicks": [one]}}, nested).behavior == {
        "clicks": {"item": ["a"], "action": ["buy"], "ts": [1], "paid": [None]}
    }


@pytest.mark.parametrize(
    ("change", "field", "expected"),
    [
        ({"paid": None}, "behavior.clicks.paid", "a list, oldest event first"),
        ({"paid": ["much"]}, "behavior.clicks.paid", "float"),
        ({"words": ["x"]}, "behavior.clicks.words", "list<string>"),
        ({"word": ["x"]}, "behavior.clicks.word", "did you mean 'behavior.clicks.words'?"),
    ],
)
def test_a_field_of_events_that_does_not_fit_is_named(
    nested: Sides, change: dict[str, Any], field: str, expected: str
) -> None:
    lists = {"item": ["a"], "action": ["buy"], "ts": [1], "paid": [2.0]} | change
    with pytest.raises(BadInput) as refused:
        parsed({"items": ["x"], "behavior": {"clicks": lists}}, nested)
    assert refused.value.field == field
    assert expected in refused.value.expected


@pytest.mark.parametrize("media", [JSON, MSGPACK, ARROW])
def test_bytes_that_are_not_the_media_type_are_refused(sides: Sides, media: str) -> None:
    with pytest.raises(BadInput) as refused:
        parse(b"\xff\x00{", media, sides)
    assert refused.value.field == "body"


def test_content_types_have_their_usual_spellings() -> None:
    assert media_type("application/json; charset=utf-8") == media_type("") == JSON
    assert media_type("Application/X-MsgPack") == MSGPACK
    with pytest.raises(UnsupportedType, match="text/csv"):
        media_type("text/csv")
