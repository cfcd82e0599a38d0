"""Custom functions are found by name, called with rows or arrays, and held to what they declare."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from featuregen.engine import Engine
from featuregen.errors import FeatureError
from featuregen.oracle import compute_row
from tests.unit.featuregen.cases import Row, plan_of, request_of, row_of, table_of

SOURCES: dict[str, Any] = {
    "user": {
        "key": "uid",
        "fields": {"name": "string", "m": "map<string,float>", "mm": "map<string,map<string,float>>"},
    },
    "item": {"key": "iid", "fields": {"title": "string", "tags": "list<string>", "price": "float"}},
}
MODULE = """
import pyarrow as pa
import pyarrow.compute as pc
from featuregen.udf import batch

CALLS = []

def initials(name, tags, upper="no"):
    if name is None or tags is None:
        return None
    found = [word[0] for word in (name, *tags) if word]
    return [one.upper() for one in found] if upper == "yes" else found

def total(m, mm, price):
    return None if m is None else sum(m.values()) + sum(sum(i.values()) for i in (mm or {}).values()) + (price or 0)

def pair(price):
    return None if price is None else [price, int(price)]

@batch
def shout(names):
    CALLS.append(len(names))
    return pc.utf8_upper(names)

@batch
def short(names):
    return pa.array(["x"])

@batch
def no_array(names):
    return names.to_pylist()

@batch
def lists(prices):
    return pa.array([[1.0]] * len(prices))

def text(name):
    return 7

def single(price):
    return [1.0]

def flag(price):
    return True

def broken(name):
    return name.nothing

not_callable = 3
"""
NAMES = ["initials", "total", "pair", "shout", "short", "no_array", "lists", "text", "single", "flag", "broken"]
ENCODE = {"hashBuckets": 1000}


@pytest.fixture(autouse=True)
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package with entry points, as pip would install it."""
    (tmp_path / "udfs_of_a_test.py").write_text(MODULE)
    info = tmp_path / "udfs_of_a_test-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: udfs-of-a-test\nVersion: 1.0\n")
    points = [f"{name} = udfs_of_a_test:{name}" for name in [*NAMES, "not_callable"]] + ["absent = no_such_module:f"]
    (info / "entry_points.txt").write_text("[featuregen.udfs]\n" + "\n".join(points))
    monkeypatch.syspath_prepend(str(tmp_path))


def _custom(udf: str, refs: list[str], kind: str, **options: Any) -> dict[str, Any]:
    return {"name": "x", "op": "custom", "udf": udf, "in": refs, "type": kind, **options}


def _computed(feature: dict[str, Any], row: Row) -> Any:
    """What batch, ranking and oracle say, which must be one."""
    plan = plan_of(SOURCES, [feature])
    row = {"now": 0, **row}
    engine = Engine(plan, backend="numpy")
    found = row_of(engine.batch(table_of(plan, [row])), 0)["x"]
    assert row_of(engine.rank(**request_of(plan, row, [row])), 0)["x"] == found
    assert compute_row(plan, row)["x"] == found
    return found


def test_a_row_function_gets_values_and_parameters() -> None:
    feature = _custom(
        "initials",
        ["user.name", "item.tags"],
        "list<string>",
        encode={"vocab": ["A", "B"], "unknown": 9},
        parameters={"upper": "yes"},
    )
    assert _computed(feature, {"user.name": "ann", "item.tags": ["bob", "", None, "zoe"]}) == [0, 1, 9]


@pytest.mark.parametrize("row", [{"user.name": "", "item.tags": ["a"]}, {"user.name": "a", "item.tags": []}])
def test_empty_texts_and_lists_are_none(row: Row) -> None:
    feature = _custom("initials", ["user.name", "item.tags"], "list<string>", encode=ENCODE, default="d")
    assert _computed(feature, row) == _computed(feature, {"user.name": None, "item.tags": None})


