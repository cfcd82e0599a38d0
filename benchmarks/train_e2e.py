"""Samples per second of a whole training run against Keras' `model.fit` on the same samples, on the same cores.

Ours is everything between a topic and the tables: a real Kafka broker holds messages of 1024 samples each (Arrow IPC,
26 integer ids and 13 numbers); `python -m kuberec_runtime.train --local` reads them with two workers and two shards,
each a Ray actor in a process of its own; a worker decodes, hashes ids, deduplicates, pulls rows, runs the network,
pushes gradients; shards apply Adagrad; epochs are committed meanwhile. The rate is that of the status between the
first fifth of the samples and the last report: without start-up, with broker, cuts and reports.

The peer has the same samples in memory, already hashed to the same ids, and never reads, hashes or shuffles anything.
Its model is the same network (`models.network`) on one Keras Embedding that holds all rows of all features, so one
gather serves 26 features, in batches of the same size; Adagrad for all weights (ours has Adam for dense ones), no XLA.
It uses all cores, commits nothing and survives nothing. It runs before and after ours, and the faster of its runs
counts. It goes over its whole table in every step, so the size of the vocabulary, `rows`, matters to it far more than
to us; it is timed at a quarter of the rows as well (`peer_quarter_samples_s`).

Gate: ours is at least 3 times faster.
"""

import itertools
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pyarrow as pa
from confluent_kafka import Producer
from rich.console import Console

from benchmarks.measure import Timing, options, print_result
from featuregen.engine import Engine
from kuberec_api import RecModel, RecTraining
from kuberec_runtime.local.supervisor import start_attempt
from kuberec_runtime.spans import VARIABLE
from kuberec_runtime.synth.encode import arrow_message
from kuberec_runtime.train.job import Job, TrainingInput
from kuberec_runtime.train.profile import read_rows, rendered

sys.path.insert(0, str(Path(__file__).parents[1] / "devcluster"))
from kuberec_devcluster.services import Kafka

IDS, NUMBERS, DIM, PARTITIONS, MESSAGE = 26, 13, 16, 4, 1024
PATIENCE_S = 240.0


def job_of(buckets: int, batch: int, bootstrap: str, folder: Path) -> Job:
    """The model and its training."""
    ids = [f"id{i}" for i in range(IDS)]
    numbers = [f"number{i}" for i in range(NUMBERS)]
    features = [{"name": n, "op": "id", "in": [f"context.{n}"], "encode": {"hashBuckets": buckets}} for n in ids]
    features += [{"name": n, "op": "raw", "in": [f"context.{n}"]} for n in numbers]
    fields = dict.fromkeys(ids, "int") | dict.fromkeys(numbers, "float")
    optimizer = {"kind": "Adagrad", "learningRate": 0.01}
    model = {
        "features": {"hash": "farm64", "sources": {"context": {"fields": fields}}, "list": features},
        "embeddings": {"defaults": {"dim": DIM, "optimizer": optimizer}},
        "network": {
            "kind": "MultiTower",
            "groups": {"all": ids + numbers},
            "params": {"hiddenUnits": [256, 128]},
        },
        "tasks": [{"name": "click", "label": "click", "loss": "BinaryCrossEntropy"}],
    }
    training = {
        "modelRef": {"name": "e2e"},
        "source": {"kafka": {"bootstrapServers": bootstrap, "topic": "samples", "format": "Arrow", "stopAt": "End"}},
        "parameterServers": {"replicas": 2},
        "workers": {"replicas": 2, "batchSize": batch},
        "checkpoint": {"uri": f"file://{folder}/checkpoint", "interval": "10s"},
    }
    head = {"apiVersion": "kuberec.dev/v1alpha1", "metadata": {"name": "e2e", "namespace": "default"}}
    return Job(
        RecModel.model_validate({**head, "kind": "RecModel", "spec": model}),
        RecTraining.model_validate({**head, "kind": "RecTraining", "spec": training}),
        1,
    )


