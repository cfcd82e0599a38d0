"""Items of the feature store in the replica's cache: when they are read, read again, and forgotten."""

from typing import Any

import msgpack
import numpy as np
import pyarrow as pa

from featuregen.compiler import compile_plan
from featuregen.spec import FeatureSpec
from kuberec_runtime.publish.errors import TierCorrupt, TierUnreachable
from kuberec_runtime.serve.ages import Ages
from kuberec_runtime.serve.breaker import Breaker
from kuberec_runtime.serve.items import ItemReader

SPEC = FeatureSpec.model_validate(
    {
        "sources": {"item": {"key": "item_id", "fields": {"cate": "string", "price": "float", "unread": "int"}}},
        "list": [
            {"name": "cate", "op": "id", "in": ["item.cate"], "encode": {"hashBuckets": 10}},
            {"name": "price", "op": "raw", "in": ["item.price"]},
        ],
    }
)
PLAN = compile_plan(SPEC)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Store:
    """Every item but `nobody`, all at one price."""

    def __init__(self) -> None:
        self.price, self.asked, self.down, self.gone = 1.0, list[list[str]](), False, {"nobody"}

    def packed_items(self, wanted: list[str]) -> list[bytes | None]:
        if self.down:
            raise TierUnreachable("down")
        self.asked.append(list(wanted))
        return [None if key in self.gone else self._packed(key) for key in wanted]

    def _packed(self, key: str) -> bytes:
        return b"\xc1" if key == "broken" else msgpack.packb({"cate": key.upper(), "price": self.price, "unread": "x"})

    def unpack_item(self, key: str, value: bytes) -> dict[str, Any]:
        if key == "broken":
            raise TierCorrupt("no map")
        return msgpack.unpackb(value)


def reader_of(store: Store, clock: Clock, **limits: int) -> ItemReader:
    return ItemReader(PLAN, SPEC.sources, store, refresh_s=30.0, breaker=Breaker(1, clock=clock), clock=clock, **limits)


def look(reader: ItemReader, *keys: str) -> tuple[list[Any], list[str]]:
    """Values of items, and the keys of those that are unknown."""
    items, unknown = reader.lookup(pa.array(keys, pa.string()))
    cate, price = reader.cache.read(items, ["item.cate", "item.price"])
    values = list(zip(cate.to_pylist(), price.to_pylist(), strict=True))
    return values, [key for key, missed in zip(keys, unknown, strict=True) if missed]


def test_items_are_read_once_and_unknown_ones_are_named() -> None:
    reader = reader_of(store := Store(), Clock())
    for _ in range(2):
        values, unknown = look(reader, "a", "nobody", "a")
        assert values == [("A", 1.0), (None, None), ("A", 1.0)] and unknown == ["nobody"]
    assert store.asked == [["a", "nobody"], ["nobody"]]


def test_an_item_that_was_unknown_is_seen_at_once() -> None:
    reader = reader_of(store := Store(), Clock())
    look(reader, "nobody")
    store.gone.clear()
    assert look(reader, "nobody") == ([("NOBODY", 1.0)], [])


def test_an_old_item_is_served_while_it_is_read_again() -> None:
    reader = reader_of(store := Store(), clock := Clock())
    look(reader, "a")
    clock.now, store.price = 31.0, 2.0
    assert look(reader, "a")[0] == [("A", 1.0)]
    assert len(store.asked) == 1, "the request did not wait for the store"
    reader.refresh()
    assert look(reader, "a")[0] == [("A", 2.0)]
    assert store.asked == [["a"], ["a"]]


def test_a_far_too_old_item_is_read_before_it_is_served() -> None:
    reader = reader_of(store := Store(), clock := Clock())
    look(reader, "a")
    clock.now, store.price = 61.0, 2.0
    assert look(reader, "a")[0] == [("A", 2.0)]


def test_an_item_that_is_gone_from_the_store_becomes_unknown() -> None:
    reader = reader_of(store := Store(), clock := Clock())
    look(reader, "a")
    store.gone.add("a")
    clock.now = 31.0
    look(reader, "a")
    reader.refresh()
    assert look(reader, "a") == ([(None, None)], ["a"])


def test_what_came_back_unchanged_makes_no_new_record() -> None:
    reader = reader_of(store := Store(), clock := Clock())
    look(reader, "a", "b")
    records = reader.cache.records
    for turn in range(1, 9):
        clock.now = 31.0 * turn
        look(reader, "a", "b")
        reader.refresh()
    assert len(store.asked) == 9 and reader.cache.records == records


def test_a_value_that_does_not_parse_is_missing_and_harms_no_other() -> None:
    reader = reader_of(Store(), Clock())
    assert look(reader, "broken", "a")[0] == [(None, None), ("A", 1.0)]


def test_items_nobody_asks_for_are_forgotten() -> None:
    reader = reader_of(Store(), clock := Clock())
    look(reader, "a", *(f"i{n}" for n in range(6000)))
    for turn in (31.0, 62.0, 93.0):
        clock.now = turn
        look(reader, "a", "b")
        reader.refresh()
    assert len(reader) == 2 and reader.cache.records < 10
    assert look(reader, "a", "b")[0] == [("A", 1.0), ("B", 1.0)]


def test_a_burst_forgets_what_was_least_asked_for_lately() -> None:
    reader = reader_of(Store(), clock := Clock(), capacity=100)
    for n in range(50):
        clock.now += 0.01
        look(reader, "a", "b", *(f"i{n}-{m}" for m in range(10)))
        assert len(reader) <= 200, "whatever a request brings"
    reader.refresh()
    assert len(reader) <= 75
    store_asked = len(reader._store.asked)
    assert look(reader, "a", "b", "i49-3")[1] == [] and len(reader._store.asked) == store_asked


def test_a_request_with_more_items_than_the_cache_may_keep_sees_them_all() -> None:
    reader = reader_of(Store(), Clock(), capacity=10)
    keys = [f"i{n}" for n in range(100)]
    values, unknown = look(reader, *keys)
    assert values == [(key.upper(), 1.0) for key in keys] and unknown == []
    assert len(reader) <= 20


def test_the_cache_is_bounded_in_bytes() -> None:
    reader = reader_of(Store(), Clock(), limit_bytes=1 << 20)
    for n in range(60):
        look(reader, *(f"{n}-{m}-" + "x" * 1000 for m in range(50)))
        assert reader.cache.nbytes < 3 << 20


def test_a_dead_store_makes_items_missing_and_known_ones_go_on() -> None:
    reader = reader_of(store := Store(), clock := Clock())
    look(reader, "a")
    store.down, clock.now = True, 61.0
    assert look(reader, "a", "b") == ([("A", 1.0), (None, None)], ["b"])
    reader.refresh()
    assert look(reader, "a")[0] == [("A", 1.0)]
    store.down, clock.now = False, 62.5
    assert look(reader, "b") == ([("B", 1.0)], [])


def test_what_is_worth_keeping_is_what_was_last_asked_for() -> None:
    ages = Ages.of(6)
    for at, code in enumerate((3, 1, 5, 2)):
        ages.asked_for(np.array([code], np.int32), 10.0 * at, 30.0)
    assert ages.worth_keeping(30.0, 60.0, 9).tolist() == [1, 2, 3, 5]
    assert ages.worth_keeping(30.0, 15.0, 9).tolist() == [2, 5]
    assert sorted(ages.worth_keeping(30.0, 60.0, 1).tolist()) == [2]
