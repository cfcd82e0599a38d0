"""One replica without HTTP or Ray: a checked request in, an answer out. Every stage is timed.

complete (feature store) -> features (featuregen, user side once) -> rows (cache, one MGET) -> dense network. The
version is taken once at the beginning, so an answer never mixes two.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np

from featuregen.compiler import compile_plan
from featuregen.engine import Engine, Features
from featuregen.errors import FeatureError
from featuregen.rows import row_values
from featuregen.spec import duration_ms
from kuberec_api.layout import build_layout
from kuberec_api.model import RecModel
from kuberec_api.serving import RecServing, ServedVersion, VersionPolicy
from kuberec_api.training import RowType
from kuberec_runtime.models.embed import assemble, plan_lookup
from kuberec_runtime.publish.featurestore import FeatureStore
from kuberec_runtime.publish.publication import Version
from kuberec_runtime.publish.resp import parse_address
from kuberec_runtime.publish.tier import Tier
from kuberec_runtime.serve.answer import Answer
from kuberec_runtime.serve.breaker import Breaker
from kuberec_runtime.serve.complete import Complete
from kuberec_runtime.serve.errors import BadInput, TooManyCandidates
from kuberec_runtime.serve.gather import Gatherer
from kuberec_runtime.serve.items import ItemReader
from kuberec_runtime.serve.metrics import Metrics
from kuberec_runtime.serve.request import RankRequest, Sides
from kuberec_runtime.serve.requestlog import Ranked, RequestLog
from kuberec_runtime.serve.rows import RowReader, RowReport, RowSource
from kuberec_runtime.serve.versions import Scorer, Served, Versions, freshness_s

POLL_S = 0.2
FEATURES, TIMINGS = 1, 2


@dataclass(frozen=True)
class ReplicaConfig:
    """What a replica is built from. `redis_url` has no password; `namespace` is the Kubernetes namespace."""

    model: RecModel
    serving: RecServing
    redis_url: str
    password: str | None = field(default=None, repr=False)
    namespace: str = "default"


class Replica:
    """Ranks with the newest (or pinned) version. `rank` is safe for threads; `follow` belongs to one thread.

    Args:
        config: model, serving and where Redis is.
        make_network: builds the dense network; the real one by default.
    """

    def __init__(self, config: ReplicaConfig, make_network: Callable[[], Scorer] | None = None) -> None:
        spec, serving = config.model.spec, config.serving.spec
        self.name = config.serving.metadata.name
        self.plan = compile_plan(spec.features)
        self.layout = build_layout(spec, self.plan)
        self.sides = Sides.of(spec.features.sources, self.plan)
        self.metrics = Metrics()
        self.limit = serving.max_candidates
        self.request_timeout_s = duration_ms(serving.timeouts.request) / 1000
        self._tasks = [task.name for task in spec.tasks]
        self._local = threading.local()
        redis_s = duration_ms(serving.timeouts.redis) / 1000
        breaker = self._breaker = Breaker()
        address = parse_address(config.redis_url)

        def make_reader(namespace: str, dtype: RowType) -> RowReader:
            source = RowSource(address, config.password, namespace, dtype, redis_s, breaker)
            return RowReader(self.layout, source, serving.cache.rows)

        def real_network() -> Scorer:
            from kuberec_runtime.models.network import Network

            return Network(spec, self.layout)

        store = FeatureStore(config.redis_url, config.namespace, config.password, redis_s)
        sources = spec.features.sources
        self.items = ItemReader(self.plan, sources, store, breaker=breaker) if sources.item else None
        self._gatherer = Gatherer(self.plan, self.sides, store, self.items, breaker)
        wanted = serving.request_log
        self._log = None if wanted is None else RequestLog(self.plan, wanted, self.metrics)
        self.versions = Versions(
            self.plan.digest,
            self.layout,
            Tier(config.redis_url, config.password, config.namespace, serving.training_ref.name, timeout_s=5.0),
            make_network or real_network,
            make_reader,
            warm=self._warm,
            pinned=pinned_version(serving.version),
            on_swap=self._swapped,
        )

    def follow(self) -> None:
        """One look at the tier: deltas, a new version, items that are due. Call it every `POLL_S`."""
        self.versions.step()
        if self.items is not None:
            self.items.refresh()
        freshness = freshness_s(self.versions.status)
        if freshness is not None:
            self.metrics.freshness.set(freshness)

    def reconfigure(self, version: ServedVersion) -> None:
        """Pins or unpins; takes effect at the next `follow`."""
        self.versions.pin(pinned_version(version))

    def close(self) -> None:
        """Writes what the request log still holds."""
        if self._log is not None:
            self._log.close()

    def rank(self, request: RankRequest, debug: int = 0, request_id: str = "") -> Answer:
        """Scores the request's candidates.

        Args:
            request: a checked request.
            debug: 1 adds features, 2 timings and the origin of rows, 3 both.
            request_id: names the request in the request log.

        Raises:
            NotReady: no version is warm yet.
            TooManyCandidates: more than the serving allows.
            BadInput: something is left out that cannot be found.
        """
        if request.count > self.limit:
            raise TooManyCandidates(request.count, self.limit)
        served = self.versions.acquire()
        try:
            return self._rank(request, served, debug, request_id)
        finally:
            self.versions.release(served)

    def describe(self) -> dict[str, Any]:
        """Metadata of the model for `GET /v1/models/<name>`."""
        status = self.versions.status
        freshness = freshness_s(status)
        return {
            "model": self.name,
            "ready": self.versions.ready,
            "version": status.version,
            "wantedVersion": status.wanted,
            "reason": status.reason,
            "digest": self.plan.digest,
            "freshnessSeconds": None if freshness is None else round(freshness, 3),
            "watermark": status.watermark or None,
            "trainedAt": status.trained_at or None,
            "tasks": self._tasks,
            "maxCandidates": self.limit,
            "inputs": [
                {"name": i.name, "type": f"list<{i.type.value}>" if i.is_list else i.type.value}
                for i in self.plan.inputs
            ],
        }

    def _rank(self, request: RankRequest, served: Served, debug: int, request_id: str) -> Answer:
        marks = [time.perf_counter()]
        try:
            complete = self._gatherer.complete(request)
            marks.append(time.perf_counter())
            features = complete.features(self._engine())
        except FeatureError as error:
            raise BadInput("features", "values as the model declares them", str(error)) from None
        marks.append(time.perf_counter())
        lookup = plan_lookup(self.layout, features)
        rows, report = served.rows.read(lookup.keys)
        marks.append(time.perf_counter())
        if request.count:
            scores = served.network.score(assemble(self.layout, features, lookup, rows))
        else:
            scores = np.zeros(0, np.float32)
        marks.append(time.perf_counter())
        stages = dict(zip(("complete", "features", "rows", "dense"), (b - a for a, b in pairwise(marks)), strict=True))
        self._observe(request.count, complete, report, stages)
        if self._log is not None:
            of, version = complete, str(served.version)
            ranked = Ranked(request_id, version, of.user_key, request.keys, of.count, of.request, features)
            self._log.offer(ranked)
        shown: dict[str, Any] = {}
        if debug & FEATURES:
            shown["features"] = readable(features)
        if debug & TIMINGS:
            shown["milliseconds"] = {stage: round(seconds * 1000, 3) for stage, seconds in stages.items()}
            shown["rows"] = {
                "cached": report.cached,
                "fetched": report.fetched,
                "absent": report.absent,
                "unread": report.unread,
                "missedByTable": report.missed,
                "redisMilliseconds": round(report.redis_s * 1000, 3),
            }
        missing = _missing(complete, report)
        return Answer(self.name, str(served.version), {self._tasks[0]: scores}, missing, shown)

    def _engine(self) -> Engine:
        engine: Engine | None = getattr(self._local, "engine", None)
        if engine is None:
            engine = self._local.engine = Engine(self.plan)
        return engine

    def _warm(self, served: Served) -> None:
        """Compiles every kernel on this path before the first request meets it."""
        for complete in self._gatherer.synthetic(2):
            complete.request()
            features = complete.features(self._engine())
            lookup = plan_lookup(self.layout, features)
            rows, _ = served.rows.read(lookup.keys)
            served.network.score(assemble(self.layout, features, lookup, rows))

    def _swapped(self, served: Served) -> None:
        self.metrics.version.clear()
        self.metrics.version.labels(self.name, str(served.version), served.description.digest[:8]).set(1)
        self.metrics.swaps.inc()

    def _observe(self, count: int, complete: Complete, report: RowReport, stages: dict[str, float]) -> None:
        metrics = self.metrics
        for stage, seconds in stages.items():
            metrics.stage.labels(stage).observe(seconds)
        metrics.candidates.observe(count)
        for source in ("cached", "fetched", "absent", "unread"):
            if amount := getattr(report, source):
                metrics.rows.labels(source).inc(amount)
        for table, amount in report.missed.items():
            metrics.missed.labels(table).inc(amount)
        if report.redis_s:
            metrics.redis.observe(report.redis_s)
        if report.unread:
            metrics.redis_failures.inc()
        if complete.unknown_user is not None:
            metrics.unknown.labels("user").inc()
        if complete.unknown_items:
            metrics.unknown.labels("item").inc(len(complete.unknown_items))


def pinned_version(version: ServedVersion) -> Version | None:
    """The version that a policy pins, None to follow the current one."""
    if version.policy is VersionPolicy.PINNED and version.version:
        return Version.parse(version.version)
    return None


def _missing(complete: Complete, report: RowReport) -> dict[str, Any]:
    missing: dict[str, Any] = {}
    if complete.unknown_user is not None:
        missing["user"] = complete.unknown_user
    if complete.unknown_items:
        missing["items"] = complete.unknown_items
    rows = {name: amount for name in ("absent", "unread") if (amount := getattr(report, name))}
    if rows:
        missing["rows"] = rows
    return missing


def readable(features: Features) -> dict[str, Any]:
    """Features by output: what each row has; user-side outputs have one row."""
    return {name: [row_values(column, row) for row in range(column.rows)] for name, column in features.columns.items()}
