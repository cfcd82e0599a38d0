"""What a caller left out comes from the store: items of events with their lists, events with their own fields."""

from collections.abc import Mapping
from typing import Any

import msgpack
import numpy as np
import pyarrow as pa
import pytest

from featuregen.compiler import compile_plan
from featuregen.engine import Engine
from featuregen.replay.digests import digests
from featuregen.schema import arrow_type
from featuregen.spec import FeatureSpec
from kuberec_runtime.serve.breaker import Breaker
from kuberec_runtime.serve.complete import Complete
from kuberec_runtime.serve.gather import Gatherer
from kuberec_runtime.serve.items import ItemReader
from kuberec_runtime.serve.request import RankRequest, Sides

SPEC = FeatureSpec.model_validate(
    {
        "sources": {
            "user": {"key": "user_id", "fields": {"taste": "map<string,map<string,float>>"}},
            "item": {
                "key": "item_id",
                "fields": {"cate": "string", "words": "list<string>", "place": "list<float>", "weight": "float"},
            },
            "context": {"fields": {"hour": "int"}, "perItem": ["hour"]},
            "behavior": {"clicks": {"fields": {"paid": "float", "unread": "string"}}},
        },
        "list": [
            {"name": "item_id", "op": "id", "in": ["item.item_id"], "encode": {"hashBuckets": 1009}},
            {"name": "weight", "op": "raw", "in": ["item.weight"]},
            {"name": "hour", "op": "raw", "in": ["context.hour"]},
            {"name": "of_cate", "op": "window", "behavior": "clicks", "windows": ["1h"], "by": "item.cate"},
            {"name": "taste", "op": "match", "map": "user.taste", "pkey": "item.cate"},
            {
                "name": "paid",
                "op": "window",
                "behavior": "clicks",
                "windows": ["1h"],
                "agg": "sum",
                "value": "event.paid",
            },
            {
                "name": "read",
                "op": "sequence",
                "behavior": "clicks",
                "length": 9,
                "fields": [{"in": "item.words", "encode": {"hashBuckets": 10}}, {"in": "item.place", "dim": 2}],
            },
        ],
    }
)
ITEMS: dict[str, dict[str, Any]] = {
    "a": {"cate": "c1", "words": ["x", "y"], "place": [0.5, 1.5], "weight": 2},
    "b": {"cate": "c2", "words": "not a list", "place": [1], "weight": 0.25},
}


class Store:
    """Two items and one user, as `FeatureStore` returns them."""

    def __init__(self, **own: list[Any]) -> None:
        self._own = own

    def packed_items(self, keys: list[str]) -> list[bytes | None]:
        return [msgpack.packb(ITEMS[key]) if key in ITEMS else None for key in keys]

    def unpack_item(self, _key: str, value: bytes) -> dict[str, Any]:
        return msgpack.unpackb(value)

    def snapshot(
        self, key: str, behaviors: Mapping[str, int], with_user: bool = True
    ) -> tuple[dict[str, Any] | None, dict[str, dict[str, list[Any]]]]:
        events = {"item": ["a", "nobody", "b"], "action": ["click"] * 3, "ts": [1, 2, 3]}
        return {"taste": {"c1": {"b1": 0.5}}}, {name: events | self._own for name in behaviors}


PLAN = compile_plan(SPEC)
SIDES = Sides.of(SPEC.sources, PLAN)


def gatherer_of(store: Store) -> Gatherer:
    breaker = Breaker()
    return Gatherer(PLAN, SIDES, store, ItemReader(PLAN, SPEC.sources, store, breaker=breaker), breaker)


def complete(store: Store, behavior: dict[str, dict[str, list[Any]]] | None = None) -> Complete:
    return gatherer_of(store).complete(RankRequest({"user_id": "u"}, ["b"], {}, {}, behavior, 9, 1))


def columns_of(found: Complete) -> dict[str, list[Any]]:
    """What was read of a request, by column."""
    read, names = found.request(), [i.name for i in PLAN.inputs]
    shared = [name for name, i in zip(names, PLAN.inputs, strict=True) if not i.of_candidate]
    arrays = zip([*shared, *(n for n in names if n not in shared)], [*read.shared, *read.items], strict=True)
    return {name: array.to_pylist(maps_as_pydicts="lossy") for name, array in arrays}


def test_lists_of_the_items_of_events_are_joined_and_a_wrong_one_is_missing() -> None:
    found = columns_of(complete(Store(paid=[1.0, None, 2.5])))
    assert found["behavior.clicks.words"] == [[["x", "y"], None, None]]
    assert found["behavior.clicks.place"] == [[[0.5, 1.5], None, [1.0]]]
    assert found["user.taste"] == [{"c1": {"b1": 0.5}}]
    assert found["item.cate"] == ["c2"]


@pytest.mark.parametrize(
    ("own", "paid"),
    [
        ({"paid": [1.0, None, 2.5]}, [1.0, None, 2.5]),
        ({}, [None, None, None]),
        ({"paid": [1, "much", 2]}, [1.0, None, 2.0]),
    ],
)
def test_own_fields_of_events_come_from_the_store(own: dict[str, list[Any]], paid: list[float | None]) -> None:
    assert columns_of(complete(Store(**own)))["behavior.clicks.paid"] == [paid]


