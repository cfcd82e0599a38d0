"""A worker: reads its partitions, computes features, pulls rows, runs the step, pushes gradients.

Two threads: the prefetcher turns messages into lookups, the loop trains. The loop's position is that of the last
batch whose push it has *sent*; prefetched batches are no part of it. A cut is answered between two steps only: the loop
writes MARK behind everything it pushed and notes that position, so mark and position mean the same samples.

In Sync mode every step is everyone's: a worker without samples takes its turn with an empty push, and says farewell
when its partitions have ended (`wire.rounds`). Its batches are a function of positions (`stream.order`), so a step has
the same samples and, pulled after all of the step before, the same rows, whatever the timing and however often.
"""

import queue
import threading
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featuregen.engine import Engine, Features
from kuberec_runtime.crashpoints import crash_here
from kuberec_runtime.models.embed import Lookup, assemble, gradients, plan_lookup
from kuberec_runtime.models.network import Network
from kuberec_runtime.stream import Batch, PartitionStart, Position, Source
from kuberec_runtime.train.boundary import Boundary
from kuberec_runtime.train.job import Job
from kuberec_runtime.train.reports import WorkerCut, WorkerReport
from kuberec_runtime.wire.client import ShardPool
from kuberec_runtime.wire.errors import WireError
from kuberec_runtime.wire.rounds import LAST_STEP

F32 = NDArray[np.float32]
PREFETCH = 2
POLL_S = 0.2
IDLE_S = 0.02
HELD_S = 0.001
NOTHING = np.empty(0, np.float32)


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
        self._pausing = threading.Event()
        self._paused = False
        self._finished = False
        self._boundary = Boundary()
        self._synchronous = job.synchronous
        self._unacknowledged = 0 if job.synchronous else job.training.spec.synchronization.max_staleness - 1
        self._lock = threading.Lock()
        self._report = WorkerReport()
        self._positions: dict[int, Position] = {}
        self._samples: dict[int, int] = {}
        self._skipped: dict[int, int] = {}
        self._watermark = 0
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
        except WireError:
            if not self._stopping.is_set():
                raise
        finally:
            self._stopping.set()
            prefetcher.join(timeout=5)
            self._source.close()
            self._pool.close()

    def hold(self, epoch: int) -> int:
        """Begins no further step until `cut` or `release`; returns the step begun last. See `Boundary`."""
        return self._boundary.hold(epoch)

    def release(self, epoch: int) -> None:
        """Goes on: the epoch for which `hold` was called has failed."""
        self._boundary.release(epoch)

    def cut(self, epoch: int, timeout_s: float, step: int = 0) -> WorkerCut:
        """Asks the loop to mark `epoch` behind `step`, or at its next boundary, and returns the positions there.

        Raises:
            TimeoutError: no step boundary came in time; the shards' time-out aborts the epoch.
        """
        self._boundary.ask(epoch, step)
        deadline = time.monotonic() + timeout_s
        while not self._stopping.is_set() and (left := deadline - time.monotonic()) > 0:
            try:
                return self._answer.get(timeout=min(left, POLL_S))
            except queue.Empty:
                continue
        self._boundary.withdraw(epoch)
        raise TimeoutError(f"no step boundary within {timeout_s:.0f} s for epoch {epoch}")

    def report(self) -> WorkerReport:
        """Returns what happened since the last call."""
        with self._lock:
            report, self._report = self._report, WorkerReport(finished=self._report.finished, lag=self._report.lag)
            report.skipped = sum(self._skipped.values())
        report.bad_records = list(self._source.bad_records())
        return report

    def pause(self) -> None:
        """Takes no further step: what a last cut holds is then all that was ever trained. Marks are still answered.

        In Sync mode steps go on until the next mark: others may wait in a step that this worker has yet to take.
        """
        self._pausing.set()

    def stop(self) -> None:
        """Ends `run` at the next step boundary, or where it waits for others; what is under way is not waited for."""
        self._stopping.set()
        self._pool.close()

    def _loop(self) -> None:
        ready: Prepared | None = None
        while not self._stopping.is_set():
            self._mark_if_due()
            self._paused |= self._pausing.is_set() and not self._synchronous
            if self._finished or self._paused:
                self._stopping.wait(IDLE_S)
                continue
            if ready is None:
                ready = self._take()
            if ready is None and (self._finished or self._source.bounded or not self._synchronous):
                continue
            if not self._boundary.begin():
                self._stopping.wait(HELD_S)
                continue
            self._pool.wait(self._unacknowledged)
            self._train(ready)
            ready = None

    def _take(self) -> Prepared | None:
        """The next batch, None if there is none yet or (then `_finished`) none will come."""
        try:
            prepared = self._prepared.get(timeout=IDLE_S)
        except queue.Empty:
            return None
        if isinstance(prepared, BaseException):
            raise prepared
        if prepared is None:
            self._pool.wait(0)
            if self._synchronous:
                self._pool.push(LAST_STEP, {}, {}, NOTHING, {})
            self._boundary.leave()
            self._finished = True
            with self._lock:
                self._report.finished = True
        return prepared

    def _mark_if_due(self) -> None:
        if (epoch := self._boundary.due()) is None:
            return
        crash_here("worker.before-mark")
        self._pool.mark(epoch)
        crash_here("worker.mark-sent")
        self._paused |= self._pausing.is_set()
        cut = WorkerCut(dict(self._positions), dict(self._samples), dict(self._skipped), self._watermark)
        while not self._answer.empty():
            self._answer.get_nowait()
        self._answer.put(cut)

    def _train(self, prepared: Prepared | None) -> None:
        number = self._boundary.begun
        if prepared is not None and prepared.lookup is not None and prepared.features is not None:
            self._step(number, prepared, prepared.features, prepared.lookup)
        elif self._synchronous:
            self._pool.push(number, {}, {}, NOTHING, {})
        if prepared is None:
            return
        batch = prepared.batch
        self._positions.update(batch.positions)
        for partition, n in batch.samples.items():
            self._samples[partition] = self._samples.get(partition, 0) + n
        with self._lock:  # `report` adds them up from another thread
            for partition, n in batch.skipped.items():
                self._skipped[partition] = self._skipped.get(partition, 0) + n
        self._watermark = max(self._watermark, batch.watermark_ms)

    def _step(self, number: int, prepared: Prepared, features: Features, lookup: Lookup) -> None:
        batch = prepared.batch
        crash_here("worker.before-pull")
        pulled = self._pool.pull(lookup.keys)
        crash_here("worker.pulled")
        self._network.set_dense(pulled.dense)
        if self._synchronous:
            self._network.draw_from(zlib.crc32(repr(sorted(batch.positions.items())).encode()))
        x = assemble(self._job.layout, features, lookup, pulled.rows)
        step = self._network.step(x, prepared.labels)
        if not np.isfinite(step.loss):
            raise FloatingPointError(
                f"the loss is {step.loss} after {number} steps; lower embeddings.defaults.optimizer."
                "learningRate or spec.optimizer.learningRate, and look for extreme raw values without a normalizer"
            )
        crash_here("worker.before-push")
        grads = gradients(lookup, step.dx)
        self._pool.push(number, lookup.keys, grads, step.dense_gradient, batch.samples, batch.watermark_ms)
        crash_here("worker.push-sent")
        self._count(prepared, step.loss, step.predictions)

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
                crash_here("worker.before-poll")
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
            return Prepared(batch, None, None, NOTHING)
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
