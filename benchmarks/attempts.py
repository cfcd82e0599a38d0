"""A training from files to its last epoch, in this process: real driver, shards and workers, real sockets and epochs.

`ThreadFleet` spares the start of Ray and TensorFlow for each of many short trainings. Threads share one interpreter, so
samples per second are below those of processes; what is learnt is the same.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from kuberec_api import RecModel, RecTraining
from kuberec_api.training import RecTrainingStatus
from kuberec_runtime.checkpoint import Manifest, Store, open_store, read_commits, read_manifest
from kuberec_runtime.train import driver
from kuberec_runtime.train.job import Job
from tests.component.one_process import ThreadFleet

EXAMPLE = Path(__file__).parents[1] / "examples" / "incremental" / "feed.yaml"
driver.REPORT_EVERY_S = 0.1  # a training of seconds: its pace is known to a tenth of one


class Pace:
    """The driver's status, kept as (monotonic seconds, samples); implements `StatusSink`."""

    def __init__(self) -> None:
        self.seen: list[tuple[float, int]] = []

    def write(self, status: RecTrainingStatus) -> None:
        """Notes how far the training is."""
        if status.progress is not None and status.progress.samples:
            self.seen.append((time.monotonic(), status.progress.samples))

    def suspended(self) -> bool:
        """Nobody suspends it."""
        return False

    def close(self, timeout_s: float = 10.0) -> None:
        """Has nothing to close."""

    @property
    def samples_per_s(self) -> float:
        """From the first report that had samples to the first that had all."""
        last = self.seen[-1][1]
        end = next(moment for moment, samples in self.seen if samples == last)
        return (last - self.seen[0][1]) / max(end - self.seen[0][0], 0.1)


@dataclass(frozen=True)
class Trained:
    """A training that has ended: its committed epochs with samples, oldest first, and its pace."""

    store: Store
    epochs: tuple[Manifest, ...]
    samples_per_s: float


def example(model: Mapping[str, object] | None = None, training: Mapping[str, object] | None = None) -> dict[str, Any]:
    """The resources of examples/incremental by kind, with values at dotted paths replaced or added."""
    documents = {d["kind"]: d for d in yaml.safe_load_all(EXAMPLE.read_text())}
    for kind, values in (("RecModel", model), ("RecTraining", training)):
        for path, value in (values or {}).items():
            *parents, leaf = path.split(".")
            node = documents[kind]["spec"]
            for key in parents:
                node = node.setdefault(key, {})
            node[leaf] = value
    return documents


def train(resources: Mapping[str, Any], attempt: int = 1) -> Trained:
    """Runs one attempt until its files are read; raises what ends it badly."""
    model = RecModel.model_validate(resources["RecModel"])
    job = Job(model, RecTraining.model_validate(resources["RecTraining"]), attempt)
    pace = Pace()
    driver.Driver(job, pace, ThreadFleet(job)).run()
    store = open_store(job.training.spec.checkpoint.uri)
    manifests = [read_manifest(store, committed.manifest) for committed in read_commits(store)]
    return Trained(store, tuple(m for m in reversed(manifests) if m.samples), pace.samples_per_s)