def test_a_field_that_is_not_the_events_own_comes_from_its_item() -> None:
    found = columns_of(complete(Store(words=[["z"], ["z"], ["z"]])))
    assert found["behavior.clicks.words"] == [[["x", "y"], None, None]]


def test_what_a_request_brings_of_its_events_is_kept() -> None:
    events = {"item": ["a"], "action": ["buy"], "ts": [5], "paid": [3.0], "words": [["own"]]}
    found = columns_of(complete(Store(), {"clicks": events}))
    assert found["behavior.clicks.words"] == [[["own"]]]
    assert found["behavior.clicks.paid"] == [[3.0]] and found["behavior.clicks.place"] == [[[0.5, 1.5]]]


KEYS = ["b", "nobody", "a", "", "b"]
GIVEN = {
    "keys": {},
    "some fields": {"item.cate": pa.array(["c9", "c1", None, "c2", "c1"])},
    "all fields": {
        "item.cate": pa.array(["c9", "c1", None, "c2", "c1"]),
        "item.weight": pa.array([0.5, None, 2.0, -1.0, 3.0]),
    },
}
EVENTS = {
    None: None,
    "with their fields": {"clicks": {"item": ["b", "a"], "action": ["buy"] * 2, "ts": [1, 2], "paid": [1.0, 2.0]}},
    "none": {},
}


@pytest.mark.parametrize("given", GIVEN)
@pytest.mark.parametrize("behavior", EVENTS)
def test_answers_and_digests_are_those_of_plain_items(given: str, behavior: str | None) -> None:
    """However items come, ranking and log agree with `Engine.rank` over what a caller would have sent of them."""
    events, engine = EVENTS[behavior], Engine(PLAN)
    columns = {"item.item_id": pa.array(KEYS), **GIVEN[given]}
    user = {"user_id": "u", "taste": {"c1": {"x": 0.5}, "c2": {"y": 1.5}}}
    request = RankRequest(user, KEYS, columns, {"hour": 3}, events, 9_000, len(KEYS))
    gatherer = gatherer_of(Store())
    for _ in range(2):  # read from the store, then found in the cache
        found = gatherer.complete(request)
        assert found.ranked_in_cache == (given == "keys")
        served = found.features(engine)
        assert np.array_equal(digests(served), digests(engine.run(found.request())))
        plain = engine.rank(user, plain_items(columns), {"hour": 3}, plain_events(events), 9_000)
        assert np.array_equal(digests(served), digests(plain))
        unknown = [] if given == "all fields" else ["nobody", ""]
        assert found.unknown_items == unknown


def plain_items(columns: dict[str, pa.Array]) -> pa.RecordBatch:
    known = [ITEMS.get(key, {}) for key in KEYS]
    whole = {
        "item.cate": pa.array([item.get("cate") for item in known], pa.string()),
        "item.weight": pa.array([item.get("weight") for item in known], pa.float64()),
        "context.hour": pa.array([3] * len(KEYS), pa.int64()),
    }
    return pa.RecordBatch.from_pydict({**whole, **columns})


def plain_events(events: dict[str, Any] | None) -> dict[str, Any]:
    clicks = {"item": ["a", "nobody", "b"], "action": ["click"] * 3, "ts": [1, 2, 3], "paid": [None] * 3}
    if events is not None:
        clicks = events.get("clicks") or {name: [] for name in clicks}
    items = [ITEMS.get(key, {}) for key in clicks["item"]]
    words = [item["words"] if isinstance(item.get("words"), list) else None for item in items]
    joined = {"words": words, "place": [item.get("place") for item in items], "cate": [i.get("cate") for i in items]}
    return {"clicks": clicks | joined}


def test_a_request_keeps_its_items_while_they_change_and_are_forgotten() -> None:
    """What is logged is what was ranked, however late it is written."""
    engine, gatherer = Engine(PLAN), gatherer_of(Store())
    request = RankRequest({"user_id": "u"}, ["a"], {}, {"hour": 1}, None, 9, 1)
    found = gatherer.complete(request)
    before = digests(found.features(engine))
    cache = found.cache
    assert cache is not None
    emptied = {i.name: pa.nulls(1, arrow_type(i)) for i in cache.inputs} | {"item.item_id": pa.array(["a"])}
    cache.put(pa.RecordBatch.from_pydict(emptied))
    now = digests(engine.rank_cached(found.shared, ["a"], {}, {}, 9, cache, pa.record_batch({"context.hour": [1]})))
    assert not np.array_equal(now, before)
    cache.compact(keep=cache.find([]))
    assert len(cache) == 0
    assert np.array_equal(digests(engine.run(found.request())), before)


def test_the_paths_of_every_plan_can_be_warmed() -> None:
    for found in gatherer_of(Store()).synthetic(2):
        features = found.features(Engine(PLAN))
        assert features.rows == 2
        assert np.array_equal(digests(features), digests(Engine(PLAN).run(found.request())))
