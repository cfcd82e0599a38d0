"""The item cache: ranking from it gives the bits that ranking the items themselves gives, whatever was put and when."""

import threading
from random import Random
from typing import Any

import pyarrow as pa
import pytest

from featuregen.engine import Engine, Features
from featuregen.errors import FeatureError
from featuregen.itemcache import ItemCache
from featuregen.schema import arrow_type
from featuregen.sources import Sources
from tests.unit.featuregen.cases import pairs_of, plan_of, request_of, row_of
from tests.unit.featuregen.random_rows import random_rows
from tests.unit.featuregen.random_specs import FILES, OPERATORS, SOURCES, random_plan

PARTS = ("rows", "ids", "offsets", "values", "weights", "elements", "element_offsets")
CODED = ["lookup", "match", "combo", "overlap", "id", "window", "sequence"]
SMALL: dict[str, Any] = {
    "user": {"key": "uid", "fields": {"likes": "map<string,float>"}},
    "item": {"key": "iid", "fields": {"cate": "string", "price": "float", "tags": "list<string>"}},
    "behavior": {"log": {}},
}
FEATURES: list[dict[str, Any]] = [
    {"name": "iid", "op": "id", "in": ["item.iid"], "encode": {"hashBuckets": 1000003}},
    {"name": "cate", "op": "id", "in": ["item.cate"], "encode": {"hashBuckets": 1009}},
    {"name": "tags", "op": "id", "in": ["item.tags"], "encode": {"hashBuckets": 1009}},
    {"name": "price", "op": "raw", "in": ["item.price"]},
    {"name": "cross", "op": "combo", "in": ["user.uid", "item.cate"], "encode": {"hashBuckets": 1009}},
    {"name": "likes", "op": "lookup", "map": "user.likes", "key": "item.cate"},
    {"name": "seen", "op": "window", "behavior": "log", "by": "item.cate", "windows": ["1h"]},
]
USER: dict[str, Any] = {
    "user": {"uid": "u", "likes": {"c1": 1.0, "c2": 2.0}},
    "context": {},
    "behavior": {"log": {"item": ["k1", "k2", "gone"], "ts": [1, 2, 3]}},
    "now_ms": 1000,
}


def _table(cache: ItemCache, rows: list[dict[str, Any]]) -> pa.Table:
    columns = {c.name: pa.array([pairs_of(row.get(c.name)) for row in rows], arrow_type(c)) for c in cache.inputs}
    return pa.table(columns)


def _same(left: Features, right: Features) -> None:
    assert list(left.columns) == list(right.columns)
    for name, column in left.columns.items():
        for part in PARTS:
            a, b = getattr(column, part), getattr(right.columns[name], part)
            if part == "rows" or a is None or b is None:
                assert a is b or a == b, (name, part)
            else:
                assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes()), (name, part)


@pytest.mark.parametrize("seed", range(12))
def test_a_ranking_from_the_cache_is_the_ranking_of_its_items(seed: int) -> None:
    for case in range(15):
        rng = Random(1000 * seed + case)
        plan, _ = random_plan(rng, CODED if case % 2 else list(OPERATORS))
        rows = random_rows(rng, plan, 6)
        known = {f"k{index}": row | {"item.iid": f"k{index}"} for index, row in enumerate(rows[:4])}
        cache = ItemCache(plan, Sources.model_validate(SOURCES), files=FILES)
        cache.put(_table(cache, list(known.values())))
        keys = ["k0", "k2", "unknown", "k3", "k0", "k1"]
        candidates = [
            {name: value for name, value in row.items() if not name.startswith("item.")}
            | {name: value for name, value in known.get(key, {}).items() if name.startswith("item.")}
            for key, row in zip(keys, rows, strict=True)
        ]
        engine = Engine(plan, files=FILES)
        request = request_of(plan, rows[0], candidates)
        expected = engine.rank(**request)
        items = request.pop("items")
        per_item = [column.name for column in plan.inputs if column.per_item]
        extra = items.select(per_item) if per_item else None
        _same(expected, engine.rank_cached(items=keys, cache=cache, per_item=extra, **request))
        _same(expected, engine.rank_cached(items=cache.find(keys), cache=cache, per_item=extra, **request))


