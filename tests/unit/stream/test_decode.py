"""Messages become flat tables, or an error that says where and why."""

import json
import struct
from typing import Any

import pyarrow as pa
import pytest

from featuregen.plan import Input
from featuregen.schema import arrow_type
from featuregen.sources import FieldType
from kuberec_api.source import KafkaFormat
from kuberec_runtime.stream.decode import DecodeError, Decoder

SCHEMA = pa.schema(
    [
        ("user.age", pa.int64()),
        ("user.cate_pref", pa.map_(pa.string(), pa.float64())),
        ("item.price", pa.float64()),
        ("behavior.clicks.item", pa.list_(pa.string())),
        ("behavior.clicks.ts", pa.list_(pa.int64())),
        ("now", pa.int64()),
        ("label.click", pa.float32()),
    ]
)
SAMPLE = {
    "user": {"age": 3, "cate_pref": {"a": 0.5}},
    "item": {"price": 2},
    "behavior": {"clicks": {"item": ["i1", "i2"], "ts": [1, 2]}},
    "now": 5,
    "label": {"click": 1},
}


def encoded(**changes: object) -> bytes:
    return json.dumps(SAMPLE | changes).encode()


def test_json_becomes_flat_columns() -> None:
    table = Decoder(SCHEMA, KafkaFormat.JSON).one(encoded())
    assert table.to_pylist() == [
        {
            "user.age": 3,
            "user.cate_pref": [("a", 0.5)],
            "item.price": 2.0,
            "behavior.clicks.item": ["i1", "i2"],
            "behavior.clicks.ts": [1, 2],
            "now": 5,
            "label.click": 1.0,
        }
    ]


def test_what_is_absent_or_null_is_null() -> None:
    table = Decoder(SCHEMA, KafkaFormat.JSON).one(b'{"user": {"age": null}, "now": 1, "label": {"click": 0}}')
    assert table.column("user.age").to_pylist() == [None]
    assert table.column("item.price").to_pylist() == [None]
    assert table.column("behavior.clicks.item").to_pylist() == [None]


def test_fields_that_no_feature_reads_are_ignored() -> None:
    assert Decoder(SCHEMA, KafkaFormat.JSON).one(encoded(extra={"x": 1})).num_rows == 1


NESTED: list[tuple[FieldType, Any, Any]] = [
    (FieldType.STRING_LIST, ["a", None, ""], None),
    (FieldType.STRING_LISTS, [["a", None], None, []], None),
    (FieldType.FLOAT_LISTS, [[1, None], [], None], [[1.0, None], [], None]),
    (FieldType.STRING_FLOAT_MAP, {"a": 2, "b": None}, [("a", 2.0), ("b", None)]),
    (FieldType.STRING_STRING_MAP, {"a": "x", "": None}, [("a", "x"), ("", None)]),
    (FieldType.STRING_FLOATS_MAP, {"a": [1, None], "b": None}, [("a", [1.0, None]), ("b", None)]),
    (FieldType.NESTED_FLOAT_MAP, {"a": {"x": 1}, "b": {}}, [("a", [("x", 1.0)]), ("b", [])]),
    (FieldType.NESTED_STRING_MAP, {"a": {"x": "v"}, "b": None}, [("a", [("x", "v")]), ("b", None)]),
]


def one_field(kind: FieldType, is_list: bool = False) -> Decoder:
    name = "behavior.clicks.x" if is_list else "user.x"
    schema = pa.schema([(name, arrow_type(Input(name, kind, is_list))), ("now", pa.int64())])
    return Decoder(schema, KafkaFormat.JSON)


@pytest.mark.parametrize(
    ("kind", "given", "expected"), NESTED, ids=lambda v: v.value if isinstance(v, FieldType) else ""
)
def test_every_nested_type_is_read_element_by_element(kind: FieldType, given: Any, expected: Any) -> None:
    message = json.dumps({"user": {"x": given}, "now": 1}).encode()
    (row,) = one_field(kind).one(message).to_pylist()
    assert row["user.x"] == (given if expected is None else expected)


def test_of_equal_keys_of_a_map_the_last_one_counts() -> None:
    table = one_field(FieldType.STRING_FLOAT_MAP).one(b'{"user": {"x": {"a": 1, "a": 2}}, "now": 1}')
    assert table.column("user.x").to_pylist() == [[("a", 2.0)]]


