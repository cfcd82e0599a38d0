"""The attempt's pen on the checkpoint: resume from the last commit, commit the next epoch, keep what is needed.

Exactly-once, as a sum: a commit is refused unless every shard counted the same samples for every partition and the
workers pushed just those. Offsets, rows, dense weights and counts then stand in ONE manifest behind ONE log record.
"""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version

import numpy as np
from numpy.typing import NDArray

from featuregen.compiler import explain_difference
from featuregen.spec import duration_ms
from kuberec_api.meta import timestamp
from kuberec_api.training import CheckpointStatus, Offset
from kuberec_runtime.checkpoint import (
    CommitLog,
    Link,
    LinkKind,
    Manifest,
    PartitionOffset,
    RestorePlan,
    Store,
    TableRef,
    WarmTaken,
    WeightRef,
    data_prefix,
    extend,
    find_restorable,
    next_kind,
    read_dense,
    read_log,
    retain,
    write_dense,
    write_manifest,
)
from kuberec_runtime.crashpoints import crash_here
from kuberec_runtime.models.flat import WeightShapes
from kuberec_runtime.stream import PartitionStart, Position
from kuberec_runtime.table.dense import DenseState
from kuberec_runtime.train.job import Job
from kuberec_runtime.train.reports import WorkerCut
from kuberec_runtime.train.rowstate import check_row_state, reference
from kuberec_runtime.train.shardhost import ShardEpoch

F32 = NDArray[np.float32]
LIBRARIES = ("tensorflow-cpu", "keras", "numba", "numpy", "pyarrow", "ray", "confluent-kafka", "kuberec")

SHOWN_UNITS = 64

logger = logging.getLogger(__name__)


class DigestMismatchError(Exception):
    """The checkpoint was written for another feature plan."""


class CountMismatchError(Exception):
    """Shards and workers disagree on the samples applied: the epoch must not be committed."""


@dataclass(frozen=True)
class Resumed:
    """Where an attempt goes on: the manifest and its key, the dense state, the monitors' windows."""

    key: str
    manifest: Manifest
    dense: DenseState
    windows: dict[str, F32]


@dataclass(frozen=True)
class Totals:
    """Counts up to an epoch, since the training first started."""

    steps: int
    samples: int
    skipped: int


