"""One user and 500 candidates over HTTP: our replica vs the stack that one writes first (`naive_serving`), one run.

Both servers are up at the same time, each in a Ray of its own, on the same Redis, model, rows and requests; load goes
to them in turns. Reported: p50 and p99 of one client, requests/s of eight, and the dense network alone, which nobody
can beat. Answers are compared before anything is timed.

`python -m benchmarks.serve_rank [--smoke|--full]`; the last line is one JSON object.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import yaml

from benchmarks.measure import in_turns, options
from featuregen.compiler import compile_plan
from featuregen.engine import Engine
from kuberec_api.layout import build_layout
from kuberec_api.model import RecModel
from kuberec_api.serving import RecServing
from kuberec_api.training import RecTraining, RowType
from kuberec_runtime.models.embed import plan_lookup
from kuberec_runtime.publish.featurestore import Event, FeatureStore
from kuberec_runtime.publish.publication import Description, Publication, TableMeta, Version
from kuberec_runtime.publish.tier import Tier
from kuberec_runtime.serve.local import free_port, start_serving
from kuberec_runtime.table.buckets import split_key

sys.path.insert(0, str(Path(__file__).parents[1] / "devcluster"))
from kuberec_devcluster.services import Redis

EXAMPLE = Path(__file__).parents[1] / "examples/feed.yaml"
NOW, CANDIDATES = 1_790_000_000_000, 500
START_S = 400.0  # a bound for crowded machines; 20 s each on an idle one


def documents(url: str) -> dict[str, Any]:
    """The example's resources with a network of a production model's size and this Redis."""
    found = {d["kind"]: d for d in yaml.safe_load_all(EXAMPLE.read_text())}
    spec = found["RecModel"]["spec"]
    spec["network"]["params"]["hiddenUnits"] = [512, 256, 128]
    spec["embeddings"]["defaults"]["dim"] = 16
    spec["embeddings"].pop("tables")
    found["RecTraining"]["spec"]["publish"]["redis"]["url"] = url
    return found


def items(count: int) -> dict[str, dict[str, Any]]:
    """Items by key."""
    rng = np.random.default_rng(1)
    return {
        f"item_{n}": {"cate": f"cate_{n % 200}", "brand": f"brand_{n % 3000}", "price": float(rng.lognormal(3, 1))}
        for n in range(count)
    }


def publish(model: RecModel, url: str, stock: dict[str, dict[str, Any]], users: int) -> tuple[str, Any]:
    """Fills feature store and tier; returns the namespace and the network."""
    from kuberec_runtime.models.network import Network

    rng = np.random.default_rng(2)
    plan = compile_plan(model.spec.features)
    layout, engine = build_layout(model.spec, plan), Engine(plan)
    keys = list(stock)
    table = pa.record_batch(
        {
            "item.item_id": pa.array(keys),
            **{f"item.{f}": pa.array([stock[k][f] for k in keys]) for f in ("brand", "cate", "price")},
        }
    )
    store, needed = FeatureStore(url), [np.zeros(0, np.int64)]
    store.put_items(stock)
    for n in range(users):
        user = {"age": 15 + n % 60, "gender": "fm"[n % 2], "cate_pref": {f"cate_{n % 200}": 1.0}}
        seen = [keys[i] for i in rng.integers(0, len(keys), 50)]
        store.put_users({f"user_{n}": user})
        store.append_behavior(
            "clicks", [Event(f"user_{n}", k, "click", NOW - 60_000 * (50 - i)) for i, k in enumerate(seen)]
        )
        behavior = {
            "item": seen,
            "action": ["click"] * 50,
            "ts": [NOW - 1] * 50,
            "cate": [stock[k]["cate"] for k in seen],
        }
        features = engine.rank({"user_id": f"user_{n}", **user}, table, {"hour": 12}, {"clicks": behavior}, NOW)
        needed += plan_lookup(layout, features).keys.values()
        needed = [np.unique(np.concatenate(needed))]
    tier = Tier(url)
    namespace = tier.namespace_of(plan.digest, {n: t.width for n, t in layout.tables.items()}, RowType.FLOAT32)
    ordinals, ids = split_key(needed[0])
    for name, t in layout.tables.items():
        mine = ids[ordinals == t.ordinal]
        rows = rng.standard_normal((mine.size, t.width)).astype(np.float32) * np.float32(0.1)
        tier.write_rows(namespace, name, mine, rows, RowType.FLOAT32)
    network = Network(model.spec, layout)
    tables = {n: TableMeta(t.ordinal, t.width, t.linear) for n, t in layout.tables.items()}
    about = Description(Version(1, 1), plan.digest, "farm64", RowType.FLOAT32, tables, ("click",), NOW, NOW)
    tier.commit(Publication(namespace, about, network.named(network.dense())))
    return namespace, network


def bodies(stock: dict[str, dict[str, Any]], users: int, count: int) -> list[bytes]:
    """Requests: a random user and 500 candidates, popular ones more often."""
    rng = np.random.default_rng(3)
    keys = np.array(list(stock))
    out = []
    for _ in range(count):
        chosen = keys[np.unique(rng.zipf(1.2, 20 * CANDIDATES) % len(keys))][:CANDIDATES]
        chosen = rng.permutation(np.concatenate([chosen, rng.choice(keys, CANDIDATES - chosen.size)]))
        body = {"user": {"user_id": f"user_{rng.integers(users)}"}, "items": chosen.tolist()}
        out.append(json.dumps({**body, "context": {"hour": 12}, "now": NOW}).encode())
    return out


def load(port: int, path: str, file: Path, concurrency: int, seconds: float) -> dict[str, float]:
    """Runs the load generator."""
    command = [sys.executable, "-m", "benchmarks.http_load", str(port), path, str(file), str(concurrency), str(seconds)]
    done = subprocess.run(command, capture_output=True, check=True, cwd=Path(__file__).parents[1])
    found: dict[str, float] = json.loads(done.stdout)
    if found["failed"]:
        raise RuntimeError(f"{found['failed']:.0f} requests to port {port} failed")
    return found


def post(port: int, path: str, body: bytes) -> Any:
    """One request, decoded."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", body, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read())


