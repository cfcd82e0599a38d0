"""Starts attempts for the tests: real Kafka, real Redis, a checkpoint folder, killed or not."""

import hashlib
import json
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from confluent_kafka import Producer

from kuberec_api.training import RecTrainingStatus
from kuberec_runtime.checkpoint import (
    Manifest,
    Store,
    load_rows,
    open_store,
    read_commits,
    read_dense,
    read_manifest,
)
from kuberec_runtime.local.supervisor import start_attempt
from kuberec_runtime.synth.filesink import ParquetSink
from kuberec_runtime.synth.run import run
from kuberec_runtime.synth.sink import KafkaSink
from kuberec_runtime.synth.stream import Stream
from kuberec_runtime.synth.world import Size, make_world
from tests.component.forked import ForkedAttempt

FEED = Path(__file__).parents[2] / "examples" / "feed.yaml"
DEADLINE_S = 400.0


@dataclass
class Training:
    """One training under test; `training` and `model` are changed by dotted paths before an attempt."""

    folder: Path
    bootstrap: str
    redis: str
    topic: str
    attempt: int = 0
    documents: dict[str, Any] = field(default_factory=dict)
    process: ForkedAttempt | subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.documents = training_documents()
        self.set("RecTraining", "spec.source.kafka.bootstrapServers", self.bootstrap)
        self.set("RecTraining", "spec.source.kafka.topic", self.topic)
        self.set("RecTraining", "spec.source.kafka.stopAt", "End")
        self.set("RecTraining", "spec.checkpoint", {"uri": f"file://{self.folder}/checkpoint", "interval": "500ms"})
        self.set("RecTraining", "spec.publish", {"redis": {"url": self.redis}, "interval": "300ms"})
        self.set("RecTraining", "spec.workers.batchSize", 128)
        self.set("RecTraining", "metadata.name", self.topic)

    def set(self, kind: str, path: str, value: object) -> None:
        *parents, leaf = path.split(".")
        node = self.documents[kind]
        for key in parents:
            node = node[key]
        node[leaf] = value

    def start(self, crash_at: str = "", env: Mapping[str, str] | None = None, ray: bool = False) -> None:
        """Starts the next attempt: all in one process, or with `ray` as the processes that it is in production."""
        self.attempt += 1
        given = {
            "model": self.documents["RecModel"],
            "training": self.documents["RecTraining"],
            "attempt": self.attempt,
        }
        path = self.folder / "input.json"
        path.write_text(json.dumps(given))
        environment = {
            **os.environ,
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "KUBEREC_STATUS": f"file:{self.status_path}",
            **(env or {}),
        }
        if crash_at:
            environment["KUBEREC_CRASH_AT"] = crash_at
        if not ray:
            self.process = ForkedAttempt(path, self.folder / "log", environment)
            return
        self.process = start_attempt(path, self.status_path, self.folder / "log", environment)

    def heal_through(self, points: Sequence[str]) -> None:
        """Runs a training on Ray in which one process dies at each of the crash points.

        That may take a second attempt, if many die before the first commit.
        """
        once = self.folder / "once"
        once.mkdir()
        self.start(crash_at=",".join(points), env={"KUBEREC_CRASH_ONCE": str(once)}, ray=True)
        if self.wait() == 1 and "going back does not help" in self.log():
            self.start(crash_at=",".join(points), env={"KUBEREC_CRASH_ONCE": str(once)}, ray=True)
        assert self.wait() == 0, self.log()[-5000:]
        assert {path.name for path in once.iterdir()} == set(points), self.log()[-5000:]
        assert "healed in" in self.log()

    def wait(self) -> int:
        """Waits for the attempt's end and returns its exit code."""
        assert self.process is not None
        return self.process.wait(DEADLINE_S)

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    @property
    def status_path(self) -> Path:
        return self.folder / "status.json"

    def status(self) -> RecTrainingStatus:
        return RecTrainingStatus.model_validate(json.loads(self.status_path.read_text()))

    def until(self, what: str, condition: Any) -> RecTrainingStatus:
        """Waits until `condition(status)` holds."""
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline:
            if self.status_path.exists() and condition(status := self.status()):
                return status
            assert self.process is not None
            assert self.process.poll() is None, f"the attempt ended before: {what}\n{self.log()[-3000:]}"
            time.sleep(0.05)
        raise AssertionError(f"not in time: {what}\n{self.log()[-3000:]}")

    def log(self) -> str:
        return (self.folder / "log").read_text()

    def manifest(self) -> Manifest | None:
        store = open_store(f"file://{self.folder}/checkpoint")
        last = next(iter(read_commits(store)), None)
        return read_manifest(store, last.manifest) if last else None


def training_documents() -> dict[str, Any]:
    """The resources of examples/feed.yaml, by kind."""
    return {d["kind"]: d for d in yaml.safe_load_all(FEED.read_text())}


def bits(store: Store, manifest: Manifest) -> str:
    """A digest of every row (weights, optimizer state, frequency, last-seen) and the dense state of an epoch."""
    assert manifest.dense is not None
    digest, rows = hashlib.sha256(), 0
    for width, (keys, raw) in load_rows(store, manifest).items():
        digest.update(f"{width} {len(keys)}".encode() + keys.tobytes() + raw.tobytes())
        rows += len(keys)
    arrays, metadata = read_dense(store, manifest.dense)
    for name in ("weights", "m", "v"):
        digest.update(np.ascontiguousarray(arrays[name]).tobytes())
    return digest.hexdigest() + f" {rows} rows, step {metadata['step']}"


def write_samples(bootstrap: str, topic: str, samples: int, partitions: int = 3, seed: int = 0) -> None:
    """Writes synthetic samples as JSON messages, one each."""
    world = make_world(seed, Size(users=200, items=100))
    run(Stream(world), KafkaSink(world, bootstrap, topic, partitions), samples=samples)


def write_files(folder: Path, samples: int, seed: int = 0, file_rows: int = 700, group_rows: int = 200) -> None:
    """Writes synthetic samples as Parquet files."""
    world = make_world(seed, Size(users=200, items=100))
    run(Stream(world), ParquetSink(world, folder, file_rows, group_rows), samples=samples)


def write_message(bootstrap: str, topic: str, value: bytes, partition: int = 0) -> None:
    """Writes one raw message."""
    producer = Producer({"bootstrap.servers": bootstrap})
    producer.produce(topic, value, partition=partition)
    assert producer.flush(20) == 0
