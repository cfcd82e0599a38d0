"""Snapshots of served requests to a Kafka topic, for `kuberec replay`: written beside requests, never waited for.

A request hands over references (what was read, items as the cache had them, the columns that were computed; nobody
writes to them again) and goes on. Raw columns, digests, encoding and sending happen behind a bounded queue: what does
not fit is dropped, and counted. Requests that wait together go out as one message, for a message's schema outweighs a
small request.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from featuregen.engine import Features, Request
from featuregen.plan import Plan
from featuregen.replay.digests import digests
from featuregen.replay.snapshot import Snapshot, SnapshotFormat, sampled
from kuberec_api.serving import RequestLog as RequestLogSpec
from kuberec_runtime.serve.metrics import Metrics

WAITING = 512
MESSAGE_REQUESTS, MESSAGE_CANDIDATES, MESSAGE_BYTES = 32, 4000, 900_000
"""A message is closed at any of these; brokers take 1 MB unless they are told otherwise."""
LINGER_S = 0.2
PLAN_EVERY = 100
"""Messages between two that carry the canonical plan."""

_LOG = logging.getLogger("kuberec.requestlog")


@dataclass(frozen=True, slots=True)
class Ranked:
    """A request that was answered: how many candidates, what was read (made when it is written), what was computed."""

    request_id: str
    model_version: str
    user_key: str | None
    item_keys: Sequence[str] | None
    rows: int
    read: Callable[[], Request]
    features: Features


class RequestLog:
    """Writes a sample of requests. `offer` is safe for threads; it neither blocks nor fails.

    Args:
        plan: of the features.
        spec: topic and share of users.
        metrics: counts what is written and what is dropped.
        waiting: requests that may wait for the writing thread.
    """

    def __init__(self, plan: Plan, spec: RequestLogSpec, metrics: Metrics, waiting: int = WAITING) -> None:
        self._digest, self._share, self._topic = plan.digest, spec.sample, spec.kafka.topic
        self._form, self._metrics = SnapshotFormat(plan), metrics
        self._queue: queue.Queue[Ranked | None] = queue.Queue(waiting)
        self._messages, self._failing = 0, False
        self._producer = Producer(
            {
                "bootstrap.servers": spec.kafka.bootstrap_servers,
                "linger.ms": 20,
                "queue.buffering.max.kbytes": 64 << 10,
                "message.max.bytes": 8 << 20,  # the broker's own limit decides
                "message.timeout.ms": 30_000,
                "log_level": 2,  # what matters arrives as a delivery error
            }
        )
        self._thread = threading.Thread(target=self._run, name="request-log", daemon=True)
        self._thread.start()

    def offer(self, ranked: Ranked) -> None:
        """Hands a request over if its user is in the sample and there is room."""
        if not sampled(ranked.user_key or ranked.request_id, self._share):
            return
        try:
            self._queue.put_nowait(ranked)
        except queue.Full:
            self._metrics.log_dropped.labels("queue").inc()

    def close(self, timeout_s: float = 10.0) -> None:
        """Writes what waits and returns once the brokers have it, or the time is over."""
        deadline = time.monotonic() + timeout_s
        try:
            self._queue.put(None, timeout=timeout_s)
        except queue.Full:
            return
        self._thread.join(timeout_s)
        self._producer.flush(max(0.0, deadline - time.monotonic()))

    def _run(self) -> None:
        going = True
        while going:
            batch, going = self._take()
            try:
                self._write(batch)
            except Exception:  # a defect must not end the log, nor ever reach a request
                _LOG.exception("%d requests could not be logged", len(batch))
                self._metrics.log_dropped.labels("encoding").inc(len(batch))

    def _take(self) -> tuple[list[Ranked], bool]:
        """Returns requests for one message, and whether to go on; waits for the first, and shortly for more."""
        batch: list[Ranked] = []
        candidates, until = 0, float("inf")
        while len(batch) < MESSAGE_REQUESTS and candidates < MESSAGE_CANDIDATES:
            self._producer.poll(0)
            left = until - time.monotonic()
            try:
                ranked = self._queue.get(timeout=min(max(left, 0.0), 1.0))
            except queue.Empty:
                if left <= 1.0:
                    break
                continue
            if ranked is None:
                return batch, False
            if not batch:
                until = time.monotonic() + LINGER_S
            batch.append(ranked)
            candidates += ranked.rows
        return batch, True

    def _write(self, batch: Sequence[Ranked]) -> None:
        if batch:
            self._send([self._snapshot(ranked) for ranked in batch])

    def _snapshot(self, ranked: Ranked) -> Snapshot:
        return Snapshot(
            ranked.request_id,
            self._digest,
            ranked.model_version,
            ranked.user_key,
            ranked.item_keys,
            ranked.read(),
            digests(ranked.features),
        )

    def _send(self, snapshots: Sequence[Snapshot]) -> None:
        message = self._form.message(snapshots, with_plan=self._messages % PLAN_EVERY == 0)
        if len(message) > MESSAGE_BYTES and len(snapshots) > 1:
            middle = len(snapshots) // 2
            self._send(snapshots[:middle])
            self._send(snapshots[middle:])
            return
        self._messages += 1
        try:
            self._producer.produce(self._topic, message, on_delivery=partial(self._delivered, len(snapshots)))
        except (BufferError, KafkaException) as error:
            self._dropped(len(snapshots), str(error))

    def _delivered(self, requests: int, error: KafkaError | None, _: Message) -> None:
        if error is None:
            self._metrics.logged.inc(requests)
            self._failing = False
        else:
            self._dropped(requests, error.str())

    def _dropped(self, requests: int, why: str) -> None:
        if not self._failing:
            _LOG.warning("requests are not logged to topic '%s': %s", self._topic, why)
        self._failing = True
        self._metrics.log_dropped.labels("delivery").inc(requests)
