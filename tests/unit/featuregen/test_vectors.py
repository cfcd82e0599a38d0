"""Conformance: the vectors of TorchEasyRec and FeatureGenerator that belong to the operators of this release."""

import json
from pathlib import Path
from typing import Any

import pytest

from featuregen.engine import Engine
from featuregen.oracle import compute_row
from tests.unit.featuregen.cases import Row, plan_of, row_of, table_of

VECTORS = json.loads(Path(__file__).with_name("vectors.json").read_text())["vectors"]
SEPARATOR = "\x1d"


def _field(value: Any, kind: str) -> Any:
    """An upstream input as the typed value that a native source has."""
    if value is None or value == "":
        return None
    if kind == "map<string,float>":
        return {key: float(number) for key, number in (pair.split(":") for pair in value.split(SEPARATOR))}
    if kind == "list<string>":
        return value.split(SEPARATOR)
    return float(value) if kind == "float" else value


def _normalizer(text: str) -> dict[str, Any]:
    options = dict(pair.split("=") for pair in text.replace(" ", "").split(","))
    names = {"standard_deviation": "stddev"}
    numbers = {names.get(key, key): float(value) for key, value in options.items() if key != "method"}
    return {"kind": options["method"]} | numbers


def _native(config: dict[str, Any], inputs: dict[str, list[Any]]) -> tuple[dict[str, Any], dict[str, str]]:
    """Maps an fg.json feature to a native one, and the types of its inputs."""
    op = config["feature_type"].removesuffix("_feature")
    feature: dict[str, Any] = {"name": "f", "op": op}
    numeric = any(isinstance(value, int | float) for values in inputs.values() for value in values)
    if op == "raw":
        types = {"x": "float"}
    elif op == "lookup":
        types = {"m": "map<string,float>", "k": "list<string>"}
    else:
        types = {name: "int" if numeric else "list<string>" for name in inputs}
    if op == "lookup":
        feature |= {"map": "user.m", "key": "item.k", "combiner": config["combiner"]}
    else:
        expressions = config["expression"] if isinstance(config["expression"], list) else [config["expression"]]
        feature["in"] = [expression.replace(":", ".") for expression in expressions]
    encoders = {"hash_bucket_size": "hashBuckets", "num_buckets": "identityBuckets", "vocab_list": "vocab"}
    encode = {native: config[key] for key, native in encoders.items() if key in config}
    default = config.get("default_value")
    if default not in (None, ""):
        feature["default"] = float(default) if op in ("raw", "lookup") else default
    feature |= {"encode": encode} if encode else {}
    feature |= {"boundaries": config["boundaries"]} if "boundaries" in config else {}
    feature |= {"normalizer": _normalizer(config["normalizer"])} if "normalizer" in config else {}
    return feature, types


def _check(vector: dict[str, Any], rows: list[dict[str, list[Any]]], name: str) -> None:
    expect = vector["expect"]
    if "dense" in expect:
        assert [row[name] for row in rows] == [pytest.approx(value, rel=1e-6, abs=1e-7) for value in expect["dense"]]
        return
    assert [value for row in rows for value in row[name]] == expect["values"]
    if "lengths" in expect:
        assert [len(row[name]) for row in rows] == expect["lengths"]


def _run(plan: Any, rows: list[Row]) -> tuple[list[dict[str, list[Any]]], list[dict[str, Any]]]:
    features = Engine(plan).batch(table_of(plan, rows))
    return [row_of(features, index) for index in range(len(rows))], [compute_row(plan, row) for row in rows]


SINGLE = [vector for vector in VECTORS if not vector["config"].get("is_sequence")]
SEQUENCES = [vector for vector in VECTORS if vector["config"].get("is_sequence")]


@pytest.mark.parametrize("vector", SINGLE, ids=lambda v: v["source"].split("::")[-1][:40])
def test_upstream_vector(vector: dict[str, Any]) -> None:
    feature, types = _native(vector["config"], vector["inputs"])
    sides = {"m": "user", "u": "user", "x": "user", "k": "item", "i": "item"}
    sources: dict[str, Any] = {side: {"key": "id", "fields": {}} for side in ("user", "item")}
    for name, kind in types.items():
        sources[sides[name]]["fields"][name] = kind
    plan = plan_of(sources, [feature], {"std": "std64"}.get(vector.get("hash"), "farm64"))
    count = len(next(iter(vector["inputs"].values())))
    rows = [
        {f"{sides[name]}.{name}": _field(values[index], types[name]) for name, values in vector["inputs"].items()}
        for index in range(count)
    ]
    for result in _run(plan, rows):
        _check(vector, result, "f")


@pytest.mark.parametrize("vector", SEQUENCES, ids=lambda v: v["config"]["default_value"] or "no default")
def test_upstream_sequence_vector(vector: dict[str, Any]) -> None:
    """Upstream an empty sequence has one missing element; here that is an event without the field."""
    config = vector["config"]
    sources = {"item": {"key": "id", "fields": {"x": "string"}}, "behavior": {"log": {}}}
    field = {"in": "item.x", "encode": {"hashBuckets": config["hash_bucket_size"]}}
    feature = {"name": "f", "op": "sequence", "behavior": "log", "length": 50, "fields": [field]}
    feature |= {"default": config["default_value"]} if config["default_value"] else {}
    rows = []
    for text in vector["inputs"]["x"]:
        values = [element.split(SEPARATOR)[0] for element in text.split(config["sequence_delim"])]
        rows.append({"behavior.log.x": values, "behavior.log.ts": list(range(len(values))), "now": 1000})
    for result in _run(plan_of(sources, [feature], "std64"), rows):
        _check(vector, result, "f__x")
        assert [len(row["f__x"]) for row in result] == vector["expect"]["seq_lengths"]
