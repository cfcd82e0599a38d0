"""One attempt from start to end: opens epochs, commits, publishes, reports; what it does when is in `_train`.

Order at the start, and why: claim the log (older attempts are fenced from here on), read the last commit, claim the
tier, only then train. Order in a cut: shards copy, workers tell their positions, files are written, the manifest, the
log record. A failure before the record aborts the epoch: copied rows become dirty again and training goes on.
A shard or worker that dies is replaced and everyone goes back to the last commit, see `bringup`.
"""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from featuregen.files import read_files
from featuregen.spec import duration_ms
from kuberec_runtime.checkpoint import StoreError, open_store
from kuberec_runtime.crashpoints import crash_here
from kuberec_runtime.models.flat import WeightShapes
from kuberec_runtime.publish.errors import StalePublication, TierCorrupt, TierError
from kuberec_runtime.stream import PartitionStart
from kuberec_runtime.stream.growth import PartitionWatch
from kuberec_runtime.train.bringup import Bringup, Deaths
from kuberec_runtime.train.fleet import Fleet, LostError
from kuberec_runtime.train.job import Job
from kuberec_runtime.train.ledger import Ledger
from kuberec_runtime.train.memory import memory_status
from kuberec_runtime.train.partitions import watch_partitions
from kuberec_runtime.train.publisher import Publisher
from kuberec_runtime.train.reports import WorkerCut, WorkerReport
from kuberec_runtime.train.scoreboard import DEGRADED, PUBLISHING_PAUSED, Scoreboard
from kuberec_runtime.train.status import StatusSink
from kuberec_runtime.train.waiting import RETRY_S, Waiting
from kuberec_runtime.wire.errors import CutTimeout, ShardLost

REPORT_EVERY_S = 1.0
CUT_TIMEOUT_S = 60.0
WRITE_TIMEOUT_S = 600.0

logger = logging.getLogger(__name__)


