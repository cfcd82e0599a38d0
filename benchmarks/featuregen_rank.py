"""The features of examples/feed.yaml for one user and 1000 items: our compiled plan vs Polars eager, one core, one run.

The peer does the same work with Polars expressions over the same item columns; its ids come from its own hash, which
is faster than a portable one, so the comparison leans to its side. Dense outputs are compared before anything is timed.
Also measured: samples/s of `batch()` on the same plan, as the training workers use it.

`python -m benchmarks.featuregen_rank [--smoke|--full]`; the last line is one JSON object.
"""

import itertools
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("POLARS_MAX_THREADS", "1")

import numpy as np
import polars as pl
import pyarrow as pa
import yaml

from benchmarks.measure import options, print_result, summary
from featuregen.compiler import compile_plan
from featuregen.engine import Engine, Features
from featuregen.schema import sample_schema
from featuregen.spec import FeatureSpec

SPEC = Path(__file__).parents[1] / "examples/feed.yaml"
NOW = 1_790_000_000_000
HOUR = 3_600_000
BOUNDS = pl.Series([5.0, 10.0, 20.0, 50.0, 100.0])
Request = dict[str, Any]


def make_items(rng: np.random.Generator, count: int) -> pa.RecordBatch:
    """Item columns as a replica's cache holds them: `item.*`, one row per candidate."""
    return pa.RecordBatch.from_pydict(
        {
            "item.item_id": pa.array([f"item_{n}" for n in rng.integers(0, 10**7, count)]),
            "item.cate": pa.array([f"cate_{n}" for n in rng.integers(0, 200, count)]),
            "item.brand": pa.array([f"brand_{n}" for n in rng.integers(0, 5000, count)]),
            "item.price": pa.array(rng.lognormal(3, 1, count)),
        }
    )


def make_request(rng: np.random.Generator, events: int) -> Request:
    """One user with a logged behaviour, oldest first."""
    ages = np.sort(rng.integers(1, 30 * HOUR, events))[::-1]
    return {
        "user": {
            "user_id": f"user_{rng.integers(0, 10**6)}",
            "age": int(rng.integers(15, 80)),
            "gender": str(rng.choice(["f", "m"])),
            "cate_pref": {f"cate_{n}": float(rng.random()) for n in rng.choice(200, 20, replace=False)},
        },
        "context": {"hour": int(rng.integers(0, 24))},
        "behavior": {
            "clicks": {
                "item": [f"item_{n}" for n in rng.integers(0, 10**7, events)],
                "cate": [f"cate_{n}" for n in rng.integers(0, 200, events)],
                "action": [str(a) for a in rng.choice(["click", "show"], events, p=[0.7, 0.3])],
                "ts": (NOW - ages).tolist(),
            }
        },
        "now_ms": NOW,
    }


def rank_polars(items: pl.DataFrame, request: Request) -> tuple[pl.DataFrame, dict[str, Any]]:
    """The same features in Polars, eagerly: item and cross columns, and the user's side."""
    user, log, now = request["user"], request["behavior"]["clicks"], request["now_ms"]
    events = (
        pl.DataFrame(log)
        .filter(pl.col("ts") < now)
        .tail(50)
        .filter((pl.col("ts") >= now - 24 * HOUR) & (pl.col("action") == "click"))
    )
    counts = [(pl.col("ts") >= now - hours * HOUR).sum().cast(pl.Float32).alias(f"clk_{hours}") for hours in (1, 6, 24)]
    by_cate = events.group_by("cate").agg(counts)
    price, cate = pl.col("item.price"), pl.col("item.cate")
    pref = user["cate_pref"]
    columns = items.select(
        cate,
        (pl.col("item.item_id").hash() % 1000003).alias("item_id"),
        (cate.hash() % 1009).alias("cate"),
        (pl.col("item.brand").hash() % 10007).alias("brand"),
        pl.when(price > 0.01).then(price.log10()).otherwise(-2.0).cast(pl.Float32).alias("price"),
        (pl.concat_str([pl.lit(str(user["age"])), cate], separator="_").hash() % 100003).alias("age_cate"),
        cate.replace_strict(list(pref), list(pref.values()), default=0.0, return_dtype=pl.Float32).alias("u_cate"),
    )
    columns = columns.with_columns(BOUNDS.search_sorted(items["item.price"], side="right").alias("price_b"))
    columns = columns.join(by_cate, left_on="item.cate", right_on="cate", how="left", maintain_order="left")
    columns = columns.with_columns(pl.col("clk_1", "clk_6", "clk_24").fill_null(0.0))
    newest = events.tail(20)
    side = {
        "user_id": pl.Series([user["user_id"]]).hash() % 1000003,
        "gender": pl.Series([user["gender"]]).hash() % 16,
        "hour": request["context"]["hour"],
        "clk_all": events.select(counts[0], counts[2]).row(0),
        "clk_seq": (newest["item"].hash() % 1000003, newest["cate"].hash() % 1009),
    }
    return columns, side