class Ledger:
    """Reads and extends the checkpoint of one training, as one attempt."""

    def __init__(self, job: Job, store: Store) -> None:
        self._job, self.store = job, store
        self._log = CommitLog(store, job.attempt)
        self._broken_chain = False
        self._row_optimizer = job.model.spec.embeddings.defaults.optimizer
        self._spec_hash = hashlib.sha256(job.training.spec.model_dump_json(by_alias=True).encode()).hexdigest()
        self._resumed_samples: dict[int, int] = {}
        self._resumed_skipped: dict[int, int] = {}
        self._warm: WarmTaken | None = None
        self.manifest: Manifest | None = None
        self.weights: WeightShapes = ()
        """Names and shapes of the dense weights, told by a worker once the network is built."""

    def start(self) -> None:
        """Claims the log for this attempt.

        Raises:
            Fenced: an equal or newer attempt owns it.
            StoreError: the store does not answer.
        """
        self._log.start()
        crash_here("driver.started")

    def newest_attempt(self) -> int:
        """The newest attempt in the log, -1 if none; what a fenced attempt reports."""
        return read_log(self.store).attempt

    def resume(self, broken: Sequence[str] = ()) -> Resumed | None:
        """Finds the newest epoch that can be restored, None on a first start.

        Raises:
            DigestMismatchError: it belongs to another feature plan.
            OptimizerMismatchError: its rows hold another optimizer's state.
            NothingToRestore: there are commits, but none can be read.
        """
        plan = find_restorable(self.store, broken=broken)
        if plan is None:
            return None
        self._broken_chain = bool(plan.skipped)
        self._check_digest(plan)
        check_row_state(plan.manifest, self._row_optimizer)
        assert plan.manifest.dense is not None
        arrays, metadata = read_dense(self.store, plan.manifest.dense)
        windows = {k.removeprefix("window."): v for k, v in arrays.items() if k.startswith("window.")}
        dense = DenseState(arrays["weights"], arrays["m"], arrays["v"], int(metadata["step"]))
        self.manifest, self._warm = plan.manifest, plan.manifest.warm_start
        self._resumed_samples = dict(plan.manifest.samples_by_partition)
        self._resumed_skipped = dict(plan.manifest.skipped_by_partition)
        return Resumed(plan.committed.manifest, plan.manifest, dense, windows)

    def prefix(self, epoch: int) -> str:
        """A new folder for the files of an epoch."""
        return data_prefix(epoch, self._job.attempt)

    def full_next(self) -> bool:
        """True if the next epoch must hold all rows."""
        chain = self.manifest.chain if self.manifest else ()
        return next_kind(chain, broken=self._broken_chain) is LinkKind.FULL

    def begin(self, dense: DenseState, starts: Sequence[PartitionStart], warm: WarmTaken | None = None) -> None:
        """Commits epoch 0: it pins where every partition starts and ends, and what is taken of another training."""
        offsets = [self._offset(s, s.position) for s in starts]
        self._warm = warm
        self._commit(0, (Link(epoch=0, kind=LinkKind.FULL),), dense, {}, offsets, {}, {}, {}, 0, None)

    def commit(
        self,
        epoch: int,
        full: bool,
        prefix: str,
        shards: Sequence[ShardEpoch],
        workers: Sequence[WorkerCut],
        starts: Sequence[PartitionStart],
        windows: Mapping[str, F32],
        metrics: Mapping[str, float | None],
        published: str | None,
    ) -> None:
        """Commits an epoch whose row files are written.

        Raises:
            CountMismatchError: shards and workers did not count the same samples.
            Fenced: a newer attempt owns the log.
            StoreError: it could not be written; nothing is committed.
        """
        assert self.manifest is not None
        positions = {p: position for w in workers for p, position in w.positions.items()}
        samples = _sums(self._resumed_samples, [w.samples for w in workers])
        _check_counts(epoch, samples, shards)
        link = Link(
            epoch=epoch,
            kind=LinkKind.FULL if full else LinkKind.DELTA,
            files=tuple(f for s in shards for f in s.files),
        )
        offsets = [self._offset(s, positions.get(s.partition, s.position)) for s in starts]
        watermark = max([self.manifest.watermark_ms, *(w.watermark_ms for w in workers)])
        skipped = _sums(self._resumed_skipped, [w.skipped for w in workers])
        self._commit(
            epoch,
            extend(self.manifest.chain, link),
            join([s.dense for s in shards]),
            windows,
            offsets,
            samples,
            skipped,
            metrics,
            watermark,
            published,
            prefix,
        )
        self._broken_chain = False
        crash_here("driver.committed")
        try:
            retain(self.store, self._job.training.spec.checkpoint.keep)
        except Exception as error:
            logger.warning("old epochs were not removed this time: %s", error)

    def check_owner(self) -> None:
        """Raises `Fenced` if a newer attempt owns the log: asked before anything outside is moved."""
        self._log.check()

    @property
    def epoch(self) -> int:
        """The epoch of the last commit, 0 before the first."""
        return self.manifest.epoch if self.manifest else 0

    def next_epoch(self) -> int:
        """The number of the next cut: above everything in the log."""
        return 1 + max(self._log.last.epoch if self._log.last else 0, self.epoch)

    def totals(self) -> Totals:
        """Counts of the last commit."""
        if self.manifest is None:
            return Totals(0, 0, 0)
        steps = int(self.manifest.metrics.get("step") or 0)
        return Totals(steps, self.manifest.samples, sum(self.manifest.skipped_by_partition.values()))

    def starts(self) -> list[PartitionStart]:
        """Partitions as the last commit left them."""
        if self.manifest is None:
            return []
        return [PartitionStart(o.partition, Position(o.next, o.skip), o.end) for o in self.manifest.offsets]

    def status(self, workers: int) -> CheckpointStatus | None:
        """The last commit for the resource's status."""
        m = self.manifest
        if m is None:
            return None
        shown = m.offsets
        if self._job.training.spec.source.files is not None:  # there may be thousands: those that are being read
            shown = tuple(o for o in m.offsets if o.skip and o.next != o.end)[:SHOWN_UNITS]
        offsets = [
            Offset(worker=i % workers, topic=o.topic, partition=o.partition, offset=o.next or o.skip)
            for i, o in enumerate(shown)
        ]
        return CheckpointStatus(
            epoch=m.epoch,
            attempt=m.attempt,
            uri=self._job.training.spec.checkpoint.uri,
            committed_at=m.created_at,
            samples=m.samples,
            offsets=offsets,
        )

    def _offset(self, start: PartitionStart, position: Position) -> PartitionOffset:
        known = {o.partition: o.start for o in self.manifest.offsets} if self.manifest else {}
        kafka = self._job.training.spec.source.kafka
        return PartitionOffset(
            topic=start.unit.name if start.unit is not None else kafka.topic if kafka is not None else "",
            partition=start.partition,
            start=known.get(start.partition, start.position.next),
            next=position.next,
            skip=position.skip,
            end=start.end,
        )

    def _commit(
        self,
        epoch: int,
        chain: tuple[Link, ...],
        dense: DenseState,
        windows: Mapping[str, F32],
        offsets: Sequence[PartitionOffset],
        samples: Mapping[int, int],
        skipped: Mapping[int, int],
        metrics: Mapping[str, float | None],
        watermark: int,
        published: str | None,
        prefix: str | None = None,
    ) -> None:
        arrays = {"weights": dense.weights, "m": dense.m, "v": dense.v}
        arrays |= {f"window.{name}": window for name, window in windows.items()}
        metadata = {"step": str(dense.step)}
        manifest = Manifest(
            epoch=epoch,
            attempt=self._job.attempt,
            digest=self._job.plan.digest,
            spec_hash=self._spec_hash,
            created_at=timestamp(datetime.now(UTC)),
            chain=chain,
            dense=write_dense(self.store, prefix or self.prefix(epoch), arrays, metadata),
            offsets=tuple(offsets),
            samples_by_partition=dict(samples),
            skipped_by_partition=dict(skipped),
            watermark_ms=watermark,
            shards=self._job.training.spec.parameter_servers.replicas,
            tables=tuple(
                TableRef(name=t.name, ordinal=t.ordinal, dim=t.dim, linear=t.linear)
                for t in self._job.layout.tables.values()
            ),
            weights=tuple(WeightRef(name=name, shape=shape) for name, shape in self.weights),
            row_optimizer=reference(self._row_optimizer),
            interval_ms=duration_ms(self._job.training.spec.checkpoint.interval),
            libraries=_libraries(),
            metrics=dict(metrics),
            published=published,
            warm_start=self._warm,
            plan=self._job.plan.canonical,
        )
        self._log.commit(epoch, write_manifest(self.store, manifest))
        self.manifest = manifest

    def _check_digest(self, plan: RestorePlan) -> None:
        written, mine = plan.manifest.digest, self._job.plan.digest
        if written == mine:
            return
        changed = explain_difference(plan.manifest.plan or {}, self._job.plan.canonical)
        raise DigestMismatchError(
            f"checkpoint {plan.committed.attempt}.{plan.committed.epoch} at {self.store.uri} was written for plan "
            f"{written[:8]}, this model's plan is {mine[:8]}\n  changed since: {', '.join(changed) or 'unknown'}\n"
            "  undo the change, or start anew under another checkpoint.uri"
        )


