"""Prometheus metrics of the operator itself, and what the statuses of trainings say of the memory of their tables."""

from collections.abc import Iterable, Mapping
from typing import Any

from prometheus_client import Counter, Gauge, Histogram

RECONCILE_SECONDS = Histogram(
    "kuberec_reconcile_duration_seconds",
    "Duration of one reconcile.",
    ["kind"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
RECONCILE_ERRORS = Counter("kuberec_reconcile_errors_total", "Reconciles that failed and are tried again.", ["kind"])
QUEUE_DEPTH = Gauge("kuberec_queue_depth", "Objects waiting for a reconcile.")
WRITES = Counter("kuberec_api_writes_total", "Writes to the API server.", ["verb", "resource"])
RESTARTS = Counter("kuberec_attempts_lost_total", "Attempts that were lost.", ["reason"])
CONDITIONS = Gauge(
    "kuberec_resource_condition", "1 where the condition is True.", ["kind", "namespace", "name", "type"]
)
LEADING = Gauge("kuberec_leading", "1 while this replica holds the Lease.")
TABLE_ROWS = Gauge(
    "kuberec_table_rows", "Embedding rows that a parameter server holds.", ["namespace", "training", "shard"]
)
TABLE_BYTES = Gauge(
    "kuberec_table_bytes",
    "Bytes that a parameter server holds: `rows` with keys and marks, or `index`.",
    ["namespace", "training", "shard", "part"],
)
_HOLDING = ("Running", "Suspending")
"""States in which parameter servers hold something; afterwards a status says what was."""


def show_tables(bodies: Iterable[Mapping[str, Any]]) -> None:
    """Sets the gauges of tables to what the trainings that run say in `status.memory`, of all objects that exist."""
    TABLE_ROWS.clear()
    TABLE_BYTES.clear()
    for body in bodies:
        name, status = (body["metadata"]["namespace"], body["metadata"]["name"]), body.get("status") or {}
        if status.get("state") not in _HOLDING:
            continue
        for held in (status.get("memory") or {}).get("shards", []):
            shard = str(held["shard"])
            TABLE_ROWS.labels(*name, shard).set(held["rows"])
            TABLE_BYTES.labels(*name, shard, "rows").set(held["rowBytes"])
            TABLE_BYTES.labels(*name, shard, "index").set(held["indexBytes"])
