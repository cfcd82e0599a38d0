"""Seconds from `kill -9` of a shard to the first step after it, with millions of rows, against a restart of the job.

Ours is a training as `kuberec run` starts it (driver, two shards, two workers, all processes of their own; a real
Kafka), resumed from an epoch of `rows` rows (5 M by default; written here, with random values, as a full link of the
checkpoint). One shard is killed with SIGKILL. The driver notices, starts another one, and takes everyone back to the
last commit. The clock stops at the first status with more samples than that commit has; the status comes once a second.

The peer is what a training without healing does, also with ours: all its processes are killed and the next attempt is
started at once. Kubernetes, which would have to notice and start pods first, is left out, in the peer's favour.

Gate: ours takes less than 10 s.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from rich.console import Console
from rich.table import Table

from benchmarks.measure import options, print_result, summary
from kuberec_api import RecModel, RecTraining
from kuberec_runtime.checkpoint import (
    CommitLog,
    Link,
    LinkKind,
    data_prefix,
    open_store,
    read_commits,
    read_manifest,
    write_manifest,
    write_rows,
)
from kuberec_runtime.synth.run import run
from kuberec_runtime.synth.sink import KafkaSink
from kuberec_runtime.synth.stream import Stream
from kuberec_runtime.synth.world import Size, make_world
from kuberec_runtime.table import RowLayout
from kuberec_runtime.train.job import Job, TrainingInput

sys.path.insert(0, str(Path(__file__).parents[1] / "devcluster"))
from kuberec_devcluster.services import Kafka

EXAMPLE = Path(__file__).parents[1] / "examples" / "feed.yaml"
PATIENCE_S = 240.0
RATE = 2000.0


class Attempts:
    """One training and its attempts, one after the other."""

    def __init__(self, folder: Path, bootstrap: str) -> None:
        self._folder = folder
        self._documents: dict[str, Any] = {d["kind"]: d for d in yaml.safe_load_all(EXAMPLE.read_text())}
        spec = self._documents["RecTraining"]["spec"]
        spec["source"]["kafka"] |= {"bootstrapServers": bootstrap, "topic": "samples", "stopAt": "Never"}
        spec["checkpoint"] = {"uri": f"file://{folder}/checkpoint", "interval": "2s"}
        spec["parameterServers"]["replicas"] = spec["workers"]["replicas"] = 2
        spec["workers"]["batchSize"] = 64
        spec.pop("publish", None)
        self._attempt = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def job(self) -> Job:
        """What the next attempt is about."""
        model, training = self._documents["RecModel"], self._documents["RecTraining"]
        return Job(RecModel.model_validate(model), RecTraining.model_validate(training), self._attempt)

    def start(self) -> None:
        """Starts the next attempt."""
        self._attempt += 1
        (self._folder / "status.json").unlink(missing_ok=True)
        job, path = self.job, self._folder / "input.json"
        given = TrainingInput(model=job.model, training=job.training, attempt=job.attempt)
        path.write_text(given.model_dump_json(by_alias=True, exclude_unset=True))
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "kuberec_runtime.train", "--input", str(path), "--local"],
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "KUBEREC_STATUS": f"file:{self._folder}/status.json"},
            )

    def until(self, what: str, condition: Callable[[dict[str, Any]], bool]) -> None:
        """Waits for a status."""
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end and self._process is not None and self._process.poll() is None:
            try:
                if condition(json.loads((self._folder / "status.json").read_text())):
                    return
            except (OSError, json.JSONDecodeError):
                pass
            time.sleep(0.02)
        raise RuntimeError(f"not in time: {what}\n{(self._folder / 'log').read_text()[-3000:]}")

    def end(self) -> None:
        """Ends the attempt in order."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(PATIENCE_S)

    def kill_shard(self) -> None:
        """SIGKILL for one shard."""
        assert self._process is not None
        shards = (pid for pid in descendants(self._process.pid) if process_title(pid).startswith("ray::ShardActor"))
        os.kill(next(shards), signal.SIGKILL)

    def kill(self) -> None:
        """SIGKILL for all processes of the attempt."""
        assert self._process is not None
        doomed = descendants(self._process.pid)
        self._process.kill()
        self._process.wait()
        for pid in doomed:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue

    def fill(self, rows: int) -> None:
        """Commits an epoch of `rows` rows behind the last one, as an attempt of its own."""
        self._attempt += 1
        store = open_store(f"file://{self._folder}/checkpoint")
        manifest = read_manifest(store, next(iter(read_commits(store))).manifest)
        table = max(self.job.layout.tables.values(), key=lambda t: t.width)
        width, kind = table.width, self.job.model.spec.embeddings.defaults.optimizer.kind
        keys = np.sort(np.random.default_rng(0).permutation(4 * rows)[:rows].astype(np.int64)) | table.ordinal << 48
        raw = np.full((rows, RowLayout.of(width, kind).stride), 1e-3, np.float32)
        epoch = manifest.epoch + 1
        file = write_rows(store, data_prefix(epoch, self._attempt), width, keys, raw)
        link = Link(epoch=epoch, kind=LinkKind.FULL, files=(file,))
        changed = {"epoch": epoch, "attempt": self._attempt, "chain": (link,)}
        log = CommitLog(store, self._attempt)
        log.start()
        log.commit(epoch, write_manifest(store, manifest.model_copy(update=changed)))