def test_maps_are_dicts_and_nan_is_none() -> None:
    feature = _custom("total", ["user.m", "user.mm", "item.price"], "float", default=-1)
    row = {"user.m": {"a": 1.0}, "user.mm": {"x": {"b": 2.0, "c": 4.0}}, "item.price": float("nan")}
    assert _computed(feature, row) == [7.0]
    assert _computed(feature, {"user.m": {}}) == [-1.0]


def test_a_list_of_numbers_has_dim_numbers() -> None:
    feature = _custom("pair", ["item.price"], "list<float>", dim=2, default=0.5)
    assert _computed(feature, {"item.price": 2.5}) == [2.5, 2.0]
    assert _computed(feature, {"item.price": None}) == [0.5, 0.5]


def test_a_batch_function_gets_the_user_once_in_a_ranking() -> None:
    import udfs_of_a_test  # type: ignore[import-not-found]

    plan = plan_of(SOURCES, [_custom("shout", ["user.name"], "string", encode={"vocab": ["ANN"]})])
    row = {"now": 0, "user.name": "ann"}
    engine = Engine(plan, backend="numpy")
    udfs_of_a_test.CALLS.clear()
    assert row_of(engine.rank(**request_of(plan, row, [row] * 5)), 4)["x"] == [2]
    assert row_of(engine.batch(table_of(plan, [row] * 5)), 4)["x"] == [2]
    assert udfs_of_a_test.CALLS == [1, 5]


@pytest.mark.parametrize(
    ("feature", "problem"),
    [
        (_custom("text", ["user.name"], "string", encode=ENCODE), r"'text' returned int on row 0, its declared type"),
        (_custom("text", ["user.name"], "list<string>", encode=ENCODE), r"'text' returned int on row 0"),
        (_custom("flag", ["item.price"], "float"), r"'flag' returned bool on row 0, its declared type is float"),
        (_custom("single", ["item.price"], "list<float>", dim=2), r"'single' returned 1 numbers on row 0, dim is 2"),
        (_custom("lists", ["item.price"], "list<float>", dim=2), r"'lists' returned 1 numbers on row 0, dim is 2"),
        (
            _custom("lists", ["item.price"], "string", encode=ENCODE),
            r"'lists' returned list<.*>, its declared type is str",
        ),
        (_custom("short", ["user.name"], "string", encode=ENCODE), r"'short' returned 1 values for 2 rows"),
        (_custom("no_array", ["user.name"], "string", encode=ENCODE), r"'no_array' returned list"),
        (_custom("broken", ["user.name"], "string", encode=ENCODE), r"'broken' failed on row 0: AttributeError"),
        (
            _custom("edit_distance", ["user.name", "item.price"], "float"),
            r"'edit_distance' failed: ValueError.*two texts",
        ),
    ],
)
def test_what_a_function_does_wrong_is_said(feature: dict[str, Any], problem: str) -> None:
    plan = plan_of(SOURCES, [feature])
    rows = [{"user.name": "ann", "item.price": 1.0, "now": 0}] * 2
    with pytest.raises(FeatureError, match=rf"feature 'x': custom function {problem}"):
        Engine(plan, backend="numpy").batch(table_of(plan, rows))


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("edit_distanc", r"there is no custom function 'edit_distanc'\n.*did you mean 'edit_distance'"),
        (
            "absent",
            r"custom function 'absent' cannot be imported: ModuleNotFoundError.*\n.*no_such_module:f of udfs-of-a",
        ),
        ("not_callable", r"custom function 'not_callable' is no function, it is of type int"),
    ],
)
def test_a_function_that_is_not_there_is_refused_when_the_engine_starts(name: str, problem: str) -> None:
    plan = plan_of(SOURCES, [_custom(name, ["user.name"], "string", encode=ENCODE)])
    with pytest.raises(FeatureError, match=problem):
        Engine(plan, backend="numpy")


def test_results_may_be_of_types_that_cast_without_loss() -> None:
    from featuregen.sources import FieldType
    from featuregen.udf import call_udf

    array = call_udf("x", "edit_distance", [pa.array(["a"]), pa.array(["b"])], 1, FieldType.FLOAT, 1, {})
    assert (array.type, array.to_pylist()) == (pa.float64(), [1.0])
