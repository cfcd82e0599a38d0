"""What a caller left out comes from the store: items of events with their lists, events with their own fields."""

from collections.abc import Mapping
from typing import Any

import pytest

from featuregen.compiler import compile_plan
from featuregen.spec import FeatureSpec
from kuberec_runtime.serve.breaker import Breaker
from kuberec_runtime.serve.gather import Complete, Gatherer
from kuberec_runtime.serve.items import ItemCache
from kuberec_runtime.serve.request import RankRequest, Sides

SPEC = FeatureSpec.model_validate(
    {
        "sources": {
            "user": {"key": "user_id", "fields": {"taste": "map<string,map<string,float>>"}},
            "item": {"key": "item_id", "fields": {"cate": "string", "words": "list<string>", "place": "list<float>"}},
            "behavior": {"clicks": {"fields": {"paid": "float", "unread": "string"}}},
        },
        "list": [
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
    "a": {"cate": "c1", "words": ["x", "y"], "place": [0.5, 1.5]},
    "b": {"cate": "c2", "words": "not a list", "place": [1]},
}


class Store:
    """Two items and one user, as `FeatureStore` returns them."""

    def __init__(self, **own: list[Any]) -> None:
        self._own = own

    def items(self, keys: list[str]) -> list[dict[str, Any] | None]:
        return [ITEMS.get(key) for key in keys]

    def snapshot(
        self, key: str, behaviors: Mapping[str, int], with_user: bool = True
    ) -> tuple[dict[str, Any] | None, dict[str, dict[str, list[Any]]]]:
        events = {"item": ["a", "nobody", "b"], "action": ["click"] * 3, "ts": [1, 2, 3]}
        return {"taste": {"c1": {"b1": 0.5}}}, {name: events | self._own for name in behaviors}


def complete(store: Store, behavior: dict[str, dict[str, list[Any]]] | None = None) -> Complete:
    plan = compile_plan(SPEC)
    sides = Sides.of(SPEC.sources, plan)
    breaker = Breaker()
    items = ItemCache(store, Gatherer.item_fields(plan, sides), breaker=breaker)  # type: ignore[arg-type]
    gatherer = Gatherer(plan, sides, store, items, breaker)  # type: ignore[arg-type]
    return gatherer.complete(RankRequest({"user_id": "u"}, ["b"], {}, {}, behavior, 9, 1))


def test_lists_of_the_items_of_events_are_joined_and_a_wrong_one_is_missing() -> None:
    found = complete(Store(paid=[1.0, None, 2.5]))
    clicks = found.behavior["clicks"]
    assert clicks["words"] == [["x", "y"], None, None]
    assert clicks["place"] == [[0.5, 1.5], None, [1.0]]
    assert found.user["taste"] == {"c1": {"b1": 0.5}}
    assert found.items.column("item.cate").to_pylist() == ["c2"]


@pytest.mark.parametrize(
    ("own", "paid"),
    [
        ({"paid": [1.0, None, 2.5]}, [1.0, None, 2.5]),
        ({}, [None, None, None]),
        ({"paid": [1, "much", 2]}, [1.0, None, 2.0]),
    ],
)
def test_own_fields_of_events_come_from_the_store(own: dict[str, list[Any]], paid: list[float | None]) -> None:
    assert complete(Store(**own)).behavior["clicks"]["paid"] == paid


def test_a_field_that_is_not_the_events_own_comes_from_its_item() -> None:
    assert complete(Store(words=[["z"], ["z"], ["z"]])).behavior["clicks"]["words"] == [["x", "y"], None, None]


def test_what_a_request_brings_of_its_events_is_kept() -> None:
    events = {"item": ["a"], "action": ["buy"], "ts": [5], "paid": [3.0], "words": [["own"]]}
    clicks = complete(Store(), {"clicks": events}).behavior["clicks"]
    assert (clicks["words"], clicks["paid"], clicks["place"]) == ([["own"]], [3.0], [[0.5, 1.5]])


def test_item_fields_are_those_of_candidates_and_of_events() -> None:
    plan = compile_plan(SPEC)
    assert sorted(Gatherer.item_fields(plan, Sides.of(SPEC.sources, plan))) == ["cate", "place", "words"]
