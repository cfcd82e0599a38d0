"""Rankings of many cached items: whatever the lengths of texts and lists, the bits of ranking the items themselves.

Kernels take eight elements, rows or bytes at once where they can, so the lengths here lie around those.
"""

from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from featuregen.engine import Backend, Engine, Features
from featuregen.itemcache import ItemCache
from featuregen.items.table import COMBO, T_BUFFER, T_CAPACITY, T_KIND
from featuregen.sources import Sources
from featuregen.usercolumns import UserColumns
from tests.unit.featuregen.cases import plan_of, request_of
from tests.unit.featuregen.test_itemcache import _same, _table

SOURCES: dict[str, Any] = {
    "user": {
        "key": "uid",
        "fields": {
            "short": "string",
            "likes": "map<string,float>",
            "nested": "map<string,map<string,float>>",
            "words": "list<string>",
        },
    },
    "item": {
        "key": "iid",
        "fields": {"cate": "string", "brand": "string", "tags": "list<string>", "more": "list<string>"},
    },
    "behavior": {"log": {}},
}
HASHED = {"encode": {"hashBuckets": 1000003}}
KNOWN = {"default": 3}  # so that a share which is missing is not one that is 0
FEATURES: list[dict[str, Any]] = [
    {"name": "iid", "op": "id", "in": ["item.iid"], **HASHED},
    {"name": "cate", "op": "id", "in": ["item.cate"], "encode": {"hashBuckets": 2**40}},
    {"name": "tags", "op": "id", "in": ["item.tags"], "encode": {"hashBuckets": 1}},
    {"name": "more", "op": "id", "in": ["item.more"], "encode": {"identityBuckets": 50}, "default": "7"},
    {"name": "head", "op": "combo", "in": ["user.short", "item.cate"], **HASHED},
    {"name": "tail", "op": "combo", "in": ["item.brand", "user.short"], **HASHED},
    {"name": "both", "op": "combo", "in": ["user.uid", "item.cate", "user.short"], **HASHED},
    {"name": "mixed", "op": "combo", "in": ["user.short", "item.brand"], "combo": "mix", **HASHED},
    {"name": "likes", "op": "lookup", "map": "user.likes", "key": "item.cate", **KNOWN},
    {"name": "of_tags", "op": "lookup", "map": "user.likes", "key": "item.tags", "combiner": "max"},
    {"name": "pairs", "op": "match", "map": "user.nested", "pkey": "item.cate", "skey": "item.brand"},
    {
        "name": "counted",
        "op": "match",
        "map": "user.nested",
        "pkey": "item.cate",
        "skey": "item.brand",
        "combiner": "count",
    },
    {
        "name": "of_words",
        "op": "overlap",
        "query": "user.words",
        "title": "item.tags",
        "method": "query_common_ratio",
        **KNOWN,
    },
    {
        "name": "of_title",
        "op": "overlap",
        "query": "user.words",
        "title": "item.more",
        "method": "title_common_ratio",
        **KNOWN,
    },
    {
        "name": "one_word",
        "op": "overlap",
        "query": "user.words",
        "title": "item.cate",
        "method": "query_common_ratio",
        **KNOWN,
    },
    {"name": "seen", "op": "window", "behavior": "log", "by": "item.cate", "windows": ["1s", "1h"]},
    {"name": "clicked", "op": "window", "behavior": "log", "actions": ["click"], "by": "item.cate", "windows": ["1h"]},
    {"name": "again", "op": "window", "behavior": "log", "by": "item.iid", "windows": ["1h"]},
]
ACTIONS = ["click", "show", None]


def _text(rng: Random) -> str:
    return "".join(rng.choice("abé中") for _ in range(rng.randint(1, 21)))


def _words(rng: Random, most: int, whole: bool) -> list[str | None] | None:
    if not whole and rng.random() < 0.1:
        return None
    rare = [] if whole else [None, "", "no number"]
    return [rng.choice([*rare, str(rng.randint(0, 49))]) for _ in range(rng.randint(0, most))]


def _item(rng: Random, number: int, cates: list[str], whole: bool) -> dict[str, Any]:
    """One of few categories, a brand of its own, and lists that are whole or have missing and empty elements."""
    return {
        "item.iid": f"k{number}" * rng.randint(1, 4),
        "item.cate": rng.choice(cates),
        "item.brand": rng.choice([_text(rng), None, ""]),
        "item.tags": _words(rng, 20, whole),
        "item.more": _words(rng, 9, whole),
    }


