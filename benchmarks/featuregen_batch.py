"""Training samples to the features of examples/feed.yaml: our `Engine.batch` vs Polars over the same Arrow table.

Polars joins and groups whole columns, as one would write a feature job: maps and events are exploded, filtered and
aggregated by sample. All numbers must be equal before anything is timed; ids differ by the hash function only. One core
each (POLARS_MAX_THREADS=1), in turns.

`python -m benchmarks.featuregen_batch [--smoke|--full]`; the last line is one JSON object.
"""

import os
from pathlib import Path
from typing import Any

os.environ.setdefault("POLARS_MAX_THREADS", "1")

import numpy as np
import polars as pl
import pyarrow as pa
import yaml

from benchmarks.measure import in_turns, options, print_result
from featuregen.compiler import compile_plan
from featuregen.engine import Engine, Features
from featuregen.schema import sample_schema
from featuregen.spec import FeatureSpec

SPEC = Path(__file__).parents[1] / "examples/feed.yaml"
NOW, HOUR, EVENTS, LENGTH = 1_790_000_000_000, 3_600_000, 50, 20
BOUNDS = pl.Series([5.0, 10.0, 20.0, 50.0, 100.0])


def make_samples(rng: np.random.Generator, schema: pa.Schema, count: int) -> pa.Table:
    """Samples with 20 preferences and 0 to 50 events each, oldest first."""
    rows: list[dict[str, Any]] = []
    for _ in range(count):
        events = int(rng.integers(0, EVENTS + 1))
        ages = np.sort(rng.integers(1, 30 * HOUR, events))[::-1]
        liked = rng.choice(200, 20, replace=False)
        rows.append(
            {
                "user.user_id": f"user_{rng.integers(0, 10**6)}",
                "user.age": int(rng.integers(15, 80)),
                "user.gender": str(rng.choice(["f", "m"])),
                "user.cate_pref": [
                    (f"cate_{n}", float(weight)) for n, weight in zip(liked, rng.random(20), strict=True)
                ],
                "item.item_id": f"item_{rng.integers(0, 10**7)}",
                "item.cate": f"cate_{rng.integers(0, 200)}",
                "item.brand": f"brand_{rng.integers(0, 5000)}",
                "item.price": float(rng.lognormal(3, 1)),
                "context.hour": int(rng.integers(0, 24)),
                "behavior.clicks.item": [f"item_{n}" for n in rng.integers(0, 10**7, events)],
                "behavior.clicks.cate": [f"cate_{n}" for n in rng.integers(0, 200, events)],
                "behavior.clicks.action": rng.choice(["click", "show"], events, p=[0.7, 0.3]).tolist(),
                "behavior.clicks.ts": (NOW - ages).tolist(),
                "now": NOW,
            }
        )
    return pa.Table.from_pylist(rows, schema=schema)


def as_frame(samples: pa.Table) -> pl.DataFrame:
    """The table as Polars has it: a map is a list of structs."""
    pairs = samples.schema.get_field_index("user.cate_pref")
    entry = pa.list_(pa.struct([("key", pa.string()), ("value", pa.float64())]))
    return pl.DataFrame(samples.set_column(pairs, "user.cate_pref", samples.column(pairs).cast(entry)))


