"""Random specs on random inputs: the oracle, a batch and a ranking give the same bits."""

import os
from typing import Any

import numpy as np
import pyarrow as pa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from featuregen.engine import Engine
from featuregen.oracle import compute_row
from tests.unit.featuregen.cases import plan_of, request_of, row_of, table_of

NOW = 1_790_000_000_000
SOURCES: dict[str, Any] = {
    "user": {
        "key": "uid",
        "fields": {
            "s": "string",
            "i": "int",
            "f": "float",
            "ls": "list<string>",
            "li": "list<int>",
            "m": "map<string,float>",
        },
    },
    "item": {
        "key": "iid",
        "fields": {
            "s": "string",
            "i": "int",
            "f": "float",
            "ls": "list<string>",
            "li": "list<int>",
            "m": "map<string,float>",
        },
    },
    "context": {
        "fields": {"s": "string", "i": "int", "f": "float", "p": "int", "ps": "list<string>"},
        "perItem": ["p", "ps"],
    },
    "behavior": {"log": {"maxEvents": 4, "maxAge": "10s"}},
}
TEXTS = ["a", "b", "1", "2", "07", "é中", "x" * 40, "y" * 70, "", None]
INTS = [0, 1, 2, 7, -1, 10, 2**62, -(2**63), None]
FLOATS = [0.0, -0.0, 0.5, 1.0, 2.5, 1e-12, 1e300, float("inf"), float("nan"), None]
IDS = ["user.s", "user.i", "user.ls", "user.li", "user.uid", "item.s", "item.i", "item.ls", "item.li", "item.iid"]
IDS += ["context.s", "context.i", "context.p", "context.ps"]
NUMBERS = ["user.i", "user.f", "item.i", "item.f", "context.i", "context.f", "context.p"]
VALUES = {
    "string": st.sampled_from(TEXTS),
    "int": st.sampled_from(INTS),
    "float": st.sampled_from(FLOATS),
    "list<string>": st.none() | st.lists(st.sampled_from(TEXTS), max_size=3),
    "list<int>": st.none() | st.lists(st.sampled_from(INTS), max_size=3),
    "map<string,float>": st.none()
    | st.dictionaries(st.sampled_from(["a", "b", "1", "07", "", "x" * 40]), st.sampled_from(FLOATS), max_size=5),
}


def _some(strategy: Any) -> Any:
    return st.none() | strategy


def _made(**fields: Any) -> Any:
    """A feature from strategies; None leaves a field out."""
    return st.fixed_dictionaries(fields).map(_tidy)


def _tidy(fields: dict[str, Any]) -> dict[str, Any]:
    made = {name.rstrip("_"): value for name, value in fields.items() if value is not None}
    if "identityBuckets" in made.get("encode", {}) and made.get("default") == "a":
        made["default"] = "1"
    return made


ENCODERS = st.one_of(
    st.builds(lambda n: {"hashBuckets": n}, st.sampled_from([1, 7, 2**47])),
    st.builds(lambda n: {"identityBuckets": n}, st.sampled_from([8, 2**47])),
    st.builds(
        lambda w: {"vocab": w},
        st.lists(st.sampled_from(["a", "b", "1", "07", "z"]), min_size=1, max_size=4, unique=True),
    ),
)
NORMALIZERS = st.sampled_from(
    [
        {"kind": "log10"},
        {"kind": "log10", "threshold": 0.6, "default": -5},
        {"kind": "zscore", "mean": 0.1, "stddev": 3},
        {"kind": "minmax", "min": 0.1, "max": 0.6},
    ]
)
BOUNDARIES = st.lists(st.sampled_from([-1.0, 0.0, 0.5, 1.0, 2.5]), max_size=4, unique=True).map(sorted)
TEXT_DEFAULT = _some(st.sampled_from(["a", "1", 3, ""]))
NUMBER_DEFAULT = _some(st.sampled_from([0, 0.5, -3.25]))
ACTIONS = _some(st.lists(st.sampled_from(["click", "buy"]), min_size=1, unique=True))
FEATURES = st.one_of(
    _made(op=st.just("id"), in_=st.sampled_from(IDS).map(lambda x: [x]), encode=ENCODERS, default=TEXT_DEFAULT),
    _made(
        op=st.just("combo"),
        in_=st.lists(st.sampled_from(IDS), min_size=2, max_size=3),
        encode=st.sampled_from([{"hashBuckets": 13}, {"hashBuckets": 2**47}]),
        combo=_some(st.sampled_from(["concat", "mix"])),
        default=TEXT_DEFAULT,
    ),
    _made(
        op=st.just("raw"),
        in_=st.sampled_from(NUMBERS).map(lambda x: [x]),
        normalizer=_some(NORMALIZERS),
        default=NUMBER_DEFAULT,
        boundaries=_some(BOUNDARIES),
    ),
    _made(
        op=st.just("lookup"),
        map=st.sampled_from(["user.m", "item.m"]),
        key=st.sampled_from(IDS),
        combiner=_some(st.sampled_from(["sum", "mean", "min", "max", "count"])),
        normalizer=_some(NORMALIZERS),
        default=NUMBER_DEFAULT,
        boundaries=_some(BOUNDARIES),
    ),
    _made(
        op=st.just("window"),
        behavior=st.just("log"),
        actions=ACTIONS,
        by=_some(st.sampled_from(["item.iid", "item.s", "item.i"])),
        windows=st.sampled_from([["1s"], ["1s", "2s"], ["500ms", "2s", "10s"]]),
    ),
    _made(
        op=st.just("sequence"),
        behavior=st.just("log"),
        actions=ACTIONS,
        length=st.integers(1, 4),
        default=_some(st.sampled_from(["1", 2])),
        fields=st.lists(
            st.fixed_dictionaries({"in": st.sampled_from(["item.iid", "item.s", "item.i"]), "encode": ENCODERS}),
            min_size=1,
            max_size=2,
            unique_by=lambda field: field["in"],
        ),
    ),
)


