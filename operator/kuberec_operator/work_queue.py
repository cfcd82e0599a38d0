"""One reconcile in flight for each object, any number of wake-ups coalesced into one more.

An object that is woken while its reconcile runs is reconciled once more afterwards: nothing is missed, and nothing runs
twice at a time. Failures back off per object, so one broken object never holds up the others.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from kuberec_operator.kinds import Key
from kuberec_operator.metrics import QUEUE_DEPTH

logger = logging.getLogger(__name__)

FIRST_RETRY_S, MOST_RETRY_S = 0.5, 60.0


class WorkQueue:
    """Runs `reconcile(key) -> seconds until the next look, or None` with a bounded number of workers."""

    def __init__(self, reconcile: Callable[[Key], Awaitable[float | None]], workers: int = 8) -> None:
        self._reconcile, self._workers = reconcile, workers
        self._ready: asyncio.Queue[Key] = asyncio.Queue()
        self._since: dict[Key, float] = {}
        self._running: dict[Key, float] = {}
        self._again: set[Key] = set()
        self._timers: dict[Key, asyncio.TimerHandle] = {}
        self._failures: dict[Key, int] = {}

    def add(self, key: Key, after_s: float = 0.0) -> None:
        """Wakes an object now, or after some seconds (an earlier wake-up wins)."""
        timer = self._timers.get(key)
        if after_s > 0:
            loop = asyncio.get_running_loop()
            if timer is not None:
                if timer.when() <= loop.time() + after_s:
                    return
                timer.cancel()
            self._timers[key] = loop.call_later(after_s, self._due, key)
            return
        if timer is not None:
            timer.cancel()
            del self._timers[key]
        if key in self._running:
            self._again.add(key)
        elif key not in self._since:
            self._since[key] = time.monotonic()
            self._ready.put_nowait(key)
            QUEUE_DEPTH.set(len(self._since))

    def stuck_s(self) -> float:
        """Returns for how long the oldest object has been waiting or running."""
        oldest = min([*self._since.values(), *self._running.values()], default=time.monotonic())
        return time.monotonic() - oldest

    async def run(self) -> None:
        """Works until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._workers):
                    group.create_task(self._work())
        finally:
            for timer in self._timers.values():
                timer.cancel()
            self._timers.clear()

    def _due(self, key: Key) -> None:
        self._timers.pop(key, None)
        self.add(key)

    async def _work(self) -> None:
        while True:
            key = await self._ready.get()
            self._since.pop(key, None)
            QUEUE_DEPTH.set(len(self._since))
            self._running[key] = time.monotonic()
            try:
                again_s = await self._reconcile(key)
                self._failures.pop(key, None)
            except Exception as error:
                failures = self._failures[key] = self._failures.get(key, 0) + 1
                again_s = min(FIRST_RETRY_S * 2 ** (failures - 1), MOST_RETRY_S)
                logger.warning("%s: %s; again in %.1f s", key, error, again_s, exc_info=not _expected(error))
            finally:
                del self._running[key]
            if key in self._again:
                self._again.discard(key)
                self.add(key)
            elif again_s is not None:
                self.add(key, again_s)


def _expected(error: Exception) -> bool:
    from kuberec_operator.cluster import ClusterError

    return isinstance(error, ClusterError)
