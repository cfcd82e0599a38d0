"""A worker: reads its partitions, computes features, pulls rows, runs the step, pushes gradients.

Two threads: the prefetcher turns messages into lookups, the loop trains. The loop's position is that of the last
batch whose push it has *sent*; prefetched batches are no part of it. A cut is answered between two steps only: the loop
writes MARK behind everything it pushed and notes that position, so mark and position mean the same samples.
"""

import queue
import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featuregen.engine import Engine, Features
from kuberec_runtime.crashpoints import crash_here
from kuberec_runtime.models.embed import Lookup, assemble, gradients, plan_lookup
from kuberec_runtime.models.network import Network
from kuberec_runtime.stream import Batch, PartitionStart, Position, Source
from kuberec_runtime.train.job import Job
from kuberec_runtime.train.reports import WorkerCut, WorkerReport
from kuberec_runtime.wire.client import ShardPool

F32 = NDArray[np.float32]
PREFETCH = 2
POLL_S = 0.2
IDLE_S = 0.02


@dataclass(frozen=True)
class Prepared:
    """A batch that is ready for its step; it has no features when it only passed over bad records."""

    batch: Batch
    features: Features | None
    lookup: Lookup | None
    labels: F32


class Worker:
    """One worker's state. `run` blocks until `stop`; the other methods are called from other threads."""

    def __init__(self, job: Job, source: Source, pool: ShardPool, network: Network) -> None:
        self._job, self._source, self._pool, self._network = job, source, pool, network
        self._engine = Engine(job.plan)
        self._prepared: queue.Queue[Prepared | BaseException | None] = queue.Queue(PREFETCH)
        self._further: queue.SimpleQueue[Sequence[PartitionStart]] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._paused = threading.Event()
        self._lock = threading.Lock()
        self._report = WorkerReport()
        self._positions: dict[int, Position] = {}
        self._samples: dict[int, int] = {}
        self._skipped: dict[int, int] = {}
        self._watermark = 0
        self._sequence = 0
        self._asked: int | None = None
        self._answer: queue.Queue[WorkerCut] = queue.Queue(1)

    def begin_at(self, starts: Sequence[PartitionStart]) -> None:
        """Takes the positions to resume from; counts start at zero, the driver adds the manifest's."""
        self._positions = {s.partition: s.position for s in starts}

    def add(self, starts: Sequence[PartitionStart]) -> None:
        """Takes further partitions, whose starts are committed: they are read from the next poll on."""
        self._further.put(starts)

    def run(self) -> None:
        """Trains until `stop`. Raises whatever ends this worker: a source error, a lost shard."""
        prefetcher = threading.Thread(target=self._prefetch, name="prefetch", daemon=True)
        prefetcher.start()
        try:
            self._loop()
        finally:
            self._stopping.set()
            prefetcher.join(timeout=5)
            self._source.close()
            self._pool.close()

    def cut(self, epoch: int, timeout_s: float) -> WorkerCut:
        """Asks the loop to mark `epoch` at its next step boundary and returns the positions there.

        Raises:
            TimeoutError: no step boundary came in time; the shards' time-out aborts the epoch.
        """
        with self._lock:
            self._asked = epoch
        try:
            return self._answer.get(timeout=timeout_s)
        except queue.Empty:
            with self._lock:
                self._asked = None
            raise TimeoutError(f"no step boundary within {timeout_s:.0f} s for epoch {epoch}") from None

    def report(self) -> WorkerReport:
        """Returns what happened since the last call."""
        with self._lock:
            report, self._report = self._report, WorkerReport(finished=self._report.finished, lag=self._report.lag)
            report.skipped = sum(self._skipped.values())
        report.bad_records = list(self._source.bad_records())
        return report

    def pause(self) -> None:
        """Takes no further step: what a last cut holds is then all that was ever trained. Marks are still answered."""
        self._paused.set()

    def stop(self) -> None:
        """Ends `run` at the next step boundary."""
        self._stopping.set()

    def _loop(self) -> None:
        finished = False
        while not self._stopping.is_set():
            self._mark_if_asked()
            if finished or self._paused.is_set():
                self._stopping.wait(IDLE_S)
                continue
            try:
                prepared = self._prepared.get(timeout=IDLE_S)
            except queue.Empty:
                continue
            if isinstance(prepared, BaseException):
                raise prepared
            if prepared is None:
                self._pool.wait(0)
                finished = True
                with self._lock:
                    self._report.finished = True
                continue
            self._train(prepared)

    def _mark_if_asked(self) -> None:
        with self._lock:
            epoch, self._asked = self._asked, None
        if epoch is None:
            return
        crash_here("worker.before-mark")
        self._pool.mark(epoch)
        crash_here("worker.mark-sent")
        cut = WorkerCut(dict(self._positions), dict(self._samples), dict(self._skipped), self._watermark)
        while not self._answer.empty():
            self._answer.get_nowait()
        self._answer.put(cut)

    def _train(self, prepared: Prepared) -> None:
        batch, lookup = prepared.batch, prepared.lookup
        if lookup is not None and prepared.features is not None:
            self._pool.wait(self._job.training.spec.synchronization.max_staleness - 1)
            crash_here("worker.before-pull")
            pulled = self._pool.pull(lookup.keys)
            self._network.set_dense(pulled.dense)
            x = assemble(self._job.layout, prepared.features, lookup, pulled.rows)
            step = self._network.step(x, prepared.labels)
            if not np.isfinite(step.loss):
                raise FloatingPointError(
                    f"the loss is {step.loss} after {self._sequence} steps; lower embeddings.defaults.optimizer."
                    "learningRate or spec.optimizer.learningRate, and look for extreme raw values without a normalizer"
                )
            self._sequence += 1
            crash_here("worker.before-push")
            grads = gradients(lookup, step.dx)
            self._pool.push(self._sequence, lookup.keys, grads, step.dense_gradient, batch.samples, batch.watermark_ms)
            crash_here("worker.push-sent")
            self._count(prepared, step.loss, step.predictions)
        self._positions.update(batch.positions)
        for partition, n in batch.samples.items():
            self._samples[partition] = self._samples.get(partition, 0) + n
        with self._lock:  # `report` adds them up from another thread
            for partition, n in batch.skipped.items():
                self._skipped[partition] = self._skipped.get(partition, 0) + n
        self._watermark = max(self._watermark, batch.watermark_ms)

    def _count(self, prepared: Prepared, loss: float, predictions: F32) -> None:
        with self._lock:
            self._report.steps += 1
            self._report.samples += len(predictions)
            self._report.loss_sum += loss * len(predictions)
            self._report.predictions.append(predictions)
            self._report.labels.append(prepared.labels)

    def _prefetch(self) -> None:
        try:
            while not self._stopping.is_set() and not self._source.finished:
                while not self._further.empty():
                    self._source.add(self._further.get())
                batch = self._source.poll(POLL_S)
                lag = self._source.lag()
                with self._lock:
                    self._report.lag = lag
                if batch is not None:
                    crash_here("worker.polled")
                    self._hand_over(self._prepare(batch))
            self._hand_over(None)
        except BaseException as error:
            self._hand_over(error)

    def _prepare(self, batch: Batch) -> Prepared:
        if batch.table.num_rows == 0:
            return Prepared(batch, None, None, np.empty(0, np.float32))
        features = self._engine.batch(batch.table)
        labels = batch.table.column(self._job.label_column).to_numpy().astype(np.float32)
        return Prepared(batch, features, plan_lookup(self._job.layout, features), labels)

    def _hand_over(self, item: Prepared | BaseException | None) -> None:
        while not self._stopping.is_set():
            try:
                self._prepared.put(item, timeout=POLL_S)
                return
            except queue.Full:
                continue
