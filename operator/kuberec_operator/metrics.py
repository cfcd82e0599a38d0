"""Prometheus metrics of the operator itself; what a training does is in its status, and in the driver's metrics."""

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
