"""Brings shards and workers to a committed epoch: at an attempt's start, and again when one of them has died.

Who dies within an attempt is replaced, and everyone goes back to the last commit in place: shards load its rows,
workers open their sources at its offsets. Invariants that make this as exact as a new attempt:
1. Every worker's run has ended, and no call of a cut or publication is at work, before a shard is restored: nothing
   that belongs to the time after the commit is written to a shard or to the tier any more.
2. Workers come back with a higher incarnation, so a push of before, wherever it still travels, is refused by every
   shard that could take it (`wire.shardstate`).
3. Epoch numbers only rise: a cut that was open is never confused with one that follows.
"""

import logging
import secrets
from collections.abc import Sequence
from typing import Any

import numpy as np

from kuberec_runtime.checkpoint import CorruptFile, StoreError, WarmTaken
from kuberec_runtime.models.flat import WeightShapes
from kuberec_runtime.stream import PartitionStart, SourceError, shares
from kuberec_runtime.table.dense import DenseState
from kuberec_runtime.train.fleet import Fleet
from kuberec_runtime.train.job import Job
from kuberec_runtime.train.ledger import Ledger, Resumed, split
from kuberec_runtime.train.partitions import find_partitions
from kuberec_runtime.train.scoreboard import DEGRADED, Scoreboard
from kuberec_runtime.train.waiting import Waiting
from kuberec_runtime.train.warmstart import readable, summary, take

LOAD_TIMEOUT_S = 600.0
START_TIMEOUT_S = 900.0
REST_TIMEOUT_S = 120.0
MOST_HEALINGS = 3
"""From one commit."""
INCARNATIONS = 1 << 20
"""Of one attempt: an incarnation is the attempt's number times this, plus how often its workers began."""

Address = tuple[str, int]

logger = logging.getLogger(__name__)


class Deaths:
    """Counts deaths in a row: what dies again and again before the next commit has a cause that going back keeps."""

    def __init__(self) -> None:
        self._epoch, self._count = -1, 0

    def another(self, epoch: int) -> bool:
        """Counts one more death after the commit of `epoch`; False if the attempt should end of it."""
        self._count = self._count + 1 if epoch == self._epoch else 1
        self._epoch = epoch
        return self._count <= MOST_HEALINGS


