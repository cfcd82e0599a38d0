"""A replica's Prometheus metrics, in a registry of its own so that tests and several replicas do not share one."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0)


class Metrics:
    """All metrics by name; label `model` is constant and left to the scrape configuration."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.stage = Histogram(
            "kuberec_rank_seconds", "Seconds of a request by stage", ["stage"], buckets=_SECONDS, registry=registry
        )
        self.requests = Counter("kuberec_requests", "Requests by HTTP status", ["status"], registry=registry)
        self.candidates = Histogram(
            "kuberec_candidates",
            "Candidates of a request",
            buckets=(1, 10, 50, 100, 250, 500, 1000, 2500, 5000),
            registry=registry,
        )
        self.rows = Counter(
            "kuberec_rows", "Unique rows read: cached, fetched, absent, unread", ["source"], registry=registry
        )
        self.missed = Counter("kuberec_rows_missed", "Rows not in the cache", ["table"], registry=registry)
        self.redis = Histogram(
            "kuberec_redis_seconds", "Seconds of a round trip for rows", buckets=_SECONDS, registry=registry
        )
        self.redis_failures = Counter(
            "kuberec_redis_failures", "Row reads that timed out or were held back", registry=registry
        )
        self.unknown = Counter(
            "kuberec_entities_missing", "Users and items that were not found", ["kind"], registry=registry
        )
        self.shed = Counter("kuberec_requests_shed", "Requests refused before work was done", registry=registry)
        self.waiting = Gauge("kuberec_requests_waiting", "Requests that wait or run", registry=registry)
        self.version = Gauge(
            "kuberec_version_info", "1 for the served version", ["model", "version", "digest"], registry=registry
        )
        self.freshness = Gauge(
            "kuberec_freshness_seconds", "Now minus the newest event time that was learnt", registry=registry
        )
        self.logged = Counter("kuberec_requests_logged", "Requests in the request log", registry=registry)
        self.log_dropped = Counter(
            "kuberec_requests_log_dropped",
            "Sampled requests that are not in the log: queue was full, encoding failed, delivery failed",
            ["reason"],
            registry=registry,
        )
        self.swaps = Counter("kuberec_version_swaps", "Versions taken into service", registry=registry)

    def text(self) -> bytes:
        """The exposition format."""
        return generate_latest(self.registry)