class Driver:
    """Runs one attempt. `stop` may be called from a signal handler."""

    def __init__(self, job: Job, sink: StatusSink, fleet: Fleet | None = None) -> None:
        self._job, self._sink = job, sink
        self._spec = job.training.spec
        self._fleet = fleet or Fleet(job)
        self._board = Scoreboard(self._spec.monitors, job.training.metadata.generation)
        self._waiting = Waiting(self._fleet, self._board, sink)
        self._starts: list[PartitionStart] = []
        self._epoch = 0
        self._reported = 0.0
        self._finished = False
        self._publisher: Publisher | None = None
        self._ledger: Ledger | None = None
        self._at_work: list[Any] = []
        self._deaths = Deaths()

    @property
    def board(self) -> Scoreboard:
        """The driver's part of the status."""
        return self._board

    def stop(self, reason: str) -> None:
        """Asks for a last cut and an orderly end."""
        self._waiting.stop(reason)

    def newest_attempt(self) -> int:
        """The newest attempt in the log or the tier; for the outcome of a fenced attempt."""
        in_log = self._ledger.newest_attempt() if self._ledger else -1
        return max(in_log, self._publisher.owner() if self._publisher else -1)

    def run(self) -> str:
        """Runs the attempt and returns why it ended well: `Completed`, `Suspended` or `Preempted`.

        Raises:
            Exception: whatever ends the attempt badly; `exitcode.classify` knows what it means.
        """
        self._job.check()
        logger.info("plan %s, %d columns", self._job.plan.digest[:8], self._job.layout.dimension)
        read_files(self._job.plan)  # a wrong file ends the attempt here and for good, not in a worker
        waiting = self._waiting
        store = waiting.patiently("StoreUnavailable", (StoreError,), lambda: open_store(self._spec.checkpoint.uri))
        ledger = self._ledger = Ledger(self._job, store)
        waiting.patiently("StoreUnavailable", (StoreError,), ledger.start)
        bringup = Bringup(self._job, self._fleet, ledger, self._board, waiting)
        resumed, starts = bringup.find_epoch()
        self._show(ledger)
        try:
            self._open_publisher(bringup.launch())
            self._starts = bringup.begin(resumed, starts)
            lost: LostError | ShardLost | None = None
            while True:
                try:
                    if lost is not None:
                        self._heal(ledger, bringup, lost)
                    return self._train(ledger)
                except (LostError, ShardLost) as error:
                    if not self._deaths.another(ledger.epoch):
                        logger.error("%s, again before the next commit: going back does not help", error)
                        raise
                    lost = error
        finally:
            self._fleet.stop(timeout_s=15)
            if self._publisher is not None:
                self._publisher.close()

    def _heal(self, ledger: Ledger, bringup: Bringup, error: LostError | ShardLost) -> None:
        """Replaces who died and takes everyone back to the last commit."""
        logger.warning("%s: everyone goes back to epoch %d", error, ledger.epoch)
        self._board.condition(DEGRADED, True, "Healing", f"{error}; going back to epoch {ledger.epoch}")
        self._show(ledger)
        began = time.monotonic()
        crash_here("driver.healing")
        self._starts = bringup.heal(self._at_work)
        self._at_work, self._finished = [], False
        if self._publisher is not None:
            self._publisher.rolled_back()
        logger.info("healed in %.1f s", time.monotonic() - began)

    def _open_publisher(self, weights: WeightShapes) -> None:
        if self._spec.publish is not None:
            self._publisher = Publisher(self._job, weights)
            self._waiting.patiently("PublishFailed", (TierError,), self._publisher.claim)

    def _train(self, ledger: Ledger) -> str:
        self._epoch = max(self._epoch, ledger.next_epoch())
        self._show(ledger)
        watch = watch_partitions(self._job, self._starts)
        try:
            return self._go_on(ledger, watch)
        finally:
            if watch is not None:
                watch.close()

    def _go_on(self, ledger: Ledger, watch: PartitionWatch | None) -> str:
        checkpoint_every = duration_ms(self._spec.checkpoint.interval) / 1000
        publish_every = duration_ms(self._spec.publish.interval) / 1000 if self._spec.publish else float("inf")
        now = time.monotonic()
        next_checkpoint, next_publication = now + checkpoint_every, now + publish_every
        self._board.condition(DEGRADED, False, "Healthy")
        while True:
            self._fleet.check()
            self._report(ledger)
            if self._waiting.stopped() or self._finished:
                return self._end(ledger)
            if watch is not None and (new := watch.take()):
                self._grow(ledger, new)
            now = time.monotonic()
            if now >= next_publication:
                self._publish(ledger)
                next_publication = time.monotonic() + publish_every
            if now >= next_checkpoint:
                self._checkpoint(ledger)
                next_checkpoint = time.monotonic() + checkpoint_every
            self._waiting.pause(0.1)

    def _grow(self, ledger: Ledger, new: Sequence[PartitionStart]) -> None:
        """Takes new partitions in: where they start is committed first, then workers read them."""
        logger.info("new partitions: %s", ", ".join(str(s.partition) for s in new))
        first = len(self._starts)
        self._starts = [*self._starts, *new]
        while not self._checkpoint(ledger):
            if self._waiting.pause(RETRY_S[0]):
                return  # the last cut commits the start; the next attempt reads them
        crash_here("driver.grown")
        given = [self._fleet.worker((first + i) % self._workers, "add", [start]) for i, start in enumerate(new)]
        self._fleet.gather(given, CUT_TIMEOUT_S, "handing out new partitions", self._tick)

    def _end(self, ledger: Ledger) -> str:
        """The last cut: what was learnt is committed, then published."""
        reason = "Completed" if self._finished else self._waiting.reason
        self._fleet.gather(self._fleet.workers("pause"), CUT_TIMEOUT_S, "pausing workers")
        for attempt in range(3):
            if self._checkpoint(ledger):
                break
            logger.warning("the last checkpoint failed (%d of 3 tries)", attempt + 1)
        else:
            raise StoreError("the last checkpoint could not be committed; the next attempt goes on from the one before")
        if reason == "Completed":
            self._publish(ledger)
        self._report(ledger, now=True)
        return reason

    def _checkpoint(self, ledger: Ledger) -> bool:
        epoch, full = self._next_epoch(), ledger.full_next()
        prefix = ledger.prefix(epoch)
        try:
            with self._settled("checkpoint", epoch):
                shards, workers = self._cut(epoch, "checkpoint", epoch, full, prefix, CUT_TIMEOUT_S)
                progress = self._board.status.progress
                metrics = {"auc": progress.auc, "loss": progress.loss, "step": progress.step} if progress else {}
                version = self._publisher.status.version if self._publisher and self._publisher.status else None
                windows = self._board.gate.state()
                ledger.commit(epoch, full, prefix, shards, workers, self._starts, windows, metrics, version)
        except (StoreError, CutTimeout, TimeoutError) as error:
            logger.warning("epoch %d was not committed: %s", epoch, error)
            self._board.condition(DEGRADED, True, "CheckpointFailed", str(error))
            return False
        self._board.clear(DEGRADED, "CheckpointFailed")
        self._show(ledger)
        logger.info("committed epoch %d: %d samples", epoch, ledger.totals().samples)
        return True

    def _publish(self, ledger: Ledger) -> None:
        if self._publisher is None or not self._gate_open():
            return
        epoch = self._next_epoch()
        try:
            with self._settled("publication", epoch):
                shards, workers = self._cut(epoch, "publish", epoch, CUT_TIMEOUT_S)
                watermark = max(
                    [ledger.manifest.watermark_ms if ledger.manifest else 0, *(w.watermark_ms for w in workers)]
                )
                self._publisher.commit(epoch, shards, ledger, watermark)
        except StalePublication:
            raise
        except (TierError, CutTimeout, TimeoutError, StoreError) as error:
            logger.warning("version %d.%d was not published: %s", self._job.attempt, epoch, error)
            self._board.condition(DEGRADED, True, "PublishFailed", str(error))
            if isinstance(error, TierCorrupt):
                self._start_over()
            return
        self._board.clear(DEGRADED, "PublishFailed")
        self._show(ledger)

    def _start_over(self) -> None:
        """Redis lost what was published (emptied, or restarted without persistence): all of it goes out again."""
        assert self._publisher is not None
        logger.warning("the tier was emptied: all rows are published again")
        self._fleet.gather(self._fleet.shards("start_over"), CUT_TIMEOUT_S, "marking all rows")
        self._waiting.patiently("PublishFailed", (TierError,), self._publisher.start_over)

    def _gate_open(self) -> bool:
        verdict = self._board.verdict
        if verdict.open:
            self._board.condition(PUBLISHING_PAUSED, False, "MonitorsInRange")
        else:
            self._board.condition(PUBLISHING_PAUSED, True, verdict.reason, verdict.message)
        return verdict.open

    @contextmanager
    def _settled(self, consumer: str, epoch: int) -> Iterator[None]:
        """Tells the shards whether what they copied was kept."""
        kept = False
        try:
            yield
            kept = True
        finally:
            self._fleet.shards("settle", consumer, epoch, kept)

    def _cut(self, epoch: int, shard_method: str, *args: object) -> tuple[list[Any], list[WorkerCut]]:
        shards = self._at_work = self._fleet.shards(shard_method, *args)
        try:
            workers = self._fleet.workers("cut", epoch, CUT_TIMEOUT_S, self._agreed_step(epoch))
            cuts = self._fleet.gather(workers, CUT_TIMEOUT_S + 5, f"positions of epoch {epoch}", self._tick)
            return self._fleet.gather(shards, WRITE_TIMEOUT_S, f"files of epoch {epoch}", self._tick), cuts
        except BaseException:
            self._fleet.shards("abort", epoch)
            self._fleet.workers("release", epoch)
            raise

    def _agreed_step(self, epoch: int) -> int:
        """The step behind which all workers mark in Sync mode, 0 (wherever they are) in Async: see `Boundary`."""
        if not self._job.synchronous:
            return 0
        holding = self._fleet.workers("hold", epoch)
        return max(self._fleet.gather(holding, CUT_TIMEOUT_S, f"steps before epoch {epoch}", self._tick))

    def _next_epoch(self) -> int:
        self._epoch += 1
        return self._epoch - 1

    def _tick(self) -> None:
        if self._ledger is not None:
            self._report(self._ledger)

    def _report(self, ledger: Ledger, now: bool = False) -> None:
        if not now and time.monotonic() - self._reported < REPORT_EVERY_S:
            return
        self._reported = time.monotonic()
        reports: list[WorkerReport] = self._fleet.gather(self._fleet.workers("report"), CUT_TIMEOUT_S, "reports")
        if not now:
            held = self._fleet.gather(self._fleet.shards("memory"), CUT_TIMEOUT_S, "shards")
            self._board.status.memory = memory_status(held)
        self._board.add(reports)
        self._finished = all(r.finished for r in reports)
        self._show(ledger)

    def _show(self, ledger: Ledger) -> None:
        status = self._board.status
        status.checkpoint = ledger.status(self._workers)
        if self._publisher is not None:
            status.publication = self._publisher.status
        crash_here("status.before")
        self._sink.write(status)
        crash_here("status.written")

    @property
    def _workers(self) -> int:
        return self._spec.workers.replicas
