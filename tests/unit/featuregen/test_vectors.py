"""Conformance: every vector of TorchEasyRec and FeatureGenerator, through the importer and all three interpreters.

A vector is a feature of fg.json, inputs and what upstream's own test expects. The importer makes a native spec of the
feature, and values that upstream packs into texts are unpacked to the type that the spec declares.
"""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from featuregen.compiler import compile_plan
from featuregen.engine import Engine
from featuregen.importer import DialectName, Imported, import_fg
from featuregen.oracle import compute_row
from featuregen.plan import Plan
from featuregen.spec import FieldType, HashName
from tests.unit.featuregen.cases import row_of, table_of

VECTORS = json.loads(Path(__file__).with_name("vectors.json").read_text())["vectors"]
HASHES = {"std": HashName.STD64, "farm64": HashName.FARM64}
GROUP = "click_50_seq"
FIELD_TYPES = {"cur_time": FieldType.FLOAT, "clk_time_seq": FieldType.FLOAT_LIST}
"""What the features of vectors leave open: which input of a plain SeqExpr is a sequence."""


def _names() -> list[str]:
    seen: Counter[str] = Counter()
    names = []
    for vector in VECTORS:
        seen[vector["source"]] += 1
        names.append(f"{vector['source']} {seen[vector['source']]}")
    return names


def _imported(vector: dict[str, Any]) -> Imported:
    config = {"feature_name": "f"} | {key: value for key, value in vector["config"].items() if key != "note"}
    entry: dict[str, Any] = config
    if config.get("is_sequence") and "item:" in str(config["expression"]):  # upstream's test puts it into a group
        group = {key: config.pop(key) for key in ("sequence_length", "sequence_delim")}
        entry = {"sequence_name": GROUP, **group, "features": [config]}
    given = {f"user.{name}": kind for name, kind in FIELD_TYPES.items() if name in vector["inputs"]}
    fg = json.dumps({"features": [entry]})
    return import_fg(fg, DialectName.PYFG, HASHES[vector.get("hash", "std")], field_types=given)


def _typed(value: Any, kind: FieldType, config: dict[str, Any]) -> Any:
    """An upstream input as a value of a native type."""
    if value is None or value == "" or value == []:
        return None
    separator = config.get("separator", "\x1d")
    name = kind.value
    if name.startswith("map<string,map"):
        outer = dict(one.split("^") for one in value.split("|"))
        return {key: _typed(inner, FieldType(name[11:-1]), {"separator": ","}) for key, inner in outer.items()}
    if name.startswith("map"):
        pairs = value if isinstance(value, dict | list) else value.split(separator)
        if not isinstance(pairs, dict):
            pairs = dict([*pair.split(":"), None][:2] for pair in pairs)
        inner = FieldType(name[11:-1])
        return {key: _typed(one, inner, {"separator": ","}) for key, one in pairs.items()}
    if config.get("is_sequence") and name.startswith("list"):
        elements = value.split("|" if "|" in value or "SeqExpr" in str(config) else config["sequence_delim"])
        inner = FieldType(name[5:-1])
        if not inner.value.startswith("list"):
            elements = [element.split(separator)[0] for element in elements]
        return [_typed(element, inner, {"separator": separator}) for element in elements]
    if name.startswith("list"):
        parts = value if isinstance(value, list) else str(value).split(separator)
        return [_typed(part, FieldType(name[5:-1]), config) for part in parts]
    return float(value) if name == "float" else str(value)


def _rows(vector: dict[str, Any], plan: Plan) -> list[dict[str, Any]]:
    types = {column.name: column.type for column in plan.inputs}
    rows: list[dict[str, Any]] = [{} for _ in next(iter(vector["inputs"].values()))]
    for name, values in vector["inputs"].items():
        column = next(c for c in types if c.rpartition(".")[2] in (name, f"{GROUP}__{name}"))
        for row, value in zip(rows, values, strict=True):
            row[column] = _typed(value, types[column], vector["config"])
    return rows


def _check(vector: dict[str, Any], results: Sequence[list[Any]]) -> None:
    expect = vector["expect"]
    sequence = "seq_lengths" in expect
    if sequence:
        assert [len(row) for row in results] == expect["seq_lengths"]
    elements = [element for row in results for element in row] if sequence else list(results)
    if "dense" in expect:
        vectors = [element if isinstance(element, list) else [element] for element in elements]
        assert vectors == [pytest.approx(value, rel=1e-6, abs=1e-7) for value in expect["dense"]]
        return
    groups = [element if isinstance(element, list) else [element] for element in elements]
    if "key_lengths" in expect:
        assert [len(group) for group in groups] == expect["key_lengths"]
    elif not sequence:
        assert "lengths" not in expect or [len(group) for group in groups] == expect["lengths"]
    flat = [one for group in groups for one in group]
    if "weights" in expect:
        wanted = list(zip(expect["values"], expect["weights"], strict=True))
        assert flat == [(one, pytest.approx(weight, rel=1e-6)) for one, weight in wanted]
    else:
        assert flat == expect["values"]


@pytest.mark.parametrize("vector", VECTORS, ids=_names())
def test_upstream_vector(vector: dict[str, Any]) -> None:
    plan = compile_plan(_imported(vector).spec)
    rows = _rows(vector, plan)
    (output,) = plan.outputs
    _check(vector, [compute_row(plan, row)[output.name] for row in rows])
    table = table_of(plan, rows)
    for backend in ("numpy", "numba"):
        features = Engine(plan, backend=backend).batch(table)
        _check(vector, [row_of(features, index)[output.name] for index in range(len(rows))])


def test_there_are_as_many_vectors_as_were_collected() -> None:
    assert len(VECTORS) == 61
