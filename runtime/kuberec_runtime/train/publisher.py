"""From a publication cut to a version that servers follow: rows are in the tier already, the pointer moves last.

A version is committed only by the owner of the commit log, and only forwards: the log is asked first, then the tier's
own compare-and-set on (attempt, epoch) decides.
"""

import time
from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from kuberec_api.layout import Table
from kuberec_api.meta import timestamp
from kuberec_api.training import PublicationStatus, RowType
from kuberec_runtime.models.flat import WeightShapes, by_name
from kuberec_runtime.publish.publication import Description, Publication, TableMeta, Version
from kuberec_runtime.train.job import Job
from kuberec_runtime.train.ledger import Ledger, join
from kuberec_runtime.train.shardhost import ShardPublication, open_tier, tier_namespace

I64 = NDArray[np.int64]


class Publisher:
    """Commits the publications of an attempt."""

    def __init__(self, job: Job, weights: WeightShapes) -> None:
        publish = job.training.spec.publish
        assert publish is not None
        self._job, self._weights, self._publish = job, weights, publish
        self._tier = open_tier(job, publish.redis.url)
        self._first = True
        self.status: PublicationStatus | None = None

    def claim(self) -> None:
        """Takes the tier over for this attempt.

        Raises:
            StalePublication: a newer attempt has it.
            TierError: Redis does not answer or refuses.
        """
        self._tier.claim(self._job.attempt)
        current = self._tier.current()
        if current is not None and self.status is None:
            meta = self._tier.meta(current.namespace)
            published = datetime.fromtimestamp((meta.trained_at if meta else 0) / 1000, UTC)
            self.status = PublicationStatus(version=str(current.version), published_at=timestamp(published))

    def commit(self, epoch: int, shards: Sequence[ShardPublication], ledger: Ledger, watermark_ms: int) -> None:
        """Moves `current` to version `<attempt>.<epoch>`.

        Raises:
            Fenced, StalePublication: a newer attempt took over; nothing moved.
            TierCorrupt: Redis was emptied meanwhile, so rows are missing: publish all of them.
            TierError: Redis does not answer or refuses.
        """
        ledger.check_owner()
        version = Version(self._job.attempt, epoch)
        description = Description(
            version=version,
            digest=self._job.plan.digest,
            hash=self._job.model.spec.features.hash.value,
            dtype=RowType(self._publish.dtype),
            tables={name: _meta(table) for name, table in self._job.layout.tables.items()},
            tasks=tuple(t.name for t in self._job.model.spec.tasks),
            trained_at=int(time.time() * 1000),
            watermark=watermark_ms,
        )
        dense = join([s.dense for s in shards]).weights
        changed = None if self._first else _union([s.changed for s in shards])
        namespace = tier_namespace(self._tier, self._job)
        self._tier.commit(
            Publication(namespace, description, by_name(self._weights, dense), changed), keep=self._publish.keep
        )
        self._first = False
        rows = sum(s.rows for s in shards)
        self.status = PublicationStatus(version=str(version), rows=rows, published_at=timestamp(datetime.now(UTC)))

    def owner(self) -> int:
        """The newest attempt that has claimed the tier, -1 if none."""
        return self._tier.owner()

    def start_over(self) -> None:
        """The tier was emptied: claims it anew; the next publication says that any row may have changed."""
        self._tier.claim(self._job.attempt)
        self._first = True

    def rolled_back(self) -> None:
        """Rows went back to a commit: the next publication says that any row may have changed."""
        self._first = True

    def close(self) -> None:
        """Closes the connections."""
        self._tier.close()


def _meta(table: Table) -> TableMeta:
    return TableMeta(table.ordinal, table.width, table.linear)


def _union(parts: Sequence[dict[str, I64]]) -> dict[str, I64]:
    by_table: dict[str, list[I64]] = {}
    for part in parts:
        for table, ids in part.items():
            by_table.setdefault(table, []).append(ids)
    return {table: np.concatenate(ids) for table, ids in by_table.items()}
