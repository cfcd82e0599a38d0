"""Rows of one namespace for a request: hot ones from the cache, all misses of all tables in one MGET, else defaults.

A slow or dead Redis costs quality for a moment, never an error: what does not come within the limit is the default row
(zeros), counted and reported. One `RowReader` belongs to one namespace, so rows of two models never meet.
"""

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from kuberec_api.layout import Layout
from kuberec_api.training import RowType
from kuberec_runtime.publish.errors import TierError
from kuberec_runtime.publish.fetch import fetch_rows
from kuberec_runtime.publish.resp import Address, Connection
from kuberec_runtime.serve.breaker import Breaker
from kuberec_runtime.serve.rowcache import RowCache
from kuberec_runtime.table.buckets import key_of, split_key

F32 = NDArray[np.float32]
I64 = NDArray[np.int64]

REFRESH_BATCH = 4096


@dataclass
class RowReport:
    """Where a request's unique rows came from.

    Attributes:
        cached: from the cache.
        fetched: from Redis.
        absent: without a row in the tier: ids that were never learnt.
        unread: defaults because Redis did not answer in time.
        missed: by table, rows that were not in the cache.
        redis_s: seconds of the round trip, 0 without one.
    """

    cached: int = 0
    fetched: int = 0
    absent: int = 0
    unread: int = 0
    missed: dict[str, int] = field(default_factory=dict)
    redis_s: float = 0.0


@dataclass(frozen=True)
class RowSource:
    """Where rows of a namespace are read."""

    address: Address
    password: str | None
    namespace: str
    dtype: RowType
    timeout_s: float
    breaker: Breaker


class RowReader:
    """Reads rows of `layout`'s tables in one namespace. Safe for threads: each has its own connection."""

    def __init__(self, layout: Layout, source: RowSource, capacity: int) -> None:
        self.source = source
        self._tables = {t.ordinal: t for t in layout.tables.values()}
        self._widths = {t.name: t.width for t in layout.tables.values()}
        tables_of = {w: sum(t.width == w for t in layout.tables.values()) for w in layout.widths}
        total = sum(tables_of.values())
        self.caches = {w: RowCache(w, capacity * n // total) for w, n in tables_of.items()} if capacity else {}
        self._local = threading.local()

    def read(self, keys: Mapping[int, I64]) -> tuple[dict[int, F32], RowReport]:
        """Returns rows float32[u_w, w] of unique keys int64[u_w] by width, and where they came from."""
        report = RowReport()
        rows: dict[int, F32] = {}
        misses: dict[int, I64] = {}
        generations = {width: cache.generation for width, cache in self.caches.items()}
        for width, wanted in keys.items():
            cache = self.caches.get(width)
            if cache is None:
                rows[width] = np.zeros((wanted.size, width), np.float32)
                misses[width] = np.arange(wanted.size)
                continue
            rows[width], misses[width], absent = cache.read(wanted)
            report.cached += wanted.size - misses[width].size - absent
            report.absent += absent
        if any(m.size for m in misses.values()):
            self._read_misses(keys, rows, misses, generations, report)
        return rows, report

    def _read_misses(
        self,
        keys: Mapping[int, I64],
        rows: dict[int, F32],
        misses: Mapping[int, I64],
        generations: Mapping[int, int],
        report: RowReport,
    ) -> None:
        wanted: dict[str, I64] = {}
        places: dict[str, tuple[int, I64]] = {}
        for width, positions in misses.items():
            if not positions.size:
                continue
            ordinals, ids = split_key(keys[width][positions])
            for ordinal in np.unique(ordinals).tolist():
                table = self._tables[ordinal].name
                mine = ordinals == ordinal
                wanted[table] = ids[mine]
                places[table] = (width, positions[mine])
        report.missed = {table: ids.size for table, ids in wanted.items()}
        started = time.perf_counter()
        fetched = self.fetch(wanted, self.source.timeout_s)
        report.redis_s = time.perf_counter() - started
        for table, (width, positions) in places.items():
            if fetched is None:
                report.unread += positions.size
                continue
            values, found = fetched[table]
            rows[width][positions] = values
            hits = int(found.sum())
            report.fetched += hits
            report.absent += positions.size - hits
            cache = self.caches.get(width)
            if cache is not None:
                cache.admit(keys[width][positions], values, found, generations[width])

    def fetch(self, wanted: Mapping[str, I64], timeout_s: float) -> dict[str, tuple[F32, NDArray[np.bool_]]] | None:
        """One round trip for ids by table; None if Redis did not answer in time or the breaker is open."""
        source = self.source
        if not source.breaker.allows():
            return None
        try:
            connection: Connection | None = getattr(self._local, "connection", None)
            if connection is None or connection.closed:
                connection = Connection(source.address, source.password, max(timeout_s, 0.05))
                self._local.connection = connection
            fetched = fetch_rows(connection, source.namespace, wanted, self._widths, source.dtype, timeout_s)
        except TierError:
            source.breaker.failed()
            return None
        source.breaker.succeeded()
        return fetched

    def refresh(self, changed: Mapping[str, I64] | None, timeout_s: float = 5.0) -> bool:
        """Reads those cached rows again that a publication changed (all of them if `changed` is None).

        Returns:
            False if Redis did not answer: call again.
        """
        for cache in self.caches.values():
            cache.begin_refresh()
        for table in self._tables.values():
            cache_of = self.caches.get(table.width)
            if cache_of is None or (changed is not None and table.name not in changed):
                continue
            if changed is None:
                keys = cache_of.cached()
                keys = keys[split_key(keys)[0] == table.ordinal]
            else:
                keys = cache_of.cached(key_of(table.ordinal, changed[table.name]))
            for at in range(0, keys.size, REFRESH_BATCH):
                batch = keys[at : at + REFRESH_BATCH]
                fetched = self.fetch({table.name: split_key(batch)[1]}, timeout_s)
                if fetched is None:
                    return False
                cache_of.refresh(batch, *fetched[table.name])
        return True

    def fill(self, ids: Mapping[str, I64]) -> None:
        """Reads rows into the cache ahead of requests, such as those that were learnt last."""
        generations = {width: cache.generation for width, cache in self.caches.items()}
        for table in self._tables.values():
            cache = self.caches.get(table.width)
            wanted = ids.get(table.name)
            if cache is None or wanted is None:
                continue
            for at in range(0, wanted.size, REFRESH_BATCH):
                batch = wanted[at : at + REFRESH_BATCH]
                fetched = self.fetch({table.name: batch}, 5.0)
                if fetched is None:
                    return
                keys = key_of(table.ordinal, batch)
                cache.admit(keys, *fetched[table.name], generations[table.width])