def main() -> None:
    """Measures and prints."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    chosen = options(__doc__)
    users, stock = 100, items(2000 if chosen.smoke else 10_000)
    seconds, rounds = (0.5, 1) if chosen.smoke else (5.0, 5) if chosen.full else (2.0, 3)
    with tempfile.TemporaryDirectory() as folder_, Redis() as server:
        folder = Path(folder_)
        found = documents(server.url)
        model = RecModel.model_validate(found["RecModel"])
        namespace, network = publish(model, server.url, stock, users)
        requests = bodies(stock, users, 64)
        (folder / "bodies").write_bytes(b"\n".join(requests))
        (folder / "naive.json").write_text(
            json.dumps({"model": found["RecModel"], "url": server.url, "namespace": namespace})
        )
        serving = RecServing.model_validate(found["RecServing"])
        training = RecTraining.model_validate(found["RecTraining"])
        with start_serving(serving, model, training, folder, timeout_s=START_S) as running:
            naive_port = free_port()
            naive = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.naive_serving", str(folder / "naive.json"), str(naive_port)],
                stdout=subprocess.DEVNULL,
                stderr=(folder / "naive.log").open("wb"),
                cwd=Path(__file__).parents[1],
            )
            try:
                measure(running.url, naive_port, folder / "bodies", requests, network, seconds, rounds, naive)
            finally:
                naive.terminate()
                naive.wait(30)


def measure(
    url: str,
    naive_port: int,
    file: Path,
    requests: list[bytes],
    network: Any,
    seconds: float,
    rounds: int,
    naive: subprocess.Popen[bytes],
) -> None:
    """Compares answers, then puts load on both in turns and prints the figures."""
    port, path = int(url.rsplit(":", 1)[1]), "/v1/models/feed:rank"
    deadline = time.monotonic() + START_S
    while True:
        try:
            theirs = post(naive_port, "/rank", requests[0])
            break
        except OSError:
            if time.monotonic() > deadline or naive.poll() is not None:
                raise
            time.sleep(0.2)
    mine = post(port, path, requests[0])
    assert not mine["missing"], mine["missing"]
    assert np.allclose(mine["scores"]["click"], theirs["scores"]["click"], atol=1e-5)
    x = np.random.default_rng(0).standard_normal((CANDIDATES, network.layout.dimension)).astype(np.float32)
    load(port, path, file, 1, min(seconds, 2.0))
    ours, peer, dense = [], [], []
    for _ in range(rounds):
        ours.append((load(port, path, file, 1, seconds), load(port, path, file, 8, seconds)))
        peer.append((load(naive_port, "/rank", file, 1, seconds), load(naive_port, "/rank", file, 8, seconds)))
        dense.append(in_turns({"dense": lambda: network.score(x)}, min(seconds, 1.0))["dense"].median * 1e3)

    def middle(runs: list[Any], which: int, figure: str) -> float:
        return float(np.median([r[which][figure] for r in runs]))

    alone = float(np.median(dense))
    print(f"{'1 user x 500 candidates, JSON':34s}{'p50 ms':>9s}{'p99 ms':>9s}{'req/s, 8 clients':>18s}")
    for label, runs in (("KubeRec", ours), ("Serve proxy, redis-py, predict", peer)):
        p50, p99, rate = middle(runs, 0, "p50_ms"), middle(runs, 0, "p99_ms"), middle(runs, 1, "per_s")
        print(f"{label:34s}{p50:9.2f}{p99:9.2f}{rate:18.0f}")
    print(f"{'the dense network alone, 1 thread':34s}{alone:9.2f}")
    rates = [r[1]["per_s"] for r in ours]
    print(
        json.dumps(
            {
                "name": "serve_rank",
                "ours": round(middle(ours, 1, "per_s"), 1),
                "peer": round(middle(peer, 1, "per_s"), 1),
                "unit": "requests/s",
                "ratio": round(middle(ours, 1, "per_s") / middle(peer, 1, "per_s"), 2),
                "n": int(sum(r[1]["n"] for r in ours)),
                "spread": round((max(rates) - min(rates)) / middle(ours, 1, "per_s"), 3),
                "p50_ms": round(middle(ours, 0, "p50_ms"), 3),
                "p99_ms": round(middle(ours, 0, "p99_ms"), 3),
                "peer_p50_ms": round(middle(peer, 0, "p50_ms"), 3),
                "dense_ms": round(alone, 3),
                "p50_over_dense": round(middle(ours, 0, "p50_ms") / alone, 2),
            }
        )
    )


if __name__ == "__main__":
    main()
