"""One user with many candidates: what all rows share is indexed once, and the bits are those of row after row.

Random specs draw small maps and few rows; here are hundreds of entries, equal keys among them, and engines that serve
small and large calls in turn, and from two threads.
"""

from concurrent.futures import ThreadPoolExecutor
from random import Random
from typing import Any

import pytest

from featuregen.engine import Engine, Features
from featuregen.plan import Plan
from tests.unit.featuregen.cases import plan_of, request_of, row_of, table_of

SOURCES: dict[str, Any] = {
    "user": {
        "key": "uid",
        "fields": {
            "numbers": "map<string,float>",
            "names": "map<string,string>",
            "vectors": "map<string,list<float>>",
            "clicks": "map<string,map<string,float>>",
            "labels": "map<string,map<string,string>>",
            "words": "list<string>",
            "taste": "list<float>",
        },
    },
    "item": {
        "key": "iid",
        "fields": {"cate": "string", "brand": "string", "title": "list<string>", "topics": "map<string,float>"},
    },
    "behavior": {"log": {"fields": {"paid": "float"}}},
}
HASHED: dict[str, Any] = {"encode": {"hashBuckets": 2**40}}
OVERLAPS = ["query_common_ratio", "title_common_ratio", "is_contain", "is_equal", "index_of"]
OVERLAPS += ["proximity_min_cover", "proximity_min_dist", "proximity_max_dist", "proximity_avg_dist"]
FEATURES: list[dict[str, Any]] = [
    {"name": "number", "op": "lookup", "map": "user.numbers", "key": "item.title"},
    {"name": "each", "op": "lookup", "map": "user.numbers", "key": "item.title", "combiner": "none", "boundaries": [3]},
    {"name": "name", "op": "lookup", "map": "user.names", "key": "item.title", **HASHED},
    {"name": "vector", "op": "lookup", "map": "user.vectors", "key": "item.title", "dim": 3, "combiner": "mean"},
    {"name": "hit", "op": "match", "map": "user.clicks", "pkey": "item.cate", "skey": "item.title"},
    {"name": "of_cate", "op": "match", "map": "user.clicks", "pkey": "item.cate"},
    {"name": "of_brand", "op": "match", "map": "user.clicks", "skey": "item.brand", "combiner": "mean"},
    {"name": "all", "op": "match", "map": "user.clicks"},
    {"name": "label", "op": "match", "map": "user.labels", "pkey": "item.title", "skey": "item.brand", **HASHED},
    {"name": "shown", "op": "match", "map": "user.labels", "skey": "item.brand", "show": ["pkey"], **HASHED},
    {"name": "dot", "op": "kv_dot", "query": "user.numbers", "document": "item.topics"},
    {"name": "dot_of_item", "op": "kv_dot", "query": "item.topics", "document": "user.numbers"},
    {"name": "dot_of_words", "op": "kv_dot", "query": "item.title", "document": "user.words"},
    {"name": "crossed", "op": "combo", "in": ["user.words", "item.cate"], **HASHED},
    {"name": "topics", "op": "id", "in": ["item.topics"], "weighted": True, **HASHED},
    {"name": "clk", "op": "window", "behavior": "log", "by": "item.cate", "windows": ["1s", "1m"]},
]
FEATURES += [
    {"name": f"w_{agg}", "op": "window", "behavior": "log", "by": "item.brand", "windows": ["1s", "1m"], "agg": agg}
    | {"value": "event.paid"}
    for agg in ("sum", "avg", "min", "max", "last")
]
FEATURES += [
    {"name": method, "op": "overlap", "query": "user.words", "title": "item.title", "method": method}
    for method in OVERLAPS
]
FEATURES += [
    {"name": f"of_title_{method}", "op": "overlap", "query": "item.title", "title": "user.words", "method": method}
    for method in OVERLAPS
]
NOW = 1_000_000


def _plan() -> Plan:
    return plan_of(SOURCES, FEATURES)