@pytest.mark.parametrize(
    ("kind", "given", "says"),
    [
        (FieldType.STRING_LISTS, [["a"], [3]], r"Expected `str \| null`, got `int` - at `\$\.user\.x\[1\]\[0\]`"),
        (FieldType.FLOAT_LISTS, [1.0], r"Expected `array \| null`, got `float` - at `\$\.user\.x\[0\]`"),
        (FieldType.STRING_STRING_MAP, {"a": 1}, r"Expected `str \| null`, got `int` - at `\$\.user\.x\[\.\.\.\]`"),
        (FieldType.STRING_FLOATS_MAP, {"a": 1.0}, r"Expected `array \| null`, got `float`"),
        (FieldType.NESTED_FLOAT_MAP, {"a": {"b": "c"}}, r"got `str` - at `\$\.user\.x\[\.\.\.\]\[\.\.\.\]`"),
        (FieldType.NESTED_STRING_MAP, {"a": [1]}, r"Expected `object \| null`, got `array`"),
    ],
)
def test_a_nested_value_of_another_type_is_named_by_its_path(kind: FieldType, given: Any, says: str) -> None:
    with pytest.raises(DecodeError, match=says):
        one_field(kind).one(json.dumps({"user": {"x": given}, "now": 1}).encode())


@pytest.mark.parametrize(
    ("kind", "given"),
    [(FieldType.FLOAT, [1.5, None]), (FieldType.STRING_LIST, [["a"], None]), (FieldType.FLOAT_LIST, [[1.0], []])],
)
def test_events_have_own_fields_and_lists_of_their_items(kind: FieldType, given: Any) -> None:
    table = one_field(kind, is_list=True).one(json.dumps({"behavior": {"clicks": {"x": given}}, "now": 1}).encode())
    assert table.column("behavior.clicks.x").to_pylist() == [given]


@pytest.mark.parametrize(
    ("message", "says"),
    [
        (b"not json", "malformed"),
        (encoded(user={"age": "old"}), r"Expected `int \| null`, got `str` - at `\$.user.age`"),
        (encoded(label={}), "label"),
        (encoded(now=None), "now"),
        (encoded(behavior={"clicks": {"item": ["a"], "ts": [1, 2]}}), "differ in length"),
        (b"", "truncated"),
        (encoded() + encoded(), "trailing"),
    ],
)
def test_a_message_that_does_not_fit_says_where_and_why(message: bytes, says: str) -> None:
    with pytest.raises(DecodeError, match=says):
        Decoder(SCHEMA, KafkaFormat.JSON).one(message)


def test_many_messages_never_pass_for_other_many_messages() -> None:
    with pytest.raises(DecodeError):
        Decoder(SCHEMA, KafkaFormat.JSON).many([encoded() + b"," + encoded()])


def arrow(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def test_an_arrow_message_holds_many_samples() -> None:
    table = pa.concat_tables([Decoder(SCHEMA, KafkaFormat.JSON).one(encoded())] * 3)
    got, counts = Decoder(SCHEMA, KafkaFormat.ARROW).many([arrow(table), arrow(table)])
    assert counts == [3, 3]
    assert got.num_rows == 6


def test_an_arrow_message_without_the_label_is_refused() -> None:
    table = Decoder(SCHEMA, KafkaFormat.JSON).one(encoded()).drop_columns(["label.click"])
    with pytest.raises(DecodeError, match=r"label\.click"):
        Decoder(SCHEMA, KafkaFormat.ARROW).one(arrow(table))


def test_an_arrow_message_with_false_offsets_is_refused_before_a_kernel_reads_it() -> None:
    clicks = {"clicks": {"item": ["i"] * 777, "ts": [1] * 777}}
    message = arrow(Decoder(SCHEMA, KafkaFormat.JSON).one(encoded(behavior=clicks)))
    honest, lying = struct.pack("<ii", 0, 777), struct.pack("<ii", 0, 99_999)
    assert honest in message
    with pytest.raises(DecodeError, match="not an Arrow IPC stream"):
        Decoder(SCHEMA, KafkaFormat.ARROW).one(message.replace(honest, lying))
