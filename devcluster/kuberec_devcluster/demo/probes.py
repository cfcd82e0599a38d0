"""What the demo measures from outside, as a client would: ranking latency and freshness.

**Freshness** is the time from handing one click on an item that nobody has ever seen to Kafka's client, until a replica
ranks that item with a learnt embedding. Before, the replica answers that one row of the request was never learnt
(`missing.rows.absent`); the row goes away from that count only once a worker has read the event, a shard has applied
its gradient, a publication has been committed, and the replica has taken it over. So every step of the line is in it,
and no clock but the demo's own.
"""

import json
import time
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np
from confluent_kafka import Producer

from kuberec_runtime.synth import World
from kuberec_runtime.synth.stream import HOUR_MS

CANDIDATES = 500
TIMEOUT_SECONDS = 30.0


class ProbeError(Exception):
    """The line did not do what it should; says what was waited for."""


@dataclass(frozen=True)
class Latency:
    """Client-side milliseconds of one request after the other."""

    requests: int
    p50_ms: float
    p99_ms: float


class RankProbe:
    """Ranks candidates over HTTP, one request at a time on one connection."""

    def __init__(self, url: str, world: World, seed: int = 0) -> None:
        self._url = url
        self._world = world
        self._random = np.random.default_rng(seed)
        self._client = httpx.Client(timeout=10.0)

    def body(self, candidates: int = CANDIDATES) -> dict[str, Any]:
        """Returns a request: a known user, known items, everything else from the feature store."""
        size = self._world.size
        items = self._random.choice(size.items, candidates, replace=False)
        return {
            "user": {"user_id": f"u{self._random.integers(size.users)}"},
            "items": [f"i{item}" for item in items.tolist()],
            "context": {"hour": time.time_ns() // 1_000_000 // HOUR_MS % 24},
        }

    def rank(self, body: dict[str, Any]) -> dict[str, Any]:
        """Sends one request.

        Raises:
            ProbeError: the answer is not 200; holds its text.
        """
        try:
            reply = self._client.post(self._url, content=json.dumps(body))
        except httpx.HTTPError as error:
            raise ProbeError(f"{self._url}: {error!r}") from error
        if reply.status_code != 200:
            raise ProbeError(f"{self._url} answered {reply.status_code}: {reply.text[:500]}")
        answer: dict[str, Any] = reply.json()
        return answer

    def measure(self, requests: int, warm: int = 20) -> Latency:
        """Measures requests of `CANDIDATES` candidates each, all different."""
        bodies = [self.body() for _ in range(requests + warm)]
        taken = []
        for body in bodies:
            started = time.perf_counter()
            answer = self.rank(body)
            taken.append((time.perf_counter() - started) * 1000)
            if len(answer["scores"]["click"]) != CANDIDATES:
                raise ProbeError(f"{self._url} scored {len(answer['scores']['click'])} of {CANDIDATES} candidates")
        measured = np.array(taken[warm:])
        return Latency(requests, float(np.percentile(measured, 50)), float(np.percentile(measured, 99)))

    def close(self) -> None:
        """Closes the connection."""
        self._client.close()


class FreshnessProbe:
    """Produces a click on an unseen item and waits until a replica ranks it with a learnt row."""

    def __init__(self, rank: RankProbe, world: World, bootstrap: str, topic: str, partitions: int) -> None:
        self._rank, self._world = rank, world
        self._topic, self._partitions = topic, partitions
        self._producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 0, "log_level": 2})
        self._run = time.time_ns() // 1_000_000

    def measure(self, number: int) -> float:
        """Returns the seconds from producing to ranking with what was learnt.

        Raises:
            ProbeError: it did not happen within `TIMEOUT_SECONDS`.
        """
        user, like = number % self._world.size.users, number % self._world.size.items
        now = time.time_ns() // 1_000_000
        item = {"item_id": f"new-{self._run}-{number}", **self._world.item_fields(like)}
        user_fields = {"user_id": f"u{user}", **self._world.user_fields(user)}
        hour = now // HOUR_MS % 24
        sample = {
            "user": user_fields,
            "item": item,
            "context": {"hour": hour},
            "behavior": {"clicks": {"item": [], "action": [], "ts": [], "cate": []}},
            "now": now,
            "label": {"click": 1},
        }
        columns = {name: [value] for name, value in item.items()}
        request = {"user": user_fields, "items": columns, "context": {"hour": hour}, "behavior": {"clicks": []}}
        before = self._absent(request)
        if before < 1:
            raise ProbeError(f"item {item['item_id']} is new, but the replica has a row for it")
        started = time.monotonic()
        self._producer.produce(self._topic, json.dumps(sample), f"u{user}", partition=number % self._partitions)
        self._producer.poll(0)
        while self._absent(request) >= before:
            if time.monotonic() - started > TIMEOUT_SECONDS:
                raise ProbeError(f"a click on {item['item_id']} was not servable within {TIMEOUT_SECONDS:.0f} s")
            time.sleep(0.01)
        return time.monotonic() - started

    def _absent(self, request: dict[str, Any]) -> int:
        missing = self._rank.rank(request).get("missing", {})
        return int(missing.get("rows", {}).get("absent", 0))
