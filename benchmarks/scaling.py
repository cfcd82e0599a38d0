"""The embedding path over 1, 2 and 4 shards and workers: samples/s, and what limits them.

Real shard and worker processes on one machine. A worker deduplicates and pulls the keys of its batches (4096 samples of
26 Zipf ids), and pushes gradients of the same shape with up to two pushes under way; there is no network and no source,
so all that is measured is the path of the rows.
`limit` is what was busiest: all cores of the machine (perhaps with other programs), one worker, one shard, or none
of these (then they wait for each other). CPU seconds per million samples say what a sample costs, whatever the machine:
if they rise with the shards, adding shards adds work.

There is no peer here: `peer` is one worker and one shard of ours, `ratio` the best throughput against it.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from benchmarks.measure import options
from benchmarks.table_step import BATCH, zipf_batches
from kuberec_api.model import Initializer, SparseOptimizer
from kuberec_api.training import DenseOptimizer
from kuberec_runtime.models.embed import dedupe
from kuberec_runtime.wire import Shard, ShardConfig, ShardPool, Terms

DIM, MOST, BATCHES = 16, 4, 4
TOKEN, DIGEST = b"benchmark", "0" * 64
Process = subprocess.Popen[str]
NO_DENSE = np.empty(0, np.float32)
BUSY = 0.85
"""Share of its time in which a process or the machine must compute to be called the limit."""


@dataclass(frozen=True)
class Run:
    """One combination. CPU seconds are of user and system together, by process; `idle` is a share of all cores."""

    shards: int
    workers: int
    way: str
    seconds: float
    samples: int
    worker_cpu: Sequence[float]
    shard_cpu: Sequence[float]
    idle: float

    @property
    def rate(self) -> float:
        """Samples per second."""
        return self.samples / self.seconds

    @property
    def others(self) -> float:
        """Share of all cores that other programs, or the host, had."""
        ours = (sum(self.worker_cpu) + sum(self.shard_cpu)) / self.seconds / (os.cpu_count() or 1)
        return max(1 - self.idle - ours, 0.0)

    def per_million(self, cpu: Sequence[float]) -> float:
        """CPU seconds of a role per million samples."""
        return sum(cpu) / self.samples * 1e6

    @property
    def limit(self) -> str:
        """What was busiest."""
        if self.idle < 1 - BUSY:
            return "cores" if self.others < 1 - BUSY else "cores, with others"
        busiest = {"a worker": max(self.worker_cpu), "a shard": max(self.shard_cpu)}
        name = max(busiest, key=busiest.__getitem__)
        return name if busiest[name] / self.seconds > BUSY else "waiting"


def shard_process() -> None:
    """Serves shard `index` of `shards`, as each line of stdin says; an empty line asks for CPU seconds so far."""
    shard: Shard | None = None
    for line in sys.stdin:
        if not line.strip():
            print(time.process_time(), flush=True)
            continue
        if shard is not None:
            shard.close()
        index, shards = map(int, line.split())
        optimizers = (SparseOptimizer(), Initializer(), DenseOptimizer())
        shard = Shard(ShardConfig(index, shards, (DIM,), 0, *optimizers, 1, TOKEN, DIGEST, MOST))
        print(json.dumps(shard.listen()), flush=True)


def worker_process(worker: int, rows: int) -> None:
    """Takes part in a run, as each line of stdin says: connects, says ready, and works when it is told."""
    batches = [batch.reshape(-1) for batch in zipf_batches(rows, BATCHES * (worker + 1))[-BATCHES:]]
    size = batches[0].size
    unique, inverse = np.empty(size, np.int64), np.empty(size, np.int32)

    def train(pool: ShardPool, step: int) -> None:
        count = dedupe(batches[step % BATCHES], unique, inverse)
        keys = {DIM: unique[:count]}
        pool.wait(1)
        rows = pool.pull(keys).rows
        pool.push(step, keys, rows, NO_DENSE, {worker: BATCH})

    for line in sys.stdin:
        addresses, share, seconds = json.loads(line)
        places = [(str(host), int(port)) for host, port in addresses]
        pool = ShardPool.connect(places, TOKEN, DIGEST, worker, 0, terms=Terms(share=share))
        for step in range(2 * BATCHES):
            train(pool, step)
        pool.wait(0)
        print("ready", flush=True)
        sys.stdin.readline()
        began, cpu, first = time.perf_counter(), time.process_time(), step
        while time.perf_counter() - began < seconds:
            step += 1
            train(pool, step)
        pool.wait(0)
        print(json.dumps([(step - first) * BATCH, time.perf_counter() - began, time.process_time() - cpu]), flush=True)
        pool.close()


def start(*arguments: object) -> Process:
    """This module in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.scaling", *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def tell(processes: Sequence[Process], line: str) -> None:
    """Sends each process a line."""
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(line + "\n")
        process.stdin.flush()


