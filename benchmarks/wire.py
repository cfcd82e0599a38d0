"""The data plane against Ray actor calls: 37k unique rows of 16 weights from two shard processes, pulled and pushed.

Both sides hold the same tables in processes of their own, split keys by bucket and merge rows in order; only the way
between differs: our framed TCP on loopback, or numpy arrays through Ray actor calls. Gate: the pull is at least 8 times
faster.
"""

import json
import subprocess
import sys

import numpy as np

from benchmarks.measure import in_turns, options, print_result
from benchmarks.table_step import zipf_batches
from kuberec_api.model import Initializer, SparseOptimizer
from kuberec_api.training import DenseOptimizer
from kuberec_runtime.table import Table
from kuberec_runtime.wire import Shard, ShardConfig, ShardPool
from kuberec_runtime.wire.routing import group_rows, merge_rows, route

SHARDS, DIM = 2, 16
TOKEN, DIGEST = b"benchmark", "0" * 64
NO_DENSE = np.empty(0, np.float32)


def shard_process(index: int) -> None:
    """Serves one shard until stdin ends; its address is one JSON line."""
    optimizers = (SparseOptimizer(), Initializer(), DenseOptimizer())
    shard = Shard(ShardConfig(index, SHARDS, (DIM,), 0, *optimizers, 1, TOKEN, DIGEST, 1))
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
    command = [sys.executable, "-m", "benchmarks.wire", "--shard"]
    shards = [
        subprocess.Popen([*command, str(i)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for i in range(SHARDS)
    ]
    try:
        addresses = [tuple(json.loads(shard.stdout.readline())) for shard in shards if shard.stdout is not None]
        pool = ShardPool.connect(addresses, TOKEN, DIGEST, 0, 0)
        ray.init(num_cpus=SHARDS, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        actors = [ray.remote(RayShard).remote() for _ in range(SHARDS)]
        sequence = turn = 0

        def batch() -> int:
            nonlocal turn
            turn += 1
            return turn % len(batches)

        def our_pull() -> None:
            pool.pull({DIM: batches[batch()]})

        def our_push() -> None:
            nonlocal sequence
            sequence += 1
            i = batch()
            pool.push(sequence, {DIM: batches[i]}, {DIM: grads[i]}, NO_DENSE, {0: 1})
            pool.wait(0)

        def ray_pull() -> None:
            keys = batches[batch()]
            way = route(keys, SHARDS)
            answers = ray.get([actor.pull.remote(way.keys[way.part(s)]) for s, actor in enumerate(actors)])
            out = np.empty((keys.size, DIM), np.float32)
            for s, answer in enumerate(answers):
                merge_rows(answer.copy(), way.order[way.part(s)], out)

        def ray_push() -> None:
            i = batch()
            way = route(batches[i], SHARDS)
            grouped = group_rows(grads[i], way.order)
            parts = [way.part(s) for s in range(SHARDS)]
            ray.get([a.push.remote(way.keys[p], grouped[p]) for a, p in zip(actors, parts, strict=True)])

        def ping() -> None:
            pool.pull({DIM: batches[0][:1]})

        calls = {"pull": our_pull, "ray pull": ray_pull, "push": our_push, "ray push": ray_push, "ping": ping}
        timings = in_turns(calls, 3.0 if chosen.smoke else 120.0 if chosen.full else 25.0)
        pool.close()
    finally:
        ray.shutdown()
        for shard in shards:
            shard.kill()
            shard.wait()
    for name, timing in timings.items():
        spread = f"(n {timing.n}, spread {timing.spread:.0%})"
        print(f"{name:9s} {timing.median * 1e3:9.3f} ms, best {timing.best * 1e3:9.3f}  {spread}")
    size = float(np.mean([keys.size for keys in batches]))
    print_result(
        "wire",
        timings["pull"],
        timings["ray pull"],
        "ms",
        gate=8,
        rows=round(size),
        pull_mb_s=round(size * (DIM * 4 + 8) / timings["pull"].median / 1e6),
        push_ms=round(timings["push"].median * 1e3, 3),
        ray_push_ms=round(timings["ray push"].median * 1e3, 3),
        push_ratio=round(timings["ray push"].median / timings["push"].median, 2),
        ping_ms=round(timings["ping"].median * 1e3, 4),
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--shard"]:
        shard_process(int(sys.argv[2]))
    else:
        main()
