"""Records the golden log of `test_replay`: requests of a small world to a model with every operator.

    python -m tests.unit.featuregen.record_golden

Run it after a change of every_operator.yaml, or of what a feature means (then KERNEL_ABI is raised too), and look at
what it prints before committing: an output whose served values have changed has changed for every trained model.
"""

from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from featuregen.compiler import compile_plan
from featuregen.engine import Engine
from featuregen.plan import Plan
from featuregen.replay.digests import digests
from featuregen.replay.files import open_file
from featuregen.replay.snapshot import Snapshot, SnapshotError, SnapshotFormat
from featuregen.spec import FeatureSpec
from tests.unit.featuregen.cases import request_of
from tests.unit.featuregen.random_specs import FILES

FOLDER = Path(__file__).with_name("golden")
SPEC = Path(__file__).with_name("every_operator.yaml")
REQUESTS = FOLDER / "requests.parquet"
NOW = 1_790_000_000_000
MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
USERS, ITEMS = 5, 40
CANDIDATES = (9, 0, 6, 12)

CATES, BRANDS, TAGS = ["shoes", "hats", "coats"], ["ada", "bob", "cy"], ["t1", "t2", "red", "sale"]
TITLES = ["Red shoes", "\uff28\uff21\uff34\u3000\u6f22\u5b57", "red hats sale", "", None]


def golden_spec() -> dict[str, Any]:
    return dict(yaml.safe_load(SPEC.read_text()))


def golden_plan() -> Plan:
    return compile_plan(FeatureSpec.model_validate(golden_spec()))


def item_fields(item: int) -> dict[str, Any]:
    cate = None if item % 11 == 0 else CATES[item % 3]
    return {
        "item_id": f"i{item}",
        "brand": BRANDS[item % 3 - item % 2],
        "cate": cate,
        "price": None if item % 13 == 0 else item * 5.37,
        "style": [item / 7, -0.25][: 1 + item % 5],
        "tags": [TAGS[item % 4], None, TAGS[item % 3]][: item % 4],
        "title": TITLES[item % 5],
        "topics": {cate: 0.75, "x": None} if cate else None,
    }


def user_fields(user: int) -> dict[str, Any]:
    weights = {name: 0.1 + index / (user + 1) for index, name in enumerate(CATES[: user + 1])}
    return {
        "user_id": f"u{user}",
        "age": None if user == 1 else 20 + 7 * user,
        "budget": [30.5, None, float("nan"), 0.0, 99.0][user],
        "city": ["rome", "bob", None, "", "Köln"][user],
        "clock": user * 2.5,
        "dwell": [0.5, None, 3.25, 40.0][:user],
        "groups": [["a", "b"], [], [None], ["c"]][:user],
        "labels": {"t1": "first", "red": "colour"},
        "langs": [["en"], ["de", "en"], None, ["fr", "de", "", "en"], []][user],
        "masks": [1, 0, None, 1][: user + 1],
        "names": {"shoes": {"ada": "A", "bob": ""}, "hats": {"cy": "C"}},
        "paths": [[1.0, 2.0], None, [3.0], [0.5, float("nan")]][:user],
        "prefs": weights,
        "query": [["red"], ["t1", "t2"], [], None, ["sale", "red", "red"]][user],
        "stats": {"shoes": {"ada": 1.5, "bob": None}, "hats": weights},
        "taste": [[0.5, 1.5], None, [float("nan"), 2.0], [1.0], [0.25, -3.0]][user],
        "vectors": {"t1": [1.0, 2.0], "red": [0.1, None], "sale": [1.0]},
    }


def events_of(random: Random, user: int) -> list[dict[str, Any]]:
    """A user's events in order of arrival: some older than a day, some at the edges of windows, some of the future."""
    edges = [DAY + 1, DAY, DAY - 1, HOUR + 1, HOUR, HOUR - 1, MINUTE + 1, MINUTE, MINUTE - 1, 1, 0, -5]
    found = []
    for age in sorted([*(random.randrange(1, 30 * HOUR) for _ in range(24)), *edges], reverse=True):
        item = random.randrange(ITEMS)
        own = {"paid": random.choice([None, 0.1, 2.5, 1e16]), "place": "home", "rank": random.choice([None, 3, 12])}
        joined = {name: item_fields(item)[name] for name in ("cate", "tags", "price")}
        action = random.choice(["click", "show", "buy"])
        found.append({"user": f"u{user}", "item": f"i{item}", "action": action, "ts": NOW - age, **own, **joined})
    return found


def record(plan: Plan) -> tuple[pa.RecordBatch, pa.Table]:
    """Returns the snapshots of some requests, with their outputs, and all events."""
    random, engine = Random(17), Engine(plan, FILES)
    snapshots, log = [], []
    for user in range(USERS):
        events = events_of(random, user)
        log += events
        for number, count in enumerate(CANDIDATES):
            keys = random.sample(range(ITEMS), count)
            now = NOW + number * HOUR // 2
            seen = [event for event in events if event["ts"] < now + 10]
            row = {f"user.{name}": value for name, value in user_fields(user).items() if number or name == "user_id"}
            row |= {f"behavior.clicks.{name}": [event[name] for event in seen] for name in log[0] if name != "user"}
            items = [{f"item.{name}": value for name, value in item_fields(key).items()} for key in keys]
            request = engine.request(**request_of(plan, {**row, "context.hour": number * 7, "now": now}, items))
            features = engine.run(request)
            shown, found = [f"i{key}" for key in keys], digests(features)
            name = f"u{user}-{number}"
            snapshots.append(Snapshot(name, plan.digest, "1.1", f"u{user}", shown, request, found, features.columns))
    return SnapshotFormat(plan).batch(snapshots), pa.Table.from_pylist(log)


def changed_outputs(plan: Plan, requests: pa.RecordBatch) -> list[str]:
    """Returns the outputs that were recorded before and have other values now."""
    try:
        before = open_file(str(REQUESTS)).read()
    except SnapshotError:
        return []
    old = [{one["name"]: one for one in row} for row in before.column("outputs").to_pylist()]
    new = [{one["name"]: one for one in row} for row in requests.column("outputs").to_pylist()]
    names = {output.name for output in plan.outputs} & (old[0].keys() if len(old) == len(new) else set())
    return sorted(name for name in names if any(repr(a[name]) != repr(b[name]) for a, b in zip(old, new, strict=True)))


if __name__ == "__main__":
    golden = golden_plan()
    recorded, events = record(golden)
    print("other values than before:", ", ".join(changed_outputs(golden, recorded)) or "none")
    FOLDER.mkdir(exist_ok=True)
    pq.write_table(pa.Table.from_batches([recorded]), REQUESTS, compression="zstd")
    print(f"{recorded.num_rows} requests of {len(golden.outputs)} outputs in {REQUESTS}")
