"""What a shard does besides serving rows: restores its buckets, writes its part of an epoch, publishes its rows.

Invariant of dirty marks: a cut clears the marks of what it copied; until `settle` says that the copy is committed (or
published), the keys are kept here, and `settle(..., kept=False)` marks them again. So a row that was learnt is always
in the last commit, in the copy that is being written, or dirty.
"""

import logging
import os
import threading
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kuberec_api.environment import REDIS_PASSWORD
from kuberec_api.training import RowType
from kuberec_runtime.checkpoint import (
    FileRef,
    Store,
    WarmTaken,
    iter_counts,
    iter_rows,
    open_store,
    read_manifest,
    write_counts,
    write_removed,
    write_rows,
)
from kuberec_runtime.crashpoints import crash_here
from kuberec_runtime.publish.tier import Tier
from kuberec_runtime.spans import ended_now, name_thread, span
from kuberec_runtime.table.admission import Counts
from kuberec_runtime.table.buckets import BUCKETS, bucket_of, shard_of, split_key
from kuberec_runtime.table.dense import DenseState
from kuberec_runtime.table.eviction import Sweeper
from kuberec_runtime.table.table import Consumer, Rows
from kuberec_runtime.train.eviction import rule_of
from kuberec_runtime.train.job import Job
from kuberec_runtime.train.memory import MIB, Holding
from kuberec_runtime.train.warmstart import open_source, warm_rows
from kuberec_runtime.wire.server import Shard
from kuberec_runtime.wire.shardstate import Cut, ShardConfig

I64 = NDArray[np.int64]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ShardEpoch:
    """One shard's part of an epoch: row files, its slice of the dense weights, samples applied by partition."""

    files: tuple[FileRef, ...]
    dense: DenseState
    applied: dict[int, int]


@dataclass(frozen=True)
class ShardPublication:
    """One shard's part of a publication: rows written, ids written or deleted by table, its slice of dense weights."""

    rows: int
    changed: dict[str, I64]
    dense: DenseState