def samples_of(job: Job, buckets: int, count: int) -> pa.Table:
    """Samples in the schema of the job: Zipf ids, about as many distinct ones a feature as it has buckets."""
    rng = np.random.default_rng(0)
    weights = np.cumsum(1.0 / np.arange(1, buckets + 1) ** 1.05)
    columns = {}
    for name in job.schema.names:
        if name.startswith("context.id"):
            columns[name] = np.searchsorted(weights / weights[-1], rng.random(count)).astype(np.int64)
        elif name.startswith("context.number"):
            columns[name] = rng.lognormal(size=count)
        else:
            columns[name] = (rng.random(count) < 0.3).astype(np.float32)
    return pa.table(columns, schema=job.schema)


def write(bootstrap: str, table: pa.Table, times: int) -> None:
    """Writes the samples to the topic, `times` times over, as messages dealt out to the partitions."""
    messages = [arrow_message(table.slice(at, MESSAGE)) for at in range(0, table.num_rows, MESSAGE)]
    producer = Producer({"bootstrap.servers": bootstrap, "queue.buffering.max.kbytes": 200_000})
    for turn in range(times):
        for i, message in enumerate(messages):
            producer.produce("samples", message, partition=(turn * len(messages) + i) % PARTITIONS)
            producer.poll(0)
            while len(producer) > 200:
                producer.poll(0.05)
    assert producer.flush(120) == 0


class Peer:
    """The same network on a Keras Embedding, and what `model.fit` needs, in memory."""

    def __init__(self, job: Job, table: pa.Table, buckets: int, batch: int) -> None:
        """Ids are folded into `buckets` a feature."""
        import keras

        from kuberec_runtime.models.network import Network

        features = Engine(job.plan).batch(table)
        layout = job.layout
        ids = []
        for i, slot in enumerate(layout.sparse):
            column = features.columns[slot.output].ids
            assert column is not None and column.size == table.num_rows
            ids.append((column % buckets + i * buckets).astype(np.int32))
        numbers = [features.columns[slot.output].values for slot in layout.dense]
        squashed = np.concatenate([np.sign(v) * np.log1p(np.abs(v)) for v in numbers if v is not None], axis=1)
        self._given = {"ids": np.stack(ids, axis=1), "numbers": squashed.astype(np.float32)}
        self._labels = table.column(job.label_column).to_numpy()
        self._batch = batch
        inputs = {
            "ids": keras.Input((len(ids),), dtype="int32", name="ids"),
            "numbers": keras.Input((squashed.shape[1],), name="numbers"),
        }
        rows = keras.layers.Embedding(len(ids) * buckets, DIM, name="rows")(inputs["ids"])
        x = keras.ops.concatenate([keras.layers.Flatten()(rows), inputs["numbers"]], axis=1)
        self._model = keras.Model(inputs, Network(job.model.spec, layout).model(x))
        self._model.compile(
            optimizer=keras.optimizers.Adagrad(0.01),
            loss=keras.losses.BinaryCrossentropy(from_logits=True),
            jit_compile=False,
        )
        self._fit(2)

    def rates(self, seconds: float) -> list[float]:
        """Samples per second of several calls of `fit`, `seconds` in all."""
        steps, rates, end = 4, [], time.perf_counter() + seconds
        while time.perf_counter() < end or len(rates) < 3:
            began = time.perf_counter()
            self._fit(steps)
            rates.append(steps * self._batch / (time.perf_counter() - began))
        return rates

    def _fit(self, steps: int) -> None:
        n = min(steps * self._batch, len(self._labels))
        given = {name: values[:n] for name, values in self._given.items()}
        self._model.fit(given, self._labels[:n], batch_size=self._batch, epochs=1, shuffle=False, verbose=0)