@st.composite
def _rows(draw: Any, count: int) -> list[dict[str, Any]]:
    """The user's columns are equal in all rows, so that the same rows are also one ranking request."""

    def fields(source: str, names: Any) -> dict[str, Any]:
        types = SOURCES[source]["fields"]
        return {f"{source}.{name}": draw(VALUES[types[name]], label=name) for name in names}

    events = draw(st.integers(0, 7))
    ages = st.sampled_from([-1, 0, 1, 500, 501, 999, 1000, 1001, 2000, 2001, 10_000, 10_001])
    user: dict[str, Any] = {"now": NOW, "user.uid": draw(st.sampled_from(["u", "", None]))}
    user |= fields("user", SOURCES["user"]["fields"]) | fields("context", ["s", "i", "f"])

    def log(values: Any) -> Any:
        whole = st.lists(values, min_size=events, max_size=events)
        return draw(st.one_of(whole, whole, whole, st.none(), st.lists(values, max_size=3)))

    user["behavior.log.ts"] = draw(
        st.none() | st.lists(ages.map(lambda age: NOW - age), min_size=events, max_size=events)
    )
    user["behavior.log.action"] = log(st.sampled_from(["click", "buy", "", None]))
    user["behavior.log.item"] = log(st.sampled_from(TEXTS))
    user["behavior.log.s"] = log(st.sampled_from(TEXTS))
    user["behavior.log.i"] = log(st.sampled_from(INTS))
    rows = []
    for _ in range(count):
        item = {"item.iid": draw(st.sampled_from(TEXTS))} | fields("item", SOURCES["item"]["fields"])
        rows.append(user | item | fields("context", ["p", "ps"]))
    return rows


def _bits(row: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Floats as their float32 bits, so that -0.0, infinities and NaN are compared exactly."""
    return {
        k: np.array(v, np.float32).view(np.uint32).tolist() if v and isinstance(v[0], float) else v
        for k, v in row.items()
    }


@settings(
    max_examples=int(os.environ.get("FEATUREGEN_EXAMPLES", "120")),
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
)
@given(st.lists(FEATURES, min_size=1, max_size=4), st.sampled_from(["farm64", "std64"]), _rows(3), st.integers(0, 2))
def test_oracle_batch_and_rank_agree_bit_for_bit(
    features: list[dict[str, Any]], hash: str, rows: list[dict[str, Any]], skipped: int
) -> None:
    plan = plan_of(SOURCES, [{"name": f"f{index}"} | feature for index, feature in enumerate(features)], hash)
    expected = [_bits(compute_row(plan, row)) for row in rows]
    table = table_of(plan, rows)
    engine = Engine(plan)
    batch = engine.batch(table)
    assert [_bits(row_of(batch, index)) for index in range(3)] == expected
    part = engine.batch(pa.concat_tables([table, table]).combine_chunks().slice(skipped, 3))
    assert [_bits(row_of(part, index)) for index in range(3)] == [expected[(skipped + i) % 3] for i in range(3)]
    ranked = engine.rank(**request_of(plan, rows[0], rows))
    assert [_bits(row_of(ranked, index)) for index in range(3)] == expected
    assert {name: column.rows for name, column in ranked.columns.items()} == {
        o.name: 1 if o.side == "user" else 3 for o in plan.outputs
    }
