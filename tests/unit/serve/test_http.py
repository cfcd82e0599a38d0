"""Routing, statuses and shedding, with a replica that only counts."""

import asyncio
import threading
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pytest

from featuregen.sources import KeyedSource, Sources
from kuberec_runtime.serve.answer import Answer
from kuberec_runtime.serve.errors import NotReady, Refusal, TooManyCandidates
from kuberec_runtime.serve.http import HttpAnswer, HttpApi
from kuberec_runtime.serve.metrics import Metrics
from kuberec_runtime.serve.request import RankRequest, Sides
from kuberec_runtime.serve.versions import VersionStatus


class Replica:
    name = "feed"
    request_timeout_s = 1.0

    def __init__(self) -> None:
        self.metrics = Metrics()
        plan = SimpleNamespace(inputs=())
        self.sides = Sides.of(Sources(item=KeyedSource(key="item_id")), plan)  # type: ignore[arg-type]
        self.versions = SimpleNamespace(ready=True, status=VersionStatus("1.2"))
        self.go = threading.Event()
        self.go.set()
        self.error: Exception | None = None
        self.ranked = 0

    def rank(self, request: RankRequest, debug: int = 0, request_id: str = "") -> Answer:
        self.go.wait(10)
        self.request_id = request_id
        self.ranked += 1
        if self.error is not None:
            raise self.error
        return Answer(
            "feed", "1.2", {"click": np.ones(request.count, np.float32)}, {}, {"debug": debug} if debug else {}
        )

    def describe(self) -> dict[str, Any]:
        return {"model": "feed", "version": "1.2", "tasks": ["click"], "inputs": [{"name": "item.x", "type": "int"}]}


RANK = "/v1/models/feed:rank"
BODY = b'{"items": ["a", "b"]}'


async def ask(api: HttpApi, path: str, body: bytes = b"", method: str = "GET", **headers: str) -> HttpAnswer:
    return await api.handle(method, path, {k.replace("_", "-"): v for k, v in headers.items()}, body)


async def test_a_ranking_answers_scores_in_order() -> None:
    answer = await ask(HttpApi(Replica()), RANK, BODY, "POST")  # type: ignore[arg-type]
    assert answer.status == 200
    assert msgspec.json.decode(answer.body) == {
        "model": "feed",
        "version": "1.2",
        "scores": {"click": [1.0, 1.0]},
        "missing": {},
    }


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [
        ("/healthz", "GET", 200),
        ("/readyz", "GET", 200),
        ("/metrics", "GET", 200),
        ("/v1/models/feed", "GET", 200),
        ("/v2/health/live", "GET", 200),
        ("/v2/health/ready", "GET", 200),
        ("/v2/models/feed", "GET", 200),
        ("/v2/models/feed/ready", "GET", 200),
        ("/v1/models/feed:train", "POST", 404),
        ("/v1/models/other:rank", "POST", 404),
        ("/", "GET", 404),
        ("/v3/models/feed", "GET", 404),
        (RANK, "GET", 405),
    ],
)
async def test_each_path_has_its_status(path: str, method: str, status: int) -> None:
    assert (await ask(HttpApi(Replica()), path, method=method)).status == status  # type: ignore[arg-type]


async def test_readiness_says_why_not() -> None:
    replica = Replica()
    replica.versions = SimpleNamespace(ready=False, status=VersionStatus(reason="nothing has been published yet"))
    answer = await ask(HttpApi(replica), "/readyz")  # type: ignore[arg-type]
    assert answer.status == 503 and b"nothing has been published yet" in answer.body


@pytest.mark.parametrize(
    ("error", "status", "retry"),
    [(NotReady("no version"), 503, "1"), (TooManyCandidates(9, 5), 413, None), (RuntimeError("bug"), 500, None)],
)
async def test_errors_have_their_status(error: Exception, status: int, retry: str | None) -> None:
    replica = Replica()
    replica.error = error
    answer = await ask(HttpApi(replica), RANK, BODY, "POST")  # type: ignore[arg-type]
    assert answer.status == status and answer.headers.get("retry-after") == retry
    assert str(error) in msgspec.json.decode(answer.body)["error"] or not isinstance(error, Refusal)


async def test_too_many_waiting_requests_are_shed_at_once() -> None:
    replica = Replica()
    replica.go.clear()
    api = HttpApi(replica, most_waiting=2)  # type: ignore[arg-type]
    running = [asyncio.create_task(ask(api, RANK, BODY, "POST")) for _ in range(2)]
    await asyncio.sleep(0)
    shed = await ask(api, RANK, BODY, "POST")
    assert shed.status == 503 and shed.headers["retry-after"] == "1"
    replica.go.set()
    assert [a.status for a in await asyncio.gather(*running)] == [200, 200]
    assert replica.ranked == 2


async def test_a_request_that_waited_too_long_is_shed_before_work() -> None:
    replica, times = Replica(), iter([0.0, 1.5])
    api = HttpApi(replica, clock=lambda: next(times))  # type: ignore[arg-type]
    answer = await ask(api, RANK, BODY, "POST")
    assert answer.status == 503 and replica.ranked == 0


async def test_the_debug_header_is_a_level() -> None:
    api = HttpApi(Replica())  # type: ignore[arg-type]
    assert b'"debug":{"debug":3}' in (await ask(api, RANK, BODY, "POST", x_kuberec_debug="3")).body
    assert (await ask(api, RANK, BODY, "POST", x_kuberec_debug="9")).status == 400


async def test_a_request_has_an_id_its_own_or_a_new_one() -> None:
    replica = Replica()
    api = HttpApi(replica)  # type: ignore[arg-type]
    found = set()
    for header in ({"x_request_id": "mine"}, {}, {}):
        await ask(api, RANK, BODY, "POST", **header)
        found.add(replica.request_id)
    assert "mine" in found and len(found) == 3 and all(found)
