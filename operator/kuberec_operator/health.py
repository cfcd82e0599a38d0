"""Whether the operator makes progress, not merely whether it is alive: a frozen watch or queue fails `/healthz`.

The resync lists all objects anyway; a generation that it sees and the watch has not reported after a while means that
the watch is dead, whatever its task says.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

WATCH_LIMIT_S = 120.0
QUEUE_LIMIT_S = 300.0
RESYNC_LIMIT_S = 300.0


class Progress:
    """Collects signs of life; `problems` lists what has stopped. Times come from a monotonic clock."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._watched: dict[str, int] = {}
        self._unseen: dict[str, float] = {}
        self._resynced: float | None = None
        self.queue_stuck_s: Callable[[], float] = lambda: 0.0

    def saw(self, body: Mapping[str, Any]) -> None:
        """The watch reported an object."""
        uid, generation = _identity(body)
        self._watched[uid] = generation
        self._unseen.pop(uid, None)

    def resynced(self, bodies: list[dict[str, Any]]) -> None:
        """The resync listed all objects."""
        now = self._resynced = self._clock()
        for body in bodies:
            uid, generation = _identity(body)
            if self._watched.get(uid, -1) < generation:
                self._unseen.setdefault(uid, now)
        alive = {_identity(body)[0] for body in bodies}
        self._unseen = {uid: since for uid, since in self._unseen.items() if uid in alive}

    def problems(self) -> list[str]:
        """What has stopped, as sentences; empty means healthy. A standby that never resynced is healthy."""
        now, found = self._clock(), []
        if self._resynced is not None and now - self._resynced > RESYNC_LIMIT_S:
            found.append(f"no resync for {now - self._resynced:.0f} s")
        if self._unseen and now - min(self._unseen.values()) > WATCH_LIMIT_S:
            found.append(f"the watch missed {len(self._unseen)} objects for more than {WATCH_LIMIT_S:.0f} s")
        if (stuck := self.queue_stuck_s()) > QUEUE_LIMIT_S:
            found.append(f"an object waits for its reconcile since {stuck:.0f} s")
        return found


def _identity(body: Mapping[str, Any]) -> tuple[str, int]:
    meta = body.get("metadata", {})
    return str(meta.get("uid")), int(meta.get("generation") or 0)


async def serve(progress: Progress, host: str, port: int) -> web.AppRunner:
    """Serves `/healthz`, `/readyz` and `/metrics`; the caller cleans the runner up."""

    async def healthz(_: web.Request) -> web.Response:
        problems = progress.problems()
        return web.Response(text="\n".join(problems) or "ok", status=500 if problems else 200)

    async def readyz(_: web.Request) -> web.Response:
        return web.Response(text="ok")

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application()
    app.add_routes([web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", metrics)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, host, port).start()
    return runner
