"""Seconds from `kill -9` of a shard to the first step after it, with millions of rows, against a restart of the job.

Ours is a training as `kuberec run` starts it (driver, two shards, two workers, all processes of their own; a real
Kafka), resumed from an epoch of `rows` rows (5 M by default; written here, with random values, as a full link of the
checkpoint). One shard is killed with SIGKILL. The driver notices, starts another one, and takes everyone back to the
last commit. The clock stops at the first status with more samples than that commit has; the status comes once a second.

The peer is what a training without healing does, also with ours: all its processes are killed and the next attempt is
started at once. Kubernetes, which would have to notice and start pods first, is left out, in the peer's favour.

Gate: ours takes less than 10 s.
"""

import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.measure import options, print_result, summary
from kuberec_api import RecModel, RecTraining
from kuberec_api.meta import ConditionStatus
from kuberec_api.training import RecTrainingStatus
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
from kuberec_runtime.table.buckets import key_of
from kuberec_runtime.train.job import Job
from tests.component.training import training_documents
from tests.soak.attempt import Attempt, send

sys.path.insert(0, str(Path(__file__).parents[1] / "devcluster"))
from kuberec_devcluster.services import Kafka

PATIENCE_S = 240.0
RATE = 2000.0


class Attempts:
    """One training and its attempts, one after the other."""

    def __init__(self, folder: Path, bootstrap: str) -> None:
        self._folder = folder
        self._documents = training_documents()
        spec = self._documents["RecTraining"]["spec"]
        spec["source"]["kafka"] |= {"bootstrapServers": bootstrap, "topic": "samples", "stopAt": "Never"}
        spec["checkpoint"] = {"uri": f"file://{folder}/checkpoint", "interval": "2s"}
        spec["parameterServers"]["replicas"] = spec["workers"]["replicas"] = 2
        spec["workers"]["batchSize"] = 64
        spec.pop("publish", None)
        self._number = 0
        self._attempt: Attempt | None = None

    def start(self) -> None:
        """Starts the next attempt."""
        self._number += 1
        self._attempt = Attempt(self._number, self._documents, self._folder, {})

    def until(self, what: str, condition: Callable[[RecTrainingStatus], bool]) -> RecTrainingStatus:
        """Waits for a status, and returns it."""
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end and self._running.poll() is None:
            if (status := self._running.status()) is not None and condition(status):
                return status
            time.sleep(0.02)
        raise RuntimeError(f"not in time: {what}\n{self._running.log.read_text()[-3000:]}")

    def end(self) -> None:
        """Ends the attempt in order."""
        if self._attempt is not None and self._attempt.poll() is None:
            self._attempt.driver.terminate()
            self._attempt.driver.wait(PATIENCE_S)

    def kill_shard(self) -> None:
        """SIGKILL for one shard."""
        send(self._running.shards()[0], signal.SIGKILL)

    def kill(self) -> None:
        """SIGKILL for all processes of the attempt."""
        self._running.kill()

    def fill(self, rows: int) -> None:
        """Commits an epoch of `rows` rows behind the last one, as an attempt of its own."""
        self._number += 1
        model = RecModel.model_validate(self._documents["RecModel"])
        job = Job(model, RecTraining.model_validate(self._documents["RecTraining"]), self._number)
        store = open_store(job.training.spec.checkpoint.uri)
        manifest = read_manifest(store, next(iter(read_commits(store))).manifest)
        table = max(job.layout.tables.values(), key=lambda t: t.width)
        ids = np.sort(np.random.default_rng(0).permutation(4 * rows)[:rows])
        stride = RowLayout.of(table.width, model.spec.embeddings.defaults.optimizer.kind).stride
        raw = np.full((rows, stride), 1e-3, np.float32)
        epoch = manifest.epoch + 1
        prefix = data_prefix(epoch, self._number)
        file = write_rows(store, prefix, table.width, key_of(table.ordinal, ids), raw)
        link = Link(epoch=epoch, kind=LinkKind.FULL, files=(file,))
        changed = {"epoch": epoch, "attempt": self._number, "chain": (link,)}
        log = CommitLog(store, self._number)
        log.start()
        log.commit(epoch, write_manifest(store, manifest.model_copy(update=changed)))

    @property
    def _running(self) -> Attempt:
        assert self._attempt is not None
        return self._attempt


def feed(bootstrap: str, ended: threading.Event) -> None:
    """Sends samples until it is ended."""
    world = make_world(0, Size(users=2000, items=1000))
    run(Stream(world), KafkaSink(world, bootstrap, "samples", 4), samples=0, rate=RATE, stop=ended.is_set)


def heals(status: RecTrainingStatus) -> bool:
    """True while the driver takes everyone back."""
    return any(c.reason == "Healing" and c.status is ConditionStatus.TRUE for c in status.conditions)


def trains(status: RecTrainingStatus) -> bool:
    """True once there are steps behind the last commit, and nobody is being healed."""
    at, committed = status.progress, status.checkpoint
    return not heals(status) and at is not None and committed is not None and at.samples > committed.samples


def committed_after(epoch: int) -> Callable[[RecTrainingStatus], bool]:
    """A later commit: deaths from one and the same commit are counted."""
    return lambda status: status.checkpoint is not None and status.checkpoint.epoch > epoch


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
            attempts.until("the first epoch", committed_after(0))
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
                status = attempts.until("a step after healing", trains)
                ours.append(time.perf_counter() - began)
                console.print(f"shard killed: noticed after {noticed:.1f} s, first step after {ours[-1]:.1f} s")
                assert status.checkpoint is not None
                attempts.until("a further epoch", committed_after(status.checkpoint.epoch))
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


if __name__ == "__main__":
    main()