@contextmanager
def training(job: Job, folder: Path, profile: bool) -> Iterator["subprocess.Popen[bytes]"]:
    """One attempt, as `kuberec run` starts it."""
    given = TrainingInput(model=job.model, training=job.training, attempt=job.attempt)
    path = folder / "input.json"
    path.write_text(given.model_dump_json(by_alias=True, exclude_unset=True))
    env = {VARIABLE: str(folder / "profile")} if profile else {}
    process = start_attempt(path, folder / "status.json", folder / "log", env)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)


def our_rates(job: Job, folder: Path, samples: int, profile: bool) -> list[float]:
    """Samples per second between reports of the run, the first fifth of the samples left out."""
    seen: list[tuple[float, int]] = []
    with training(job, folder, profile) as process:
        end = time.monotonic() + PATIENCE_S
        while process.poll() is None and time.monotonic() < end:
            time.sleep(0.02)
            try:
                # The file is replaced as a whole, so its time is that of the report in it.
                at = (folder / "status.json").stat().st_mtime
                progress = json.loads((folder / "status.json").read_text()).get("progress")
            except (OSError, json.JSONDecodeError):
                continue
            count = progress["samples"] if progress else 0
            if not seen or count != seen[-1][1]:
                seen.append((at, count))
        code = process.wait(60)
    log = (folder / "log").read_text()
    if code != 0 or not seen or seen[-1][1] != samples:
        raise RuntimeError(f"the run ended with {code} after {seen[-1:]} of {samples} samples\n{log[-3000:]}")
    # The last report may come long after the last sample.
    steady = [point for point in seen if samples / 5 <= point[1] < samples]
    if len(steady) < 2:
        steady = seen[-2:]
    parts = itertools.pairwise(steady)
    rates = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in parts if b[0] > a[0]]
    whole = (steady[-1][1] - steady[0][1]) / (steady[-1][0] - steady[0][0])
    return [whole, *rates]


def timing(rate: float, rates: list[float], batch: int) -> Timing:
    """Seconds of `batch` samples."""
    seconds = sorted(batch / r for r in rates)
    quarter = len(seconds) // 4
    return Timing(batch / rate, seconds[0], (seconds[-1 - quarter] - seconds[quarter]) * rate / batch, len(seconds))


def main() -> None:
    """Prints the table and the line."""
    chosen = options(__doc__ or "")
    buckets = 1_000 if chosen.smoke else 200_003
    batch = 1024 if chosen.smoke else 4096
    count, times = (16_384, 2) if chosen.smoke else (262_144, 20) if chosen.full else (131_072, 12)
    profile = os.environ.get(VARIABLE) is not None
    with tempfile.TemporaryDirectory(prefix="train-e2e-") as name, Kafka(partitions=PARTITIONS) as broker:
        folder = Path(name)
        job = job_of(buckets, batch, broker.bootstrap, folder)
        table = samples_of(job, buckets, count)
        write(broker.bootstrap, table, times)
        peer = Peer(job, table, buckets, batch)
        before = peer.rates(1 if chosen.smoke else 6)
        whole, *rates = our_rates(job, folder, count * times, profile)
        after = peer.rates(1 if chosen.smoke else 6)
        quarter = Peer(job, table, buckets // 4, batch).rates(1 if chosen.smoke else 6)
        if profile:
            Console().print(rendered(read_rows(folder / "profile", 1)))
    best = max(statistics.median(before), statistics.median(after))
    print(f"ours      {whole:10,.0f} samples/s  ({count * times:,} samples, {len(rates)} reports)")
    for label, measured in (("before", before), ("after", after), ("after, with a quarter of the rows", quarter)):
        print(f"model.fit {statistics.median(measured):10,.0f} samples/s  ({label}, n {len(measured)})")
    print_result(
        "train_e2e",
        timing(whole, rates or [whole], batch),
        timing(best, before + after, batch),
        f"ms for {batch} samples",
        gate=3,
        ours_samples_s=round(whole),
        peer_samples_s=round(best),
        peer_quarter_samples_s=round(statistics.median(quarter)),
        rows=IDS * buckets,
        samples=count * times,
        processes="2 shards, 2 workers",
    )


if __name__ == "__main__":
    main()
