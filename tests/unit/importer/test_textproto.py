"""Protobuf's text format is read as protobuf reads it; what it would refuse is refused with the line."""

from typing import Any

import pytest

from featuregen.errors import FeatureError
from featuregen.importer.textproto import Symbol, parse_textproto


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", {}),
        ("a: 1 a: 2", {"a": [1, 2]}),
        ("a: [1, -2.5, 1e-3f, 0x1F, 010, - 3]", {"a": [1, -2.5, 0.001, 31, 8, -3]}),
        ("a: []", {"a": []}),
        (
            "a { b: true } a: { b: false } a < b: DEEP >",
            {"a": [{"b": [True]}, {"b": [False]}, {"b": [Symbol("DEEP")]}]},
        ),
        (
            "a: [{key: 'x' value: 2}, {key: 'y' value: 3}]",
            {"a": [{"key": ["x"], "value": [2]}, {"key": ["y"], "value": [3]}]},
        ),
        ('a: "one" \'two\'  # not three\n"!", b: "#"; c: x', {"a": ["onetwo!"], "b": ["#"], "c": [Symbol("x")]}),
        ('a: ["one", "two"]', {"a": ["one", "two"]}),
        (r'a: "\x1d\035\n\"\u88d9\\"', {"a": ['\x1d\x1d\n"裙\\']}),
        ("a: inf b: -inf", {"a": [float("inf")], "b": [float("-inf")]}),
    ],
)
def test_a_text_is_a_message(text: str, message: dict[str, Any]) -> None:
    assert parse_textproto(text) == message


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a", "line 1: ':' or '{' is expected after 'a'"),
        ("a:\n}", "line 2: a value is expected, found '}'"),
        ("a {\nb: 1\n", "line 3: the name of a field is expected, found 'the end'"),
        ('a: "x', "line 1: '\"' means nothing here"),
        ("{a: 1}", "line 1: the name of a field is expected, found '{'"),
        ("a: 12x", "line 1: '1' means nothing here"),
        ("a { b: 1 >", "line 1: the name of a field is expected, found '>'"),
    ],
)
def test_what_is_no_message_is_refused_with_its_line(text: str, problem: str) -> None:
    with pytest.raises(FeatureError, match="give the file in protobuf's text format") as raised:
        parse_textproto(text)
    assert raised.value.problem == f"pipeline.config, {problem}"
