"""A worker: reads its partitions, computes features, pulls rows, runs the step, pushes gradients.

Three threads, each a batch ahead of the next: the reader turns messages into lookups (`reading`), the puller fetches
rows (`pulling`), the loop trains. The loop's position is that of the last batch whose push it has *sent*; batches that
are read or pulled and not trained are no part of it. A cut is answered between two steps only: the loop writes MARK
behind everything it pushed and notes that position, so mark and position mean the same samples.

In Sync mode every step is everyone's: a worker without samples takes its turn with an empty push, and says farewell
when its partitions have ended (`wire.rounds`). Its batches are a function of positions (`stream.order`), so a step has
the same samples and, pulled by the loop after all of the step before, the same rows, whatever the timing and however
often.
"""

import queue
import threading
import time
import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kuberec_runtime.crashpoints import crash_here
from kuberec_runtime.models.embed import Lookup, gradients
from kuberec_runtime.models.network import Network
from kuberec_runtime.spans import name_thread, span
from kuberec_runtime.stream import PartitionStart, Position, Source
from kuberec_runtime.train.boundary import Boundary
from kuberec_runtime.train.handover import LOOK_EVERY_S, Handover
from kuberec_runtime.train.job import Job
from kuberec_runtime.train.pulling import Pulled, Puller, pull
from kuberec_runtime.train.reading import Prepared, Reader
from kuberec_runtime.train.reports import WorkerCut, WorkerReport
from kuberec_runtime.wire.client import ShardPool
from kuberec_runtime.wire.errors import WireError
from kuberec_runtime.wire.rounds import LAST_STEP

F32 = NDArray[np.float32]
IDLE_S = 0.02
HELD_S = 0.001
NOTHING = np.empty(0, np.float32)


class Worker:
    """One worker's state. `run` blocks until `stop`; the other methods are called from other threads."""

    def __init__(self, job: Job, source: Source, pool: ShardPool, network: Network) -> None:
        self._job, self._source, self._pool, self._network = job, source, pool, network
        self._stopping = threading.Event()
        self._pausing = threading.Event()
        self._paused = False
        self._finished = False
        self._boundary = Boundary()
        self._synchronous = job.synchronous
        self._lock = threading.Lock()
        self._report = WorkerReport()
        self._reader = Reader(job, source, self._stopping, self._lags)
        self._puller: Puller | None = None
        self._ready: Handover[Prepared] | Handover[Pulled] = self._reader.out
        if not job.synchronous:
            staleness = job.training.spec.synchronization.max_staleness
            self._puller = Puller(pool, job.layout, self._reader.out, staleness, self._stopping)
            self._ready = self._puller.out
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
        self._reader.add(starts)

    def run(self) -> None:
        """Trains until `stop`. Raises whatever ends this worker: a source error, a lost shard."""
        reading = threading.Thread(target=self._reader.run, name="reader", daemon=True)
        reading.start()
        pulling = threading.Thread(target=self._puller.run, name="puller", daemon=True) if self._puller else None
        if pulling is not None:
            pulling.start()
        name_thread("loop")
        try:
            self._loop()
        except WireError:
            if not self._stopping.is_set():
                raise
        finally:
            self._stopping.set()
            reading.join(timeout=5)
            self._source.close()
            self._pool.close()
            if pulling is not None:
                pulling.join(timeout=5)

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
                return self._answer.get(timeout=min(left, LOOK_EVERY_S))
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
        ready: Prepared | Pulled | None = None
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
            if self._synchronous:
                with span("wait: step"):
                    self._pool.wait(0)
            self._train(pull(self._pool, self._job.layout, ready) if isinstance(ready, Prepared) else ready)
            if self._puller is not None:
                self._puller.turns.ended()
            ready = None

    def _take(self) -> Prepared | Pulled | None:
        """The next batch, None if there is none yet or (then `_finished`) none will come."""
        with span("wait: batch"):
            ready = self._ready.take(IDLE_S)
        if ready is None and self._ready.ended:
            self._pool.wait(0)
            if self._synchronous:
                self._pool.push(LAST_STEP, {}, {}, NOTHING, {})
            self._boundary.leave()
            self._finished = True
            with self._lock:
                self._report.finished = True
        return ready

    def _mark_if_due(self) -> None:
        if (epoch := self._boundary.due()) is None:
            return
        crash_here("worker.before-mark")
        with span("mark"):
            self._pool.mark(epoch)
        crash_here("worker.mark-sent")
        self._paused |= self._pausing.is_set()
        cut = WorkerCut(dict(self._positions), dict(self._samples), dict(self._skipped), self._watermark)
        while not self._answer.empty():
            self._answer.get_nowait()
        self._answer.put(cut)

    def _train(self, pulled: Pulled | None) -> None:
        number = self._boundary.begun
        if pulled is not None and pulled.prepared.lookup is not None:
            self._step(number, pulled, pulled.prepared.lookup)
        elif self._synchronous:
            self._pool.push(number, {}, {}, NOTHING, {})
        if pulled is None:
            return
        batch = pulled.prepared.batch
        self._positions.update(batch.positions)
        for partition, n in batch.samples.items():
            self._samples[partition] = self._samples.get(partition, 0) + n
        with self._lock:  # `report` adds them up from another thread
            for partition, n in batch.skipped.items():
                self._skipped[partition] = self._skipped.get(partition, 0) + n
        self._watermark = max(self._watermark, batch.watermark_ms)

    def _step(self, number: int, pulled: Pulled, lookup: Lookup) -> None:
        batch = pulled.prepared.batch
        with span("compute"):
            self._network.set_dense(pulled.dense)
            if self._synchronous:
                self._network.draw_from(zlib.crc32(repr(sorted(batch.positions.items())).encode()))
            step = self._network.step(pulled.x, pulled.prepared.labels)
        if not np.isfinite(step.loss):
            raise FloatingPointError(
                f"the loss is {step.loss} after {number} steps; lower embeddings.defaults.optimizer."
                "learningRate or spec.optimizer.learningRate, and look for extreme raw values without a normalizer"
            )
        crash_here("worker.before-push")
        with span("gradients"):
            grads = gradients(lookup, step.dx)
        with span("push"):
            self._pool.push(number, lookup.keys, grads, step.dense_gradient, batch.samples, batch.watermark_ms)
        crash_here("worker.push-sent")
        self._count(pulled.prepared.labels, step.loss, step.predictions)

    def _count(self, labels: F32, loss: float, predictions: F32) -> None:
        with self._lock:
            self._report.steps += 1
            self._report.samples += len(predictions)
            self._report.loss_sum += loss * len(predictions)
            self._report.predictions.append(predictions)
            self._report.labels.append(labels)

    def _lags(self, records: int | None) -> None:
        with self._lock:
            self._report.lag = records