def test_puts_deletes_and_compactions_leave_what_a_dict_would_have() -> None:
    rng, plan = Random(7), plan_of(SMALL, FEATURES)
    cache, engine = ItemCache(plan, Sources.model_validate(SMALL)), Engine(plan)
    model: dict[str, dict[str, Any]] = {}
    keys = [f"k{n}" for n in range(12)]
    for _ in range(60):
        chosen = rng.sample(keys, rng.randint(1, 6))
        kind = rng.random()
        if kind < 0.6:
            rows = [_item(key, rng.randint(0, 4)) for key in chosen]
            cache.put(_table(cache, rows))
            model |= {row["item.iid"]: row for row in rows}
        elif kind < 0.9:
            cache.delete(chosen)
            for key in chosen:
                model.pop(key, None)
        else:
            cache.compact()
        assert len(cache) == len(model)
        user = {"now": 1000} | {f"user.{k}": v for k, v in USER["user"].items()}
        user |= {f"behavior.log.{k}": v for k, v in USER["behavior"]["log"].items()}
        user["behavior.log.cate"] = [model.get(key, {}).get("item.cate") for key in USER["behavior"]["log"]["item"]]
        expected = engine.rank(**request_of(plan, user, [model.get(key, {}) for key in keys]))
        _same(expected, engine.rank_cached(items=keys, cache=cache, **USER))


def _item(key: str, version: int) -> dict[str, Any]:
    """All fields of a version go together, so that a mix of two can be seen."""
    return {"item.iid": key, "item.cate": f"c{version}", "item.price": float(version), "item.tags": [f"t{version}"] * 2}


def test_readers_see_the_old_item_or_the_new_one_while_it_is_put() -> None:
    plan = plan_of(SMALL, FEATURES)
    cache = ItemCache(plan, Sources.model_validate(SMALL), garbage=0.3)
    keys = [f"k{n}" for n in range(8)]
    cache.put(_table(cache, [_item(key, 0) for key in keys]))
    allowed = {}
    for version in range(5):
        row = row_of(Engine(plan).rank_cached(items=[f"v{version}"], cache=_cache_of(plan, version), **USER), 0)
        allowed[version] = (row["cate"], row["tags"])
    done = threading.Event()
    wrong: list[Any] = []

    def read() -> None:
        engine = Engine(plan)
        while not done.is_set():
            features = engine.rank_cached(items=keys, cache=cache, **USER)
            for index in range(len(keys)):
                row = row_of(features, index)
                if (row["cate"], row["tags"]) != allowed[int(row["price"][0])]:
                    wrong.append(row)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for version in range(1, 400):
        cache.put(_table(cache, [_item(key, version % 5) for key in keys]))
        if version % 50 == 0:
            cache.compact()
    done.set()
    for reader in readers:
        reader.join()
    assert not wrong


def _cache_of(plan: Any, version: int) -> ItemCache:
    cache = ItemCache(plan, Sources.model_validate(SMALL))
    cache.put(_table(cache, [_item(f"v{version}", version)]))
    return cache


def test_a_put_that_is_refused_changes_nothing() -> None:
    plan = plan_of(SMALL, FEATURES)
    cache = ItemCache(plan, Sources.model_validate(SMALL))
    cache.put(_table(cache, [_item("k1", 1)]))
    with pytest.raises(FeatureError, match="every item needs its key"):
        cache.put(_table(cache, [_item("k1", 2), _item("", 2)]))
    features = Engine(plan).rank_cached(items=["k1"], cache=cache, **USER)
    assert row_of(features, 0)["price"] == [1.0]


