"""Records the golden log of `test_replay`: requests of a small world, and the raw events behind them.

    python -m tests.unit.featuregen.record_golden

Run it after a change of golden/features.yaml, or of what a feature means (then KERNEL_ABI is raised too), and look at
the difference of the recorded outputs before committing it: whatever changes here changes for every trained model.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from featuregen.compiler import compile_plan
from featuregen.digests import digests
from featuregen.engine import Engine
from featuregen.plan import Plan
from featuregen.snapshot import Snapshot, SnapshotFormat
from featuregen.spec import FeatureSpec

FOLDER = Path(__file__).with_name("golden")
REQUESTS, EVENTS = FOLDER / "requests.parquet", FOLDER / "events.parquet"
NOW = 1_790_000_000_000
HOUR = 3_600_000
USERS, ITEMS, CATES = 5, 40, 6
CANDIDATES = (9, 0, 6, 12)


def golden_spec() -> dict[str, Any]:
    return dict(yaml.safe_load((FOLDER / "features.yaml").read_text()))


def golden_plan() -> Plan:
    return compile_plan(FeatureSpec.model_validate(golden_spec()))


def item_fields(item: int) -> dict[str, Any]:
    return {
        "item_id": f"i{item}",
        "cate": None if item % 11 == 0 else f"c{item % CATES}",
        "tags": [f"t{item % 3}", None, f"t{item % 7}"][: item % 4],
        "price": None if item % 13 == 0 else item * 1.37,
    }


def user_fields(user: int) -> dict[str, Any]:
    preference = {f"c{cate}": 0.1 + cate / (user + 1) for cate in range(user)}
    return {
        "user_id": f"u{user}",
        "age": None if user == 1 else 20 + 7 * user,
        "gender": ["f", "m", None, "x", "f"][user],
        "cate_pref": preference,
    }


def events_of(random: np.random.Generator, user: int) -> list[dict[str, Any]]:
    """A user's events in order of arrival: some older than a day, some at the edges of windows, some of the future."""
    ages = np.sort(random.integers(1, 30 * HOUR, 30))[::-1].tolist()
    edges = [24 * HOUR + 1, 24 * HOUR, 6 * HOUR, 6 * HOUR, HOUR, HOUR + 1, 1, 0, -5]
    found = []
    for age in sorted([*ages, *edges], reverse=True):
        item = int(random.integers(ITEMS))
        action = ["click", "show", "buy"][int(random.integers(3))]
        cate = item_fields(item)["cate"]
        found.append({"user": f"u{user}", "item": f"i{item}", "action": action, "ts": NOW - age, "cate": cate})
    return found


def record(plan: Plan) -> tuple[pa.RecordBatch, pa.Table]:
    random, engine = np.random.default_rng(17), Engine(plan)
    snapshots, log = [], []
    for user in range(USERS):
        events = events_of(random, user)
        log += events
        for number, count in enumerate(CANDIDATES):
            keys = random.choice(ITEMS, count, replace=False).tolist()
            items = {name: [item_fields(key)[name] for key in keys] for name in item_fields(0)}
            now = NOW + number * HOUR // 2
            seen = [event for event in events if event["ts"] < now + 10]
            request = engine.request(
                user_fields(user) if number else {"user_id": f"u{user}"},
                pa.record_batch(
                    {
                        "item.item_id": pa.array(items["item_id"], pa.string()),
                        "item.cate": pa.array(items["cate"], pa.string()),
                        "item.tags": pa.array(items["tags"], pa.list_(pa.string())),
                        "item.price": pa.array(items["price"], pa.float64()),
                        "context.recall": pa.array([f"r{key % 2}" for key in keys], pa.string()),
                    }
                ),
                {"hour": number * 7},
                {"clicks": {name: [event[name] for event in seen] for name in ("item", "action", "ts", "cate")}},
                now,
            )
            features = engine.run(request)
            keyed = [f"i{key}" for key in keys]
            name = f"u{user}-{number}"
            snapshots.append(
                Snapshot(name, plan.digest, "1.1", f"u{user}", keyed, request, digests(features), features.columns)
            )
    return SnapshotFormat(plan).batch(snapshots), pa.Table.from_pylist(log)


if __name__ == "__main__":
    requests, events = record(golden_plan())
    pq.write_table(pa.Table.from_batches([requests]), REQUESTS, compression="zstd")
    pq.write_table(events, EVENTS, compression="zstd")
    print(f"{requests.num_rows} requests, {events.num_rows} events in {FOLDER}")