def check(ours: Features, theirs: tuple[pl.DataFrame, dict[str, Any]]) -> None:
    """Both must have computed the same numbers (ids differ by the hash function only)."""
    columns, side = theirs
    values = {name: column.values for name, column in ours.columns.items() if column.values is not None}
    assert np.allclose(values["price"][:, 0], columns["price"].to_numpy(), rtol=1e-6)
    assert np.array_equal(values["u_cate"][:, 0], columns["u_cate"].to_numpy())
    assert np.array_equal(values["clk_cate"], columns.select("clk_1", "clk_6", "clk_24").to_numpy())
    assert values["clk_all"].tolist() == [list(side["clk_all"])]
    assert ours.columns["price_b"].ids.tolist() == columns["price_b"].to_list()
    assert len(ours.columns["clk_seq__item_id"].ids) == len(side["clk_seq"][0])


def timed(calls: list[Callable[[], object]], rounds: int) -> list[list[float]]:
    """Seconds of each call, taken in turns so that both sides see the same noise."""
    taken: list[list[float]] = [[] for _ in calls]
    for _ in range(rounds):
        for index, call in enumerate(calls):
            start = time.perf_counter()
            call()
            taken[index].append(time.perf_counter() - start)
    return taken


def make_samples(rng: np.random.Generator, schema: pa.Schema, count: int) -> pa.Table:
    """Training samples with 0 to 50 events each."""
    rows = []
    items = make_items(rng, count).to_pylist()
    for item in items:
        request = make_request(rng, int(rng.integers(0, 51)))
        row = {f"user.{k}": list(v.items()) if isinstance(v, dict) else v for k, v in request["user"].items()}
        row |= {f"behavior.clicks.{k}": v for k, v in request["behavior"]["clicks"].items()}
        rows.append(row | item | {"context.hour": request["context"]["hour"], "now": NOW})
    return pa.Table.from_pylist(rows, schema=schema)


def main() -> None:
    """Measures and prints."""
    chosen = options(__doc__.splitlines()[0])
    rounds = 20 if chosen.smoke else 3000 if chosen.full else 400
    rng = np.random.default_rng(7)
    spec = FeatureSpec.model_validate(next(yaml.safe_load_all(SPEC.read_text()))["spec"]["features"])
    plan = compile_plan(spec)
    engine = Engine(plan)
    items, requests = make_items(rng, 1000), [make_request(rng, 50) for _ in range(64)]
    frame = pl.DataFrame(pa.Table.from_batches([items]))
    for request in requests:
        check(engine.rank(items=items, **request), rank_polars(frame, request))
    turn = itertools.count()
    ours, peer = timed(
        [
            lambda: engine.rank(items=items, **requests[next(turn) // 2 % 64]),
            lambda: rank_polars(frame, requests[next(turn) // 2 % 64]),
        ],
        rounds,
    )
    samples = make_samples(rng, sample_schema(plan), 1024 if chosen.smoke else 4096)
    (batches,) = timed([lambda: engine.batch(samples)], max(10, rounds // 10))
    rate = samples.num_rows / summary(batches).median
    print(f"{'1 user x 1000 items':28s}{'p50 ms':>10s}{'p99 ms':>10s}{'best ms':>10s}")
    for name, seconds in (("compiled plan", ours), ("Polars eager, 1 thread", peer)):
        print(f"{name:28s}" + "".join(f"{1e3 * value:10.3f}" for value in np.percentile(seconds, [50, 99, 0])))
    print(f"batch(): {rate:,.0f} samples/s on one core, 0-50 events each; best {samples.num_rows / min(batches):,.0f}")
    print_result(
        "featuregen_rank",
        summary(ours),
        summary(peer),
        "ms",
        p50_ms=round(1e3 * float(np.percentile(ours, 50)), 4),
        p99_ms=round(1e3 * float(np.percentile(ours, 99)), 4),
        peer_p99_ms=round(1e3 * float(np.percentile(peer, 99)), 4),
        batch_samples_per_s=round(rate),
    )


if __name__ == "__main__":
    main()