class ShardHost:
    """One shard's process."""

    def __init__(self, job: Job, index: int, token: bytes) -> None:
        self._job, self._index, self._token = job, index, token
        self._count = job.training.spec.parameter_servers.replicas
        self._taken: dict[Consumer, tuple[int, dict[int, I64]]] = {}
        self._settling = threading.Lock()
        self._shard: Shard | None = None
        self._address = "", 0
        self._sweeper: Sweeper | None = None
        self._tier: Tier | None = None

    def start(self, host: str, dense_size: int) -> tuple[str, int]:
        """Compiles the kernels, opens the listener and returns its address; one that is open already stays open."""
        if self._shard is not None:
            return self._address
        spec, defaults = self._job.model.spec, self._job.model.spec.embeddings.defaults
        self._shard = Shard(
            ShardConfig(
                index=self._index,
                shards=self._count,
                widths=self._job.layout.widths,
                dense_size=dense_size,
                optimizer=defaults.optimizer,
                initializer=defaults.initializer,
                dense_optimizer=self._job.training.spec.optimizer,
                seed=spec.seed,
                token=self._token,
                digest=self._job.plan.digest,
                workers=self._job.training.spec.workers.replicas,
                min_count=defaults.admission.min_count if defaults.admission else 0,
                published=self._job.training.spec.publish is not None,
                synchronous=self._job.synchronous,
            )
        )
        if (rule := rule_of(defaults.eviction, self._count)) is not None:
            state = self._shard.state
            self._sweeper = Sweeper(lambda: state.tables, rule)
            self._sweeper.start()
        self._address = self._shard.listen(host, 0)
        return self._address

    def restore(self, manifest_key: str, dense: DenseState) -> int:
        """Puts this shard's buckets of a committed epoch in the place of what it has; all of it counts as unpublished.

        No cut may be at work.

        Raises:
            CorruptFile: a file is not what the manifest says; the driver falls back to an older epoch.
        """
        shard = self._ready
        with self._settling:
            self._taken.clear()
        store = open_store(self._job.training.spec.checkpoint.uri, os.environ)
        manifest = read_manifest(store, manifest_key)
        mine = buckets_of_shard(self._index, self._count)
        files = iter_rows(store, manifest, bucket_of, mine)
        rows = ((file.width, removed_rows(keys) if raw is None else Rows(keys, raw)) for file, keys, raw in files)
        shard.restore(rows, dense, manifest.samples_by_partition, epoch=manifest.epoch)
        for width, buckets, added, counters in iter_counts(store, manifest, mine):
            if width in shard.state.tables:
                shard.state.tables[width].restore_counts(Counts(buckets, added, counters))
        shard.mark_all_dirty("publication")
        return self.rows()

    def warm(self, taken: WarmTaken) -> int:
        """Adds the rows that a warm start takes; all of them count as changed. Returns the number of rows.

        Raises:
            CorruptFile: a file of the other training's epoch is missing or broken.
        """
        store = open_source(taken.uri)
        tables = self._ready.state.tables
        for width, rows in warm_rows(store, read_manifest(store, taken.manifest), taken):
            own = shard_of(rows.keys, self._count) == self._index
            tables[width].restore(rows.keys[own], rows.raw[own])
            tables[width].remove(rows.removed[shard_of(rows.removed, self._count) == self._index], ())
        self._ready.mark_all_dirty("checkpoint")
        self._ready.mark_all_dirty("publication")
        return self.rows()

    def begin(self, dense: DenseState) -> None:
        """Starts from nothing: no rows, initial dense weights."""
        self._ready.set_dense(dense.weights)

    def checkpoint(self, epoch: int, full: bool, prefix: str, timeout_s: float) -> ShardEpoch:
        """Takes the cut `epoch` and writes its rows; training goes on while they are written.

        Raises:
            CutTimeout: a worker did not mark in time; nothing was taken.
            StoreError: the files could not be written; the rows are dirty again.
        """
        cut = self._take(epoch, "checkpoint", full, timeout_s)
        crash_here("shard.checkpoint-taken")
        store = open_store(self._job.training.spec.checkpoint.uri, os.environ)
        try:
            with span("write"):
                files = self._write_files(store, prefix, cut)
        except BaseException:
            self.settle("checkpoint", epoch, kept=False)
            raise
        self._report(epoch)
        return ShardEpoch(files, cut.dense, dict(cut.applied))

    def publish(self, epoch: int, timeout_s: float) -> ShardPublication:
        """Takes the cut `epoch` of what changed since the last publication and writes its rows to the tier.

        Raises:
            CutTimeout: a worker did not mark in time; nothing was taken.
            TierError: Redis refused or a newer attempt owns the tier; the rows are dirty again.
        """
        cut = self._take(epoch, "publication", False, timeout_s)
        try:
            with span("publish"):
                changed, count = self._write_rows(cut)
        except BaseException:
            self.settle("publication", epoch, kept=False)
            raise
        crash_here("shard.rows-published")
        return ShardPublication(count, changed, cut.dense)

    def settle(self, consumer: Consumer, epoch: int, kept: bool) -> None:
        """Forgets the keys of the cut `epoch` if it was committed or published, else marks them dirty again.

        A word that comes late, when the consumer's next cut is taken already, changes nothing.
        """
        with self._settling:
            if self._taken.get(consumer, (None, {}))[0] != epoch:
                return
            _, keys = self._taken.pop(consumer)
        if not kept and keys:
            self._ready.redirty(consumer, keys)

    def start_over(self) -> None:
        """The tier was emptied: every row goes out with the next publication."""
        self._ready.mark_all_dirty("publication")

    def abort(self, epoch: int) -> None:
        """Releases whoever waits for the cut `epoch`."""
        self._ready.abort_cut(epoch)

    def rows(self) -> int:
        """Rows held."""
        return self._ready.rows

    def memory(self) -> dict[int, Holding]:
        """What the tables hold, by row width; it looks at no row, so it may be asked often."""
        return {width: Holding.of(table) for width, table in self._ready.state.tables.items()}

    def close(self) -> None:
        """Stops sweeping and listening."""
        if self._sweeper is not None:
            self._sweeper.stop()
        if self._shard is not None:
            self._shard.close()
        if self._tier is not None:
            self._tier.close()

    def _take(self, epoch: int, consumer: Consumer, full: bool, timeout_s: float) -> Cut:
        if (unsettled := self._taken.get(consumer)) is not None:
            self.settle(consumer, unsettled[0], kept=False)
        crash_here("shard.before-take")
        name_thread("epochs")
        cut = self._ready.await_cut(epoch, consumer, full, timeout_s)
        ended_now("cut copy", cut.stall_s)
        with self._settling:
            self._taken[consumer] = epoch, {width: rows.touched for width, rows in cut.rows.items()}
        return cut

    def _report(self, epoch: int) -> None:
        """One log line: what the rows and keys weigh, what is held for them, and what came and went."""
        total, tables = Holding.sum(self.memory().values()), self._ready.state.tables.values()
        logger.info(
            "epoch %d, shard %d: %d rows, %.1f MiB of rows and keys, %.1f MiB held (%.2fx), %d evicted, "
            "%d gradients of keys without a row dropped",
            *(epoch, self._index, total.rows, total.content / MIB, total.held / MIB, total.ratio or 0),
            *(self._sweeper.evicted if self._sweeper else 0, sum(t.dropped for t in tables)),
        )

    def _write_files(self, store: Store, prefix: str, cut: Cut) -> tuple[FileRef, ...]:
        mine = buckets_of_shard(self._index, self._count)
        buckets = mine.start, mine.stop - 1
        files = []
        for width, rows in sorted(cut.rows.items()):
            if rows.keys.size:
                files.append(write_rows(store, prefix, width, rows.keys, rows.raw, shard=self._index, buckets=buckets))
            if rows.removed.size:
                files.append(write_removed(store, prefix, width, rows.removed, shard=self._index, buckets=buckets))
            if (c := rows.counts) is not None and c.buckets.size:
                files.append(write_counts(store, prefix, width, c.buckets, c.added, c.counters, shard=self._index))
        return tuple(files)

    def _write_rows(self, cut: Cut) -> tuple[dict[str, I64], int]:
        publish = self._job.training.spec.publish
        if publish is None:
            return {}, 0
        tier = self._open_tier(publish.redis.url)
        namespace = tier_namespace(tier, self._job)
        changed: dict[str, I64] = {}
        count = 0
        for width, rows in cut.rows.items():
            ordinals, ids = split_key(rows.keys)
            gone_from, gone = split_key(rows.removed)
            for table in self._job.layout.tables.values():
                if table.width != width:
                    continue
                mine = np.flatnonzero(ordinals == table.ordinal)
                removed = gone[gone_from == table.ordinal]
                if mine.size:
                    weights = rows.raw[mine, :width]
                    tier.write_rows(namespace, table.name, ids[mine], weights, RowType(publish.dtype))
                if removed.size:
                    tier.delete_rows(namespace, table.name, removed)
                if mine.size + removed.size:
                    changed[table.name] = np.concatenate([ids[mine], removed])
                    count += mine.size
        return changed, count

    def _open_tier(self, url: str) -> Tier:
        if self._tier is None:
            self._tier = open_tier(self._job, url)
        return self._tier

    @property
    def _ready(self) -> Shard:
        if self._shard is None:
            raise RuntimeError("this shard is not started yet")
        return self._shard


def removed_rows(keys: I64) -> Rows:
    """Tombstones as a table's restore takes them."""
    return Rows(np.zeros(0, np.int64), np.zeros((0, 0), np.float32), keys)


def buckets_of_shard(index: int, shards: int) -> range:
    """The virtual buckets that a shard owns: bucket b belongs to shard `b * shards // 256`."""
    return range(-(-index * BUCKETS // shards), -(-(index + 1) * BUCKETS // shards))


def open_tier(job: Job, url: str) -> Tier:
    """Opens the tier as this attempt; the password comes from the environment, from a Secret."""
    password = os.environ.get(REDIS_PASSWORD)
    return Tier(url, password=password, namespace=job.namespace, training=job.name, attempt=job.attempt)


def tier_namespace(tier: Tier, job: Job) -> str:
    """The namespace of this plan's rows in the tier."""
    assert job.training.spec.publish is not None
    widths = {t.name: t.width for t in job.layout.tables.values()}
    return tier.namespace_of(job.plan.digest, widths, RowType(job.training.spec.publish.dtype))