def features(samples: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The features of each sample, and the sequences of those that have events."""
    numbered = samples.with_row_index("row")
    price, cate = pl.col("item.price"), pl.col("item.cate")
    liked = (
        numbered.select("row", "item.cate", "user.cate_pref")
        .explode("user.cate_pref")
        .unnest("user.cate_pref")
        .filter(pl.col("key") == cate)
        .select("row", pl.col("value").cast(pl.Float32).alias("u_cate"))
    )
    logs = ["behavior.clicks.item", "behavior.clicks.cate", "behavior.clicks.action", "behavior.clicks.ts"]
    names = {name: name.rpartition(".")[2] for name in logs}
    events = (
        numbered.select("row", "item.cate", "now", *logs)
        .filter(pl.col("behavior.clicks.ts").list.len() > 0)
        .explode(logs)
        .rename(names)
        .filter(
            (pl.col("ts") < pl.col("now")) & (pl.col("ts") >= pl.col("now") - 24 * HOUR) & (pl.col("action") == "click")
        )
    )
    same, age = pl.col("cate") == cate, pl.col("now") - pl.col("ts")
    counted = events.group_by("row", maintain_order=True).agg(
        *((same & (age <= hours * HOUR)).sum().cast(pl.Float32).alias(f"clk_cate_{hours}") for hours in (1, 6, 24)),
        *((age <= hours * HOUR).sum().cast(pl.Float32).alias(f"clk_all_{hours}") for hours in (1, 24)),
        (pl.col("item").tail(LENGTH).hash() % 1000003).alias("clk_seq__item_id"),
        (pl.col("cate").tail(LENGTH).hash() % 1009).alias("clk_seq__cate"),
    )
    made = numbered.select(
        "row",
        (pl.col("user.user_id").hash() % 1000003).alias("user_id"),
        (pl.col("user.gender").hash() % 16).alias("gender"),
        (pl.col("item.item_id").hash() % 1000003).alias("item_id"),
        (cate.hash() % 1009).alias("cate"),
        (pl.col("item.brand").hash() % 10007).alias("brand"),
        pl.col("context.hour").alias("hour"),
        pl.when(price > 0.01).then(price.log10()).otherwise(-2.0).cast(pl.Float32).alias("price"),
        (pl.concat_str([pl.col("user.age").cast(pl.String), cate], separator="_").hash() % 100003).alias("age_cate"),
    ).with_columns(BOUNDS.search_sorted(samples["item.price"], side="right").alias("price_b"))
    made = made.join(liked, on="row", how="left", maintain_order="left")
    made = made.join(counted, on="row", how="left", maintain_order="left")
    return made.with_columns(pl.col("^u_cate|clk_(all|cate)_.*$").fill_null(0.0)), counted


def check(ours: Features, theirs: pl.DataFrame) -> None:
    """Every number is the same; logarithms may differ in the last bit, since Polars has its own."""
    values = {name: column.values for name, column in ours.columns.items() if column.values is not None}
    assert np.allclose(values["price"][:, 0], theirs["price"].to_numpy(), rtol=1e-6)
    assert np.array_equal(values["u_cate"][:, 0], theirs["u_cate"].to_numpy())
    assert np.array_equal(values["clk_cate"], theirs.select("clk_cate_1", "clk_cate_6", "clk_cate_24").to_numpy())
    assert np.array_equal(values["clk_all"], theirs.select("clk_all_1", "clk_all_24").to_numpy())
    assert np.array_equal(ours.columns["price_b"].ids, theirs["price_b"].to_numpy())
    lengths = theirs["clk_seq__cate"].list.len().fill_null(0).to_numpy()
    assert np.array_equal(np.diff(ours.columns["clk_seq__cate"].offsets), lengths)


def main() -> None:
    """Measures and prints."""
    chosen = options(__doc__.splitlines()[0])
    count, seconds = (1024, 2.0) if chosen.smoke else (16384 if chosen.full else 4096, 20.0)
    spec = FeatureSpec.model_validate(next(yaml.safe_load_all(SPEC.read_text()))["spec"]["features"])
    plan = compile_plan(spec)
    engine = Engine(plan)
    samples = make_samples(np.random.default_rng(7), sample_schema(plan), count)
    frame = as_frame(samples)
    check(engine.batch(samples), features(frame)[0])
    times = in_turns({"ours": lambda: engine.batch(samples), "peer": lambda: features(frame)}, seconds)
    for name, timing in (("compiled plan", times["ours"]), ("Polars, 1 thread", times["peer"])):
        print(f"{name:20s}{count / timing.median:12,.0f} samples/s, best {count / timing.best:12,.0f}")
    print_result(
        "featuregen_batch", times["ours"], times["peer"], "ms", samples_per_s=round(count / times["ours"].median)
    )


if __name__ == "__main__":
    main()
