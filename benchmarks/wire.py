"""The data plane against Ray actor calls: 37k unique rows of 16 weights from two shard processes, pulled and pushed.

All sides hold the same tables in processes of their own, split keys by bucket and merge rows in order; only the way
between differs: our frames over TCP on loopback, our frames through shared memory, or numpy arrays through Ray actor
calls. The peer does what we do with NumPy arrays: it asks both actors before it waits, and merges their answers from
where Ray has put them. Keys come grouped by shard, as training's always do (`models.embed.plan_lookup`), which
spares either side the split and the merge; the ratio is that of grouped keys on both sides. The calls that are not
named "grouped", and the figures named "ungrouped", are of keys that come sorted.
Gates: the pull is at least 8 times faster over TCP and 20 times through shared memory.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial

import numpy as np

from benchmarks.measure import in_turns, options, print_result
from benchmarks.table_step import zipf_batches
from kuberec_api.model import Initializer, SparseOptimizer
from kuberec_api.training import DenseOptimizer, RowType
from kuberec_runtime.table import Table, shard_of
from kuberec_runtime.wire import Shard, ShardConfig, ShardPool, Terms
from kuberec_runtime.wire.routing import group_rows, merge_rows, route

SHARDS, DIM = 2, 16
TOKEN, DIGEST = b"benchmark", "0" * 64
WAYS = {
    "tcp": Terms(share=False),
    "shared": Terms(),
    "tcp bf16": Terms(RowType.BFLOAT16, share=False),
    "shared bf16": Terms(RowType.BFLOAT16),
    "tcp crc": Terms(share=False, checked=True),
}
NO_DENSE = np.empty(0, np.float32)


def shard_process(index: int) -> None:
    """Serves one shard until stdin ends; its address is one JSON line."""
    optimizers = (SparseOptimizer(), Initializer(), DenseOptimizer())
    shard = Shard(ShardConfig(index, SHARDS, (DIM,), 0, *optimizers, 1, TOKEN, DIGEST, len(WAYS)))
    print(json.dumps(shard.listen()), flush=True)
    sys.stdin.read()


class RayShard:
    """The same table behind actor calls."""

    def __init__(self) -> None:
        self._table = Table(DIM, SparseOptimizer(), Initializer(), 1)

    def pull(self, keys: np.ndarray) -> np.ndarray:
        """Rows of keys."""
        return self._table.pull(keys.copy())  # Ray's arrays are read-only views of its store

    def push(self, keys: np.ndarray, grads: np.ndarray) -> None:
        """One optimizer step."""
        self._table.push(keys.copy(), grads.copy())


def main() -> None:
    """Prints the table and the line."""
    chosen = options(__doc__ or "")
    import ray

    rows = 200_000 if chosen.smoke else 10_000_000
    batches = [np.unique(batch) for batch in zipf_batches(rows, 2 if chosen.smoke else 8)]
    grads = [np.zeros((keys.size, DIM), np.float32) for keys in batches]
    grouped = [keys[np.argsort(shard_of(keys, SHARDS), kind="stable")] for keys in batches]
    command = [sys.executable, "-m", "benchmarks.wire", "--shard"]
    shards = [
        subprocess.Popen([*command, str(i)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for i in range(SHARDS)
    ]
    try:
        addresses = [tuple(json.loads(shard.stdout.readline())) for shard in shards if shard.stdout is not None]
        pools = {
            name: ShardPool.connect(addresses, TOKEN, DIGEST, worker, 0, terms=terms)
            for worker, (name, terms) in enumerate(WAYS.items())
        }
        assert pools["shared"].ways == ["shared memory"] * SHARDS and pools["tcp"].ways == ["tcp"] * SHARDS
        ray.init(num_cpus=SHARDS, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        actors = [ray.remote(RayShard).remote() for _ in range(SHARDS)]
        sequence = turn = 0

        def batch() -> int:
            nonlocal turn
            turn += 1
            return turn % len(batches)

        def our_pull(pool: ShardPool, keys: list[np.ndarray]) -> None:
            pool.pull({DIM: keys[batch()]})

        def our_push(pool: ShardPool, keys: list[np.ndarray]) -> None:
            nonlocal sequence
            sequence += 1
            i = batch()
            pool.push(sequence, {DIM: keys[i]}, {DIM: grads[i]}, NO_DENSE, {0: 1})
            pool.wait(0)

        def ray_pull() -> None:
            keys = batches[batch()]
            way = route(keys, SHARDS)
            answers = ray.get([actor.pull.remote(way.keys[way.part(s)]) for s, actor in enumerate(actors)])
            out = np.empty((keys.size, DIM), np.float32)
            for s, answer in enumerate(answers):
                merge_rows(answer, way.order[way.part(s)], out)

        def ray_pull_grouped() -> None:
            keys = grouped[batch()]
            way = route(keys, SHARDS)
            answers = ray.get([actor.pull.remote(way.keys[way.part(s)]) for s, actor in enumerate(actors)])
            np.concatenate(answers)

        def ray_push() -> None:
            i = batch()
            way = route(batches[i], SHARDS)
            parts = [way.part(s) for s in range(SHARDS)]
            mine = [group_rows(grads[i], way.order[part]) for part in parts]
            ray.get([a.push.remote(way.keys[p], g) for a, p, g in zip(actors, parts, mine, strict=True)])

        def ray_push_grouped() -> None:
            i = batch()
            way = route(grouped[i], SHARDS)
            parts = [way.part(s) for s in range(SHARDS)]
            ray.get([a.push.remote(way.keys[p], grads[i][p]) for a, p in zip(actors, parts, strict=True)])

        def ping(pool: ShardPool) -> None:
            pool.pull({DIM: batches[0][:1]})

        calls: dict[str, Callable[[], object]] = {
            "ray pull": ray_pull,
            "ray pull grouped": ray_pull_grouped,
            "ray push": ray_push,
            "ray push grouped": ray_push_grouped,
        }
        for name, pool in pools.items():
            calls[f"{name} pull"] = partial(our_pull, pool, batches)
            calls[f"{name} push"] = partial(our_push, pool, batches)
            if name in ("tcp", "shared"):
                calls[f"{name} pull grouped"] = partial(our_pull, pool, grouped)
                calls[f"{name} push grouped"] = partial(our_push, pool, grouped)
                calls[f"{name} ping"] = partial(ping, pool)
        timings = in_turns(calls, 3.0 if chosen.smoke else 120.0 if chosen.full else 25.0)
        for pool in pools.values():
            pool.close()
    finally:
        ray.shutdown()
        for shard in shards:
            shard.kill()
            shard.wait()
    for name, timing in timings.items():
        peer = timings[f"ray {'push' if ' push' in name else 'pull'}{' grouped' * name.endswith('grouped')}"]
        spread = f"(n {timing.n}, spread {timing.spread:.0%})"
        print(
            f"{name:19s} {timing.median * 1e3:9.3f} ms, best {timing.best * 1e3:9.3f}  {spread}"
            f"  ray / this {peer.median / timing.median:6.1f}, of best {peer.best / timing.best:6.1f}"
        )

    def ratios(way: str, call: str, named: str) -> dict[str, float]:
        ours, ray_ = timings[f"{way} {call}"], timings[f"ray {call}"]
        return {
            named: round(ray_.median / ours.median, 2),
            f"{named}_of_best": round(ray_.best / ours.best, 2),
        }

    size = float(np.mean([keys.size for keys in batches]))
    rounded = {name.replace(" ", "_") + "_ms": round(timing.median * 1e3, 3) for name, timing in timings.items()}
    for way, gate in (("tcp", 8), ("shared", 20)):
        print_result(
            f"wire_{way}",
            timings[f"{way} pull grouped"],
            timings["ray pull grouped"],
            "ms",
            gate=gate,
            rows=round(size),
            pull_mb_s=round(size * (DIM * 4 + 8) / timings[f"{way} pull grouped"].median / 1e6),
            **ratios(way, "push grouped", "push_ratio"),
            **ratios(way, "pull", "ungrouped_ratio"),
            **ratios(way, "push", "ungrouped_push_ratio"),
            **(rounded if way == "shared" else {}),
        )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--shard"]:
        shard_process(int(sys.argv[2]))
    else:
        main()
