"""The reading thread of a worker: messages become batches, features and lookups, ahead of the loop that trains them."""

import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featuregen.engine import Engine, Features
from kuberec_runtime.crashpoints import crash_here
from kuberec_runtime.models.embed import Lookup, plan_lookup
from kuberec_runtime.spans import span
from kuberec_runtime.stream import Batch, PartitionStart, Source
from kuberec_runtime.train.handover import Handover
from kuberec_runtime.train.job import Job

F32 = NDArray[np.float32]

PREPARED = 2
"""Batches that wait, ready but for their rows."""
POLL_S = 0.2


@dataclass(frozen=True)
class Prepared:
    """A batch that is ready but for its rows; it has no features when it only passed over bad records."""

    batch: Batch
    features: Features | None
    lookup: Lookup | None
    labels: F32


class Reader:
    """Polls a source and prepares what it gives. `run` is the thread's; `add` and `out` are for others.

    Args:
        job: what is trained.
        source: this worker's partitions.
        stopping: ends `run`.
        lag: is told the source's lag after every poll, records or None.
    """

    def __init__(self, job: Job, source: Source, stopping: threading.Event, lag: Callable[[int | None], None]) -> None:
        self._job, self._source, self._stopping, self._lag = job, source, stopping, lag
        self._engine = Engine(job.plan)
        self._further: queue.SimpleQueue[Sequence[PartitionStart]] = queue.SimpleQueue()
        self.out: Handover[Prepared] = Handover(PREPARED, stopping)

    def add(self, starts: Sequence[PartitionStart]) -> None:
        """Further partitions, read from the next poll on."""
        self._further.put(starts)

    def run(self) -> None:
        """Reads until the source has finished; whatever goes wrong comes out of `out`."""
        try:
            while not self._stopping.is_set() and not self._source.finished:
                while not self._further.empty():
                    self._source.add(self._further.get())
                crash_here("worker.before-poll")
                with span("poll"):
                    batch = self._source.poll(POLL_S)
                self._lag(self._source.lag())
                if batch is not None:
                    crash_here("worker.polled")
                    prepared = self._prepare(batch)
                    with span("wait: room"):
                        self.out.give(prepared)
            self.out.end()
        except BaseException as error:
            self.out.end(error)

    def _prepare(self, batch: Batch) -> Prepared:
        if batch.table.num_rows == 0:
            return Prepared(batch, None, None, np.empty(0, np.float32))
        with span("features"):
            features = self._engine.batch(batch.table)
            labels = batch.table.column(self._job.label_column).to_numpy().astype(np.float32)
        with span("dedupe"):
            return Prepared(batch, features, plan_lookup(self._job.layout, features, by_bucket=True), labels)