def _rows(rng: Random, entries: int, count: int) -> list[dict[str, Any]]:
    """Candidates of one user, whose maps have `entries` entries and some keys twice."""
    words = [f"word {n}" for n in range(max(2, entries // 2))]

    def number() -> float | None:
        return rng.choice([None, float("nan"), rng.random(), -1.5, 1e30])

    def pairs(value: Any, size: int) -> list[tuple[str, Any]]:
        return [(rng.choice([*words, ""]), value()) for _ in range(size)]

    def some(size: int) -> list[str]:
        return [rng.choice(words) for _ in range(size)]

    few = max(1, entries // 20)
    user: dict[str, Any] = {
        "user.uid": "u",
        "user.numbers": pairs(number, entries),
        "user.names": pairs(lambda: rng.choice(["", None, "x", "y"]), entries),
        "user.vectors": pairs(lambda: [number() for _ in range(rng.choice([2, 3, 3, 3]))], entries),
        "user.clicks": pairs(lambda: rng.choice([None, pairs(number, few), pairs(number, entries)]), few),
        "user.labels": pairs(lambda: pairs(lambda: rng.choice(["a", "b", ""]), entries), few),
        "user.words": some(few),
        "behavior.log.ts": [NOW - rng.randrange(0, 120_000) for _ in range(entries)],
        "behavior.log.item": some(entries),
        "behavior.log.cate": some(entries),
        "behavior.log.brand": some(entries),
        "behavior.log.paid": [number() for _ in range(entries)],
        "now": NOW,
    }
    return [
        user
        | {
            "item.iid": f"i{n}",
            "item.cate": rng.choice([*words, "", None]),
            "item.brand": rng.choice(words),
            "item.title": [*some(rng.randrange(0, 12)), *user["user.words"][: rng.randrange(0, 3)]],
            "item.topics": pairs(number, rng.randrange(0, 12)),
        }
        for n in range(count)
    ]


def _all(features: Features, count: int) -> list[str]:
    return [repr(row_of(features, index)) for index in range(count)]


@pytest.mark.parametrize("backend", ["numba", "numpy"])
def test_a_ranking_of_many_is_the_batch_of_all(backend: Any) -> None:
    plan, rng = _plan(), Random(3)
    engine, reference = Engine(plan, backend=backend), Engine(plan, backend="numpy")
    for entries, count in ((400, 60), (3, 2), (60, 200), (0, 5)):
        rows = _rows(rng, entries, count)
        expected = _all(reference.batch(table_of(plan, rows)), count)
        assert _all(engine.rank(**request_of(plan, rows[0], rows)), count) == expected
        assert _all(engine.batch(table_of(plan, rows)), count) == expected


def test_engines_of_two_threads_do_not_disturb_each_other() -> None:
    plan, rng = _plan(), Random(4)
    cases = [_rows(rng, entries, count) for entries, count in ((300, 40), (5, 3), (80, 100), (0, 2))]
    tables = [table_of(plan, rows) for rows in cases]
    alone = Engine(plan, backend="numba")
    expected = [_all(alone.batch(table), table.num_rows) for table in tables]

    def serve(engine: Engine, offset: int) -> None:
        for turn in range(40):
            number = (turn + offset) % len(tables)
            assert _all(engine.batch(tables[number]), tables[number].num_rows) == expected[number]

    with ThreadPoolExecutor(2) as pool:
        engines = [Engine(plan, backend="numba") for _ in range(2)]
        for done in [pool.submit(serve, engine, offset) for offset, engine in enumerate(engines)]:
            done.result()


def test_no_rows_and_columns_of_nulls_are_taken_by_every_operator() -> None:
    plan = _plan()
    engine = Engine(plan, backend="numba")
    nothing: dict[str, Any] = {"now": NOW}
    assert engine.batch(table_of(plan, [])).rows == 0
    assert engine.rank(**request_of(plan, nothing, [])).rows == 0
    row = row_of(engine.batch(table_of(plan, [nothing, nothing])), 1)
    assert row == row_of(engine.rank(**request_of(plan, nothing, [nothing] * 3)), 2)
    assert (row["number"], row["each"], row["vector"], row["w_sum"]) == ([0.0], [], [0.0] * 3, [0.0, 0.0])