def feed(bootstrap: str, ended: threading.Event) -> None:
    """Sends samples until it is ended."""
    world = make_world(0, Size(users=2000, items=1000))
    run(Stream(world), KafkaSink(world, bootstrap, "samples", 4), samples=0, rate=RATE, stop=ended.is_set)


def descendants(pid: int) -> list[int]:
    """Processes that this one started, and those that they started."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in map(int, (task / "children").read_text().split()):
            found += [child, *descendants(child)]
    return found


def process_title(pid: int) -> str:
    """What `ps` shows."""
    return Path(f"/proc/{pid}/cmdline").read_text()


def trains(status: dict[str, Any]) -> bool:
    """True once there are steps behind the last commit, and nobody is being healed."""
    healing = any(c["reason"] == "Healing" and c["status"] == "True" for c in status.get("conditions", []))
    committed = status.get("checkpoint", {}).get("samples")
    return not healing and committed is not None and status["progress"]["samples"] > committed


def heals(status: dict[str, Any]) -> bool:
    """True while the driver takes everyone back."""
    return any(c["reason"] == "Healing" and c["status"] == "True" for c in status.get("conditions", []))


def main() -> None:
    """Prints the table and the line."""
    chosen = options(__doc__ or "")
    rows, kills = (50_000, 1) if chosen.smoke else (5_000_000, 5 if chosen.full else 3)
    console = Console()
    with tempfile.TemporaryDirectory() as name, Kafka() as kafka:
        ended = threading.Event()
        feeding = threading.Thread(target=feed, args=(kafka.bootstrap, ended))
        feeding.start()
        attempts = Attempts(Path(name), kafka.bootstrap)
        try:
            attempts.start()
            attempts.until("the first epoch", lambda s: s.get("checkpoint", {}).get("samples", 0) > 0)
            attempts.end()
            attempts.fill(rows)
            ours, peer = [], []
            attempts.start()
            attempts.until("steps", trains)
            for _ in range(kills):
                began = time.perf_counter()
                attempts.kill_shard()
                attempts.until("healing", heals)
                noticed = time.perf_counter() - began
                attempts.until("a step after healing", trains)
                ours.append(time.perf_counter() - began)
                console.print(f"shard killed: noticed after {noticed:.1f} s, first step after {ours[-1]:.1f} s")
                attempts.until("a further epoch", epoch_after(name))
            for _ in range(1 if chosen.smoke else 2):
                began = time.perf_counter()
                attempts.kill()
                attempts.start()
                attempts.until("a step of the next attempt", trains)
                peer.append(time.perf_counter() - began)
                console.print(f"all killed: first step of the next attempt after {peer[-1]:.1f} s")
        finally:
            attempts.end()
            ended.set()
            feeding.join()
    table = Table("way", "seconds to the first step", title=f"Recovery with {rows:,} rows")
    table.add_row("shard replaced, all go back (ours)", f"{summary(ours).median:.1f}")
    table.add_row("all restarted", f"{summary(peer).median:.1f}")
    console.print(table)
    print_result("recovery", summary(ours), summary(peer), "ms", rows=rows)


def epoch_after(folder: str) -> Callable[[dict[str, Any]], bool]:
    """A commit later than the present one: deaths from one and the same commit are counted."""
    now = json.loads((Path(folder) / "status.json").read_text())["checkpoint"]["epoch"]
    return lambda status: bool(status["checkpoint"]["epoch"] > now)


if __name__ == "__main__":
    main()
