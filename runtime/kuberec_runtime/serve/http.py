"""The HTTP surface as a function: method, path, headers and body in, status, headers and body out.

Knows nothing of Ray or ASGI; `app` puts it behind Ray Serve. Ranking runs in a small thread pool, so that the event
loop answers probes while models compute; a request that waited too long is shed before any work is done for it.
"""

import asyncio
import secrets
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import msgspec

from kuberec_runtime.serve.answer import encode
from kuberec_runtime.serve.errors import BadInput, Overloaded, Refusal, UnknownModel
from kuberec_runtime.serve.replica import Replica
from kuberec_runtime.serve.request import JSON, media_type, parse

_LONGEST_ID = 128


@dataclass(frozen=True)
class HttpAnswer:
    """An answer: body bytes, their media type, the status, and further headers."""

    body: bytes
    media: str = JSON
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


class HttpApi:
    """Routes requests to one replica.

    Args:
        replica: ranks.
        threads: model threads.
        most_waiting: requests that may wait or run; more are answered 503 at once.
        clock: seconds, monotonic.
    """

    def __init__(
        self, replica: Replica, threads: int = 1, most_waiting: int = 64, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._replica, self._clock = replica, clock
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="rank")
        self._most_waiting = most_waiting
        self._waiting = 0

    async def handle(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> HttpAnswer:
        """Answers one request; never raises. `headers` has lower-case names."""
        metrics = self._replica.metrics
        try:
            answer = await self._route(method, path.rstrip("/") or "/", headers, body)
        except Refusal as refusal:
            if isinstance(refusal, Overloaded):
                metrics.shed.inc()
            extra = {"retry-after": str(refusal.retry_after_s)} if refusal.retry_after_s is not None else {}
            answer = _json(refusal.body(), refusal.status, extra)
        except Exception as error:  # the last line before the client: a defect of ours
            answer = _json({"error": f"internal error: {error!r}"}, 500)
        metrics.requests.labels(str(answer.status)).inc()
        return answer

    def close(self) -> None:
        """Stops the model threads."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _route(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> HttpAnswer:
        if path in ("/healthz", "/v2/health/live", "/-/healthz"):
            return _json({"live": True})
        if path in ("/readyz", "/v2/health/ready"):
            return self._ready()
        if path == "/metrics":
            return HttpAnswer(self._replica.metrics.text(), "text/plain; version=0.0.4; charset=utf-8")
        family, _, rest = path.removeprefix("/").partition("/models/")
        name, colon, verb = rest.partition(":")
        if family not in ("v1", "v2") or not rest:
            raise UnknownModel(f"no such path; this replica serves /v1/models/{self._replica.name}:rank")
        name = name.removesuffix("/ready") if family == "v2" else name
        if name != self._replica.name:
            raise UnknownModel(f"model '{name}' is not served here; this replica serves '{self._replica.name}'")
        if family == "v2":
            return self._ready() if rest.endswith("/ready") else _json(self._open_inference())
        if not colon:
            return _json(self._replica.describe())
        if verb != "rank":
            raise UnknownModel(f"verb ':{verb}' does not exist, use ':rank'")
        if method != "POST":
            return _json({"error": "rank with POST"}, 405, {"allow": "POST"})
        return await self._rank(headers, body)

    async def _rank(self, headers: Mapping[str, str], body: bytes) -> HttpAnswer:
        media = media_type(headers.get("content-type", ""))
        debug = _debug_level(headers.get("x-kuberec-debug"))
        # Ray Serve gives every request an id in this header, and sends it back with the answer.
        request_id = headers.get("x-request-id", "")[:_LONGEST_ID] or secrets.token_hex(8)
        if self._waiting >= self._most_waiting:
            raise Overloaded(f"{self._waiting} requests wait for this replica; try another, or again")
        arrived = self._clock()
        self._waiting += 1
        self._replica.metrics.waiting.set(self._waiting)
        try:
            return await asyncio.get_running_loop().run_in_executor(
                self._pool, self._work, body, media, debug, request_id, arrived
            )
        finally:
            self._waiting -= 1
            self._replica.metrics.waiting.set(self._waiting)

    def _work(self, body: bytes, media: str, debug: int, request_id: str, arrived: float) -> HttpAnswer:
        replica, stage = self._replica, self._replica.metrics.stage
        waited = self._clock() - arrived
        if waited > replica.request_timeout_s:
            raise Overloaded(f"the request waited {waited:.2f} s, more than its limit of {replica.request_timeout_s} s")
        started = self._clock()
        request = parse(body, media, replica.sides)
        parsed = self._clock()
        answer = replica.rank(request, debug, request_id)
        ranked = self._clock()
        data = encode(answer, media)
        stage.labels("wait").observe(waited)
        stage.labels("parse").observe(parsed - started)
        stage.labels("encode").observe(self._clock() - ranked)
        stage.labels("total").observe(self._clock() - arrived)
        return HttpAnswer(data, media)

    def _ready(self) -> HttpAnswer:
        status = self._replica.versions.status
        ready = self._replica.versions.ready
        return _json({"ready": ready, "version": status.version, "reason": status.reason}, 200 if ready else 503)

    def _open_inference(self) -> dict[str, Any]:
        """Model metadata of the Open Inference Protocol, so that tools that know KServe find the model."""
        about = self._replica.describe()
        types = {"string": "BYTES", "int": "INT64", "float": "FP64"}
        return {
            "name": about["model"],
            "versions": [about["version"]] if about["version"] else [],
            "platform": "kuberec",
            "inputs": [
                {"name": i["name"], "datatype": types.get(i["type"], "BYTES"), "shape": [-1]} for i in about["inputs"]
            ],
            "outputs": [{"name": task, "datatype": "FP32", "shape": [-1]} for task in about["tasks"]],
        }


def _debug_level(header: str | None) -> int:
    if header is None:
        return 0
    if header not in ("1", "2", "3"):
        raise BadInput("X-KubeRec-Debug", "1 (features), 2 (timings and rows) or 3 (both)", header[:40])
    return int(header)


def _json(body: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None) -> HttpAnswer:
    return HttpAnswer(msgspec.json.encode(body), JSON, status, dict(headers or {}))