def _user(rng: Random, items: list[dict[str, Any]]) -> dict[str, Any]:
    events = [rng.choice(items) for _ in range(rng.randint(0, 40))]
    known = [item["item.cate"] or "" for item in items] + [str(n) for n in range(0, 50, 3)]
    brands = [item["item.brand"] for item in items if item["item.brand"]] + ["b"]
    return {
        "now": 10_000_000,
        "user.uid": _text(rng),
        "user.short": rng.choice(["x" * rng.randint(1, 17), None]),
        "user.likes": {rng.choice(known): rng.random() for _ in range(30)},
        "user.nested": {rng.choice(known): {rng.choice(brands): rng.random() for _ in range(8)} for _ in range(20)},
        "user.words": _words(rng, rng.choice([3, 200]), False),
        "behavior.log.item": [item["item.iid"] for item in events],
        "behavior.log.cate": [item["item.cate"] for item in events],
        "behavior.log.action": [rng.choice(ACTIONS) for _ in events],
        "behavior.log.ts": sorted(10_000_000 - rng.randint(-1000, 4_000_000) for _ in events),
    }


@pytest.mark.parametrize("hash_", ["farm64", "std64"])
@pytest.mark.parametrize("backend", ["numba", "numpy"])
@pytest.mark.parametrize("whole", [True, False])
def test_many_items_of_the_cache_rank_as_they_are(whole: bool, backend: Backend, hash_: str) -> None:
    plan = plan_of(SOURCES, FEATURES, hash_)
    engine = Engine(plan, backend=backend)
    for seed in range(6):
        rng = Random(seed)
        cates = [_text(rng) for _ in range(rng.choice([3, 60]))] + ([] if whole else ["", None])
        items = [_item(rng, number, cates, whole) for number in range(rng.choice([1, 7, 8, 9, 90]))]
        cache = ItemCache(plan, Sources.model_validate(SOURCES), backend=backend)
        cache.put(_table(cache, items))
        for _ in range(3):
            user = _user(rng, items)
            chosen = [rng.choice([{}, *items]) for _ in range(rng.choice([0, 1, 8, 70]))]
            keys = [item.get("item.iid", "unknown") for item in chosen]
            request = request_of(plan, user, chosen)
            expected = engine.rank(**request)
            request.pop("items")
            _same(expected, engine.rank_cached(items=keys, cache=cache, **request))
            _same(expected, _of_a_batch(engine, request, keys, cache))


def _of_a_batch(engine: Engine, request: dict[str, Any], keys: list[str], cache: ItemCache) -> Features:
    """The ranking of a user who comes as one Arrow row, of keys that are a part of a larger array."""
    columns = UserColumns([column for column in engine.plan.inputs if not column.of_candidate])
    arrays = columns.arrays(request["user"], request["context"], request["behavior"], request["now_ms"])
    user = pa.RecordBatch.from_arrays(arrays, [column.name for column in columns.columns])
    several = pa.concat_batches([user, user, user]).slice(1, 1)
    part = pa.array(["nobody", *keys, "nobody"]).slice(1, len(keys))
    return engine.rank_cached(several, part, {}, {}, request["now_ms"], cache)


def test_lists_that_are_no_longer_whole_keep_what_was_put_before() -> None:
    rng, plan = Random(3), plan_of(SOURCES, FEATURES)
    cache, engine = ItemCache(plan, Sources.model_validate(SOURCES)), Engine(plan)
    items = [_item(rng, number, ["c1", "c2"], True) for number in range(20)]
    for more in (items, [_item(rng, number, ["c1", "c2", None], False) for number in range(20, 40)]):
        cache.put(_table(cache, more))
        items = [*items, *(item for item in more if item not in items)]
        request = request_of(plan, _user(rng, items), items)
        expected = engine.rank(**request)
        request.pop("items")
        _same(expected, engine.rank_cached(items=[item["item.iid"] for item in items], cache=cache, **request))


@pytest.mark.parametrize("columns", [["item.brand", "user.short"], ["user.short", "item.brand"]])
@pytest.mark.parametrize("size", [6, 40, 400, 440, 480, 700, 900, 1000])
def test_a_combo_writes_no_further_than_its_buffer(columns: list[str], size: int) -> None:
    plan = plan_of(SOURCES, [{"name": "f", "op": "combo", "in": columns, **HASHED}])
    engine, cache = Engine(plan), ItemCache(plan, Sources.model_validate(SOURCES))
    item = {"item.iid": "k", "item.brand": "b" * 30}
    cache.put(_table(cache, [item]))
    request = request_of(plan, {"now": 1, "user.short": "x" * size}, [item])
    expected = engine.rank(**request)
    request.pop("items")
    engine.rank_cached(items=["k"], cache=cache, **request | {"user": {"short": "y"}})
    assert engine._ranking is not None and engine._ranking._computing is not None
    table = engine._ranking._computing._table
    guarded = np.full(8192, 0xAB, np.uint8)
    (step,) = np.flatnonzero(table[:, T_KIND] == COMBO)
    table[step, T_BUFFER], capacity = guarded.ctypes.data, int(table[step, T_CAPACITY])
    _same(expected, engine.rank_cached(items=["k"], cache=cache, **request))
    assert capacity == 1024 and (guarded[capacity:] == 0xAB).all()