def hear(processes: Sequence[Process]) -> list[str]:
    """One line of each process."""
    return [process.stdout.readline() for process in processes if process.stdout is not None]


def idle_seconds() -> float:
    """Seconds that the cores of this machine were idle since it started."""
    with open("/proc/stat") as stat:
        fields = stat.readline().split()
    return (int(fields[4]) + int(fields[5])) / os.sysconf("SC_CLK_TCK")


def run(serving: Sequence[Process], working: Sequence[Process], share: bool, seconds: float) -> Run:
    """Gives the processes their parts, lets them work, and adds up."""
    for index, process in enumerate(serving):
        tell([process], f"{index} {len(serving)}")
    addresses = [json.loads(line) for line in hear(serving)]
    tell(working, json.dumps([addresses, share, seconds]))
    assert hear(working) == ["ready\n"] * len(working)
    tell(serving, "")
    before = [float(line) for line in hear(serving)]
    idle = idle_seconds()
    tell(working, "")
    done = [json.loads(line) for line in hear(working)]
    idle = idle_seconds() - idle
    tell(serving, "")
    shard_cpu = [float(line) - then for line, then in zip(hear(serving), before, strict=True)]
    samples, elapsed = sum(one[0] for one in done), max(one[1] for one in done)
    way = "shared memory" if share else "tcp"
    free = idle / elapsed / (os.cpu_count() or 1)
    return Run(len(serving), len(working), way, elapsed, samples, [one[2] for one in done], shard_cpu, free)


def main() -> None:
    """Prints the table and the line."""
    chosen = options(__doc__ or "")
    counts = (1, 2) if chosen.smoke else (1, 2, 4)
    rows, seconds = (50_000, 0.3) if chosen.smoke else (5_000_000, 5.0) if chosen.full else (1_000_000, 1.0)
    print(f"{os.cpu_count()} cores; CPU s / M samples is what a million samples cost in all processes of a role")
    print("way            shards workers  k samples/s   CPU s / M samples: workers  shards  all    limit")
    runs: list[Run] = []
    serving = [start("--shard") for _ in range(counts[-1])]
    working = [start("--worker", worker, rows) for worker in range(counts[-1])]
    try:
        for share, shards, workers in product((True, False), counts, counts):
            one = run(serving[:shards], working[:workers], share, seconds)
            runs.append(one)
            work, serve = one.per_million(one.worker_cpu), one.per_million(one.shard_cpu)
            print(
                f"{one.way:14s} {shards:6d} {workers:7d} {one.rate / 1e3:12.0f}   {work:26.2f} {serve:7.2f} "
                f"{work + serve:6.2f}  {one.limit}",
                flush=True,
            )
    finally:
        for process in serving + working:
            process.kill()
            process.wait()
    single = next(one for one in runs if one.shards == one.workers == 1)
    best = max(runs, key=lambda one: one.rate)
    cost = {one.shards: one.per_million(one.shard_cpu) for one in runs if one.workers == 1 and one.way == single.way}
    result = {
        "name": "scaling",
        "ours": round(best.rate),
        "peer": round(single.rate),
        "unit": "samples/s",
        "ratio": round(best.rate / single.rate, 2),
        "n": len(runs),
        "spread": None,
        "cores": os.cpu_count(),
        "best": {"shards": best.shards, "workers": best.workers, "way": best.way, "limit": best.limit},
        "shard_cpu_s_per_million_samples": {str(shards): round(value, 2) for shards, value in cost.items()},
        "runs": [
            {
                "way": one.way,
                "shards": one.shards,
                "workers": one.workers,
                "samples_per_s": round(one.rate),
                "worker_cpu_s_per_million": round(one.per_million(one.worker_cpu), 2),
                "shard_cpu_s_per_million": round(one.per_million(one.shard_cpu), 2),
                "others": round(one.others, 2),
                "limit": one.limit,
            }
            for one in runs
        ],
    }
    print(json.dumps(result))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--shard"]:
        shard_process()
    elif sys.argv[1:2] == ["--worker"]:
        worker_process(int(sys.argv[2]), int(sys.argv[3]))
    else:
        main()