class Bringup:
    """Starts a fleet and takes it back to its last commit."""

    def __init__(self, job: Job, fleet: Fleet, ledger: Ledger, board: Scoreboard, waiting: Waiting) -> None:
        self._job, self._fleet, self._ledger, self._board = job, fleet, ledger, board
        self._spec, self._waiting = job.training.spec, waiting
        self._dense = np.empty(0, np.float32)
        self._begun = 0

    def find_epoch(self) -> tuple[Resumed | None, list[PartitionStart]]:
        """The last commit, None on a first start, and where every partition goes on; progress counts from there."""
        resumed = self._waiting.patiently("StoreUnavailable", (StoreError,), self._ledger.resume)
        return resumed, self._find_starts()

    def launch(self) -> WeightShapes:
        """Starts all processes and returns names and shapes of the network's dense weights."""
        servers, workers = self._spec.parameter_servers.replicas, self._spec.workers.replicas
        logger.info("starting %d shards and %d workers", servers, workers)
        self._fleet.launch(secrets.token_bytes(32))
        first = [self._fleet.worker(0, "dense")]
        self._dense, self._ledger.weights = self._waiting.gather(first, START_TIMEOUT_S, "starting worker 0")[0]
        return self._ledger.weights

    def begin(self, resumed: Resumed | None, starts: Sequence[PartitionStart]) -> list[PartitionStart]:
        """Puts shards and workers at the epoch and lets them train.

        Args:
            resumed: what to restore; None commits epoch 0 first.
            starts: of all partitions.

        Returns:
            The starts; those of an older epoch if a file of this one was broken.
        """
        if resumed is None:
            starting = self._fleet.shards("start", len(self._dense))
            addresses = self._waiting.gather(starting, START_TIMEOUT_S, "starting shards")
            zeros = np.zeros_like(self._dense)
            state, taken = self._choose_warm(DenseState(self._dense, zeros, zeros.copy(), 0))
            parts = [(part,) for part in split(state, len(addresses))]
            self._waiting.gather(self._fleet.shards("begin", each=parts), START_TIMEOUT_S, "setting dense weights")
            self._warm(taken)
            self._ledger.begin(state, starts, taken)
        else:
            resumed, starts, addresses = self._restore(resumed, starts)
            if resumed.manifest.epoch == 0:
                self._warm(resumed.manifest.warm_start)
            self._board.restore_windows(resumed.windows)
            logger.info("resumed from epoch %d with %d samples", resumed.manifest.epoch, resumed.manifest.samples)
        incarnation = self._job.attempt * INCARNATIONS + self._begun
        self._begun += 1
        dealt = [(share, incarnation) for share in self._deal(starts)]
        connecting = self._fleet.workers("connect", addresses, each=dealt)
        self._waiting.gather(connecting, START_TIMEOUT_S, "connecting workers")
        self._fleet.run_workers()
        return list(starts)

    def heal(self, at_work: Sequence[Any]) -> list[PartitionStart]:
        """Replaces who is dead and takes everyone back to the last commit.

        Args:
            at_work: calls of shards that may still write.

        Raises:
            TimeoutError: they did not end, or a replacement did not start.
        """
        self._fleet.halt(REST_TIMEOUT_S)
        self._fleet.rest(at_work, REST_TIMEOUT_S)
        for name in self._fleet.mend():
            logger.warning("%s is replaced", name)
        self._board.rewind()
        return self.begin(*self.find_epoch())

    def _find_starts(self) -> list[PartitionStart]:
        """Where every partition goes on behind the last commit, from which progress counts."""
        ledger, source = self._ledger, self._spec.source
        starts = self._waiting.patiently(
            "", (SourceError, StoreError), lambda: find_partitions(source, ledger.starts(), ledger.store)
        )
        totals = ledger.totals()
        self._board.resume(totals.steps, totals.samples, totals.skipped)
        return starts

    def _deal(self, starts: Sequence[PartitionStart]) -> list[list[PartitionStart]]:
        """Each worker's partitions; in Sync mode also those that have ended.

        Who reads what must there not depend on how far it was read before.
        """
        workers = self._spec.workers.replicas
        return [list(starts[i::workers]) for i in range(workers)] if self._job.synchronous else shares(starts, workers)

    def _choose_warm(self, fresh: DenseState) -> tuple[DenseState, WarmTaken | None]:
        """The dense state to begin with, and what is taken of another training, if spec.warmStart wants it."""
        wish = self._spec.warm_start
        if wish is None:
            return fresh, None
        job, weights = self._job, self._ledger.weights
        state, taken = self._waiting.patiently(
            "StoreUnavailable", (StoreError,), lambda: take(wish, job, fresh, weights)
        )
        logger.info("warm start %s", summary(taken))
        return state, taken

    def _warm(self, taken: WarmTaken | None) -> None:
        """Loads another training's rows: until an epoch has them, whoever begins does."""
        if taken is not None:
            with readable(taken):
                loading = self._fleet.shards("warm", taken)
                rows = self._waiting.gather(loading, LOAD_TIMEOUT_S, "loading rows of a warm start")
            logger.info("%d rows taken", sum(rows))

    def _restore(
        self, resumed: Resumed, starts: Sequence[PartitionStart]
    ) -> tuple[Resumed, Sequence[PartitionStart], list[Address]]:
        """Restores all shards from one manifest; a corrupt file sends all of them back to the manifest before it.

        Who lives loads its rows while a replacement starts.
        """
        broken: list[str] = []
        while True:
            parts = split(resumed.dense, self._spec.parameter_servers.replicas)
            try:
                each = [(part,) for part in parts]
                pending = self._fleet.shards("restore", len(self._dense), resumed.key, each=each)
                restored = self._waiting.gather(pending, START_TIMEOUT_S + LOAD_TIMEOUT_S, "restoring shards")
                logger.info("restored %d rows", sum(rows for _, rows in restored))
                return resumed, starts, [address for address, _ in restored]
            except CorruptFile as error:
                if error.key in broken:
                    raise
                broken.append(error.key)
                self._board.condition(DEGRADED, True, "CheckpointCorrupt", str(error))
                older = self._ledger.resume(broken)
                if older is None:
                    raise
                resumed, starts = older, self._find_starts()