def join(parts: Sequence[DenseState]) -> DenseState:
    """Joins the shards' slices, in shard order, into the whole dense state."""
    return DenseState(
        np.concatenate([p.weights for p in parts]),
        np.concatenate([p.m for p in parts]),
        np.concatenate([p.v for p in parts]),
        max(p.step for p in parts),
    )


def split(dense: DenseState, shards: int) -> list[DenseState]:
    """Cuts the dense state into the shards' slices; the inverse of `join`."""
    cut = [np.array_split(a, shards) for a in (dense.weights, dense.m, dense.v)]
    return [DenseState(w, m, v, dense.step) for w, m, v in zip(*cut, strict=True)]


def _check_counts(epoch: int, counted: Mapping[int, int], shards: Sequence[ShardEpoch]) -> None:
    expected = {p: n for p, n in counted.items() if n}
    for index, shard in enumerate(shards):
        applied = {p: n for p, n in shard.applied.items() if n}
        if applied != expected:
            raise CountMismatchError(
                f"epoch {epoch} is not committed: the workers pushed {expected} samples by partition, "
                f"shard {index} applied {applied}"
            )


def _sums(base: Mapping[int, int], more: Sequence[Mapping[int, int]]) -> dict[int, int]:
    out = dict(base)
    for counts in more:
        for partition, n in counts.items():
            out[partition] = out.get(partition, 0) + n
    return out


def _libraries() -> dict[str, str]:
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
