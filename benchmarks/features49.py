"""The 49 features that the feature benchmarks compute, and synthetic items, users and requests for them.

A catalogue with skewed attributes, users with preference maps of 60 to 200 entries and 200 events of the last 26 hours.
Everything comes from seeds, so that two processes measure the same.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from featuregen.compiler import compile_plan
from featuregen.plan import Plan
from featuregen.spec import FeatureSpec

NOW = 1_790_000_000_000
HOUR = 3_600_000
EVENTS = 200
ITEM_IDS = {
    "item_id": 1_000_003,
    "cate": 1009,
    "brand": 10007,
    "shop": 100003,
    "level": 17,
    "city": 503,
    "author": 100003,
}
LISTS = {"tags": 10007, "title": 20011, "channels": 101}
USER_IDS = {
    "user_id": 1_000_003,
    "gender": 5,
    "age_group": 17,
    "home": 503,
    "device": 10007,
    "os": 11,
    "job": 101,
    "rank": 17,
}
USER_NUMBERS = ["age", "days", "active", "ctr"]
BOUNDARIES = {
    "price": [10, 20, 50, 100, 200, 500, 1000],
    "duration": [5, 10, 20, 40, 80],
    "age_days": [1, 7, 30, 90, 365],
}
COMBOS = {
    "age_cate": ("age_group", "cate"),
    "gender_brand": ("gender", "brand"),
    "home_shop": ("home", "shop"),
    "rank_level": ("rank", "level"),
    "user_cate": ("user_id", "cate"),
    "job_author": ("job", "author"),
}
COMBO_BUCKETS = 1_000_003
LOOKUPS = {"like_cate": "cate", "like_brand": "brand", "like_shop": "shop"}
MATCHES = {"like_cate_brand": ("cate", "brand"), "like_cate_level": ("cate", "level")}
OVERLAPS = {
    "in_title": ("query", "title", "query_common_ratio"),
    "in_tags": ("interests", "tags", "title_common_ratio"),
}
COUNTERS = {
    "cate_1h": ("cate", "click", 1),
    "cate_24h": ("cate", "click", 24),
    "brand_24h": ("brand", "click", 24),
    "shown_24h": ("item_id", "show", 24),
}
TOTALS = {"clicks_1h": 1, "clicks_24h": 24}
LENGTH = 50


def spec() -> FeatureSpec:
    """Returns the spec of the 49 features."""
    texts = {name: "string" for name in (*ITEM_IDS, *USER_IDS)}
    user = {name: "string" for name in USER_IDS if name != "user_id"} | {name: "float" for name in USER_NUMBERS}
    user |= {name: "map<string,float>" for name in LOOKUPS}
    user |= {name: "map<string,map<string,float>>" for name in MATCHES} | {
        "query": "list<string>",
        "interests": "list<string>",
    }
    item = {name: texts[name] for name in ITEM_IDS if name != "item_id"} | {name: "list<string>" for name in LISTS}
    item |= {name: "float" for name in (*BOUNDARIES, "ctr_1d", "ctr_7d")}
    return FeatureSpec.model_validate(
        {
            "hash": "farm64",
            "sources": {
                "user": {"key": "user_id", "fields": user},
                "item": {"key": "item_id", "fields": item},
                "behavior": {"clicks": {"maxEvents": 1000, "maxAge": "24h"}},
            },
            "list": _features(),
        }
    )


def plan() -> Plan:
    """Returns the compiled plan."""
    return compile_plan(spec())


def _features() -> list[dict[str, Any]]:
    def hashed(buckets: int) -> dict[str, Any]:
        return {"encode": {"hashBuckets": buckets}}

    made = [{"name": n, "op": "id", "in": [f"item.{n}"], **hashed(b)} for n, b in (ITEM_IDS | LISTS).items()]
    made += [{"name": n, "op": "raw", "in": [f"item.{n}"], "boundaries": b} for n, b in BOUNDARIES.items()]
    made += [
        {"name": "ctr_1d", "op": "raw", "in": ["item.ctr_1d"], "normalizer": {"kind": "log10", "threshold": 1e-10}},
        {
            "name": "ctr_7d",
            "op": "raw",
            "in": ["item.ctr_7d"],
            "normalizer": {"kind": "zscore", "mean": 0.05, "stddev": 0.02},
        },
    ]
    made += [
        {"name": n, "op": "combo", "in": [f"user.{a}", f"item.{b}"], **hashed(COMBO_BUCKETS)}
        for n, (a, b) in COMBOS.items()
    ]
    made += [{"name": f"u_{n}", "op": "lookup", "map": f"user.{n}", "key": f"item.{k}"} for n, k in LOOKUPS.items()]
    made += [
        {"name": f"u_{n}", "op": "match", "map": f"user.{n}", "pkey": f"item.{a}", "skey": f"item.{b}"}
        for n, (a, b) in MATCHES.items()
    ]
    made += [
        {"name": n, "op": "overlap", "query": f"user.{q}", "title": f"item.{t}", "method": m}
        for n, (q, t, m) in OVERLAPS.items()
    ]
    window = {"op": "window", "behavior": "clicks"}
    made += [
        {"name": n, **window, "actions": [a], "by": f"item.{k}", "windows": [f"{h}h"]}
        for n, (k, a, h) in COUNTERS.items()
    ]
    made += [{"name": n, **window, "actions": ["click"], "windows": [f"{h}h"]} for n, h in TOTALS.items()]
    made += [{"name": f"user_{n}", "op": "id", "in": [f"user.{n}"], **hashed(b)} for n, b in USER_IDS.items()]
    made += [{"name": f"user_{n}", "op": "raw", "in": [f"user.{n}"]} for n in USER_NUMBERS]
    fields = [
        {"in": "item.item_id", "like": "item_id"},
        {"in": "item.cate", "like": "cate"},
        {"name": "age_s", "expr": "(now - ts) / 1000"},
    ]
    sequence = {"name": "recent", "op": "sequence", "behavior": "clicks", "actions": ["click"], "length": LENGTH}
    return [*made, {**sequence, "fields": fields}]


def _skewed(rng: np.random.Generator, count: int, distinct: int) -> Any:
    return np.minimum((rng.pareto(1.2, count) * distinct / 20).astype(np.int64), distinct - 1)


def _names(prefix: str, numbers: Sequence[int]) -> list[str]:
    return [f"{prefix}{number}" for number in numbers]


def _lists(rng: np.random.Generator, prefix: str, count: int, least: int, most: int, values: Any) -> pa.Array:
    """Lists of distinct words."""
    ends = np.cumsum(rng.integers(least, most, count))
    words = _names(prefix, values(int(ends[-1])).tolist())
    starts = [0, *ends[:-1].tolist()]
    return pa.array([list(dict.fromkeys(words[a:b])) for a, b in zip(starts, ends.tolist(), strict=True)])


def make_items(count: int, seed: int = 7) -> pa.RecordBatch:
    """Returns a catalogue: a row for each item, with the columns that the plan reads."""
    rng = np.random.default_rng(seed)
    columns: dict[str, Any] = {
        "item_id": _names("i", (np.arange(count) + 10_000_000).tolist()),
        "cate": _names("c", _skewed(rng, count, 500).tolist()),
        "brand": _names("b", _skewed(rng, count, 5000).tolist()),
        "shop": _names("s", _skewed(rng, count, 20000).tolist()),
        "level": _names("p", rng.integers(0, 10, count).tolist()),
        "city": _names("t", _skewed(rng, count, 300).tolist()),
        "author": _names("a", _skewed(rng, count, 50000).tolist()),
        "price": np.round(rng.lognormal(4, 1, count), 2),
        "duration": rng.lognormal(3, 1, count),
        "age_days": rng.integers(0, 900, count).astype(float),
        "ctr_1d": rng.beta(1, 30, count),
        "ctr_7d": rng.beta(2, 60, count),
        "tags": _lists(rng, "g", count, 2, 7, lambda n: rng.integers(0, 3000, n)),
        "title": _lists(rng, "w", count, 4, 11, lambda n: _skewed(rng, n, 10000)),
        "channels": _lists(rng, "h", count, 1, 4, lambda n: rng.integers(0, 50, n)),
    }
    return pa.RecordBatch.from_pydict({f"item.{name}": pa.array(values) for name, values in columns.items()})


def make_request(number: int, items: pa.RecordBatch, count: int) -> dict[str, Any]:
    """Returns a user with events (user, behavior, context, now_ms) and the rows of `count` candidates (rows)."""
    rng = np.random.default_rng(1000 + number)

    def some(prefix: str, count: int, distinct: int) -> list[str]:
        return _names(prefix, np.unique(_skewed(rng, 3 * count, distinct))[:count].tolist())

    def weights(keys: Sequence[str], most: int) -> dict[str, float]:
        return {key: float(rng.integers(1, most)) for key in keys}

    user: dict[str, Any] = {
        "user_id": f"u{5_000_000 + number}",
        "gender": "fm"[number % 2],
        "age_group": f"L{number % 9}",
        "home": f"t{number % 300}",
        "device": f"dev{number % 4000}",
        "os": f"o{number % 4}",
        "job": f"oc{number % 40}",
        "rank": f"v{number % 7}",
        "age": float(18 + number % 50),
        "days": float(number % 2000),
        "active": float(number % 7),
        "ctr": (number % 100) / 1000,
        "like_cate": weights(some("c", 60, 500), 50),
        "like_brand": weights(some("b", 100, 5000), 50),
        "like_shop": weights(some("s", 100, 20000), 50),
        "like_cate_brand": {key: weights(some("b", 8, 5000), 9) for key in some("c", 15, 500)},
        "like_cate_level": {key: weights(_names("p", range(5)), 9) for key in some("c", 20, 500)},
        "query": some("w", 8, 10000),
        "interests": _names("g", rng.permutation(3000)[:20].tolist()),
    }
    stamps = np.sort(NOW - rng.integers(0, 26 * 3600, EVENTS) * 1000)
    seen = pa.array(rng.integers(0, items.num_rows, EVENTS))
    log: dict[str, Any] = {
        name: items.column(f"item.{name}").take(seen).to_pylist() for name in ("item_id", "cate", "brand")
    }
    log["item"] = log.pop("item_id")
    log |= {"action": rng.choice(["show", "click", "buy"], EVENTS, p=[0.6, 0.35, 0.05]).tolist(), "ts": stamps.tolist()}
    rows = rng.choice(items.num_rows, count, replace=False)
    return {"user": user, "behavior": {"clicks": log}, "context": {}, "now_ms": NOW, "rows": rows}


def as_batch(plan: Plan, request: Mapping[str, Any]) -> pa.RecordBatch:
    """Returns the user's side of a request as one Arrow row, as a snapshot or a feature store holds it."""
    from featuregen.usercolumns import UserColumns

    columns = UserColumns([column for column in plan.inputs if not column.of_candidate])
    arrays = columns.arrays(request["user"], request["context"], request["behavior"], request["now_ms"])
    return pa.RecordBatch.from_arrays(arrays, [column.name for column in columns.columns])