def test_a_put_that_fails_halfway_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Records of it are written already; those that come into their place have other numbers and maps."""
    sources = SMALL | {"item": {"key": "iid", "fields": SMALL["item"]["fields"] | {"map": "map<string,float>"}}}
    plan = plan_of(sources, [*FEATURES, {"name": "map", "op": "lookup", "map": "item.map", "key": "item.cate"}])
    cache = ItemCache(plan, Sources.model_validate(sources), keep_inputs=True)
    cache.put(_table(cache, [_item("k1", 1)]))
    with monkeypatch.context() as patch, pytest.raises(MemoryError):
        patch.setattr(cache._side, "ids", _out_of_memory)
        cache.put(_table(cache, [_item("k2", 2) | {"item.price": None, "item.map": {"lost": 1.0}}]))
    rows = [_item("k3", 3) | {"item.map": {"a": 1.0}}, _item("k4", 4) | {"item.map": {"b": 1.0}}]
    cache.put(_table(cache, rows))
    columns = ["item.price", "item.map", "item.tags"]
    read = cache.read(cache.find(["k3", "k2", "k4", "k1"]), columns)
    assert read[0].to_pylist() == [3.0, None, 4.0, 1.0]
    assert read[1].to_pylist() == [[("a", 1.0)], None, [("b", 1.0)], None]
    assert read[2].to_pylist() == [["t3"] * 2, None, ["t4"] * 2, ["t1"] * 2]


def _out_of_memory(*_: object) -> None:
    raise MemoryError


@pytest.mark.parametrize("seed", range(6))
def test_what_was_put_is_given_back(seed: int) -> None:
    """Also what only an item's own outputs are made of, after it was replaced, and after others were forgotten."""
    rng = Random(seed)
    for _ in range(10):
        plan, _ = random_plan(rng, list(OPERATORS))
        cache = ItemCache(plan, Sources.model_validate(SOURCES), files=FILES, keep_inputs=True)
        rows = [row | {"item.iid": f"k{index}"} for index, row in enumerate(random_rows(rng, plan, 6))]
        cache.put(_table(cache, rows[:4]))
        read = [column.name for column in plan.inputs if column.name.startswith("item.")]
        found = cache.find(["k2", "nobody", "k0", "k2"])
        cache.put(_table(cache, [rows[5] | {"item.iid": "k2"}, *rows[3:5]]))
        cache.compact(keep=cache.find(["k2"]))
        put = _table(cache, [rows[2], {}, rows[0], rows[2]])
        for name, array in zip(read, cache.read(found, read), strict=True):
            assert repr(array.to_pylist()) == repr(put.column(name).to_pylist()), name
            array.validate(full=True)
        assert cache.keys(found).to_pylist() == ["k2", None, "k0", "k2"]
        assert cache.keys(cache.find(["k0", "k2", "k4"])).to_pylist() == [None, "k2", None] and len(cache) == 1
        replaced = _table(cache, [rows[5] | {"item.iid": "k2"}])
        for name, array in zip(read, cache.read(cache.find(["k2"]), read), strict=True):
            assert repr(array.to_pylist()) == repr(replaced.column(name).to_pylist()), name


def test_items_that_were_found_before_a_compaction_cannot_be_kept_after_it() -> None:
    plan = plan_of(SMALL, FEATURES)
    cache = ItemCache(plan, Sources.model_validate(SMALL))
    cache.put(_table(cache, [_item("k1", 1)]))
    found = cache.find(["k1"])
    cache.compact()
    with pytest.raises(FeatureError, match="before a compaction"):
        cache.compact(keep=found)


def test_a_cache_of_another_plan_is_refused() -> None:
    plan, other = plan_of(SMALL, FEATURES), plan_of(SMALL, FEATURES[:2])
    cache = ItemCache(other, Sources.model_validate(SMALL))
    with pytest.raises(FeatureError, match="another plan"):
        Engine(plan).rank_cached(items=["k1"], cache=cache, **USER)
