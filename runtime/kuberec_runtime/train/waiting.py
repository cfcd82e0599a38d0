"""How the driver waits: for actors, and for what is mended from outside, but never longer than it is wanted.

Whoever waits here ends with `Stopped` once the user suspends the training or the node asks it to go.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from kuberec_runtime.checkpoint import Fenced
from kuberec_runtime.publish.errors import StalePublication
from kuberec_runtime.stream import SourceError
from kuberec_runtime.train.fleet import Fleet
from kuberec_runtime.train.scoreboard import DEGRADED, Scoreboard
from kuberec_runtime.train.status import StatusSink

T = TypeVar("T")

RETRY_S = (1.0, 2.0, 5.0, 10.0, 15.0)

logger = logging.getLogger(__name__)


class Stopped(Exception):  # noqa: N818
    """The user or the node asked the attempt to end while it was still waiting for something."""


class Waiting:
    """The driver's patience. `stop` may be called from a signal handler."""

    def __init__(self, fleet: Fleet, board: Scoreboard, sink: StatusSink) -> None:
        self._fleet, self._board, self._sink = fleet, board, sink
        self._asked = threading.Event()
        self.reason = ""

    def stop(self, reason: str) -> None:
        """Asks the attempt to end; the first reason counts."""
        self.reason = self.reason or reason
        self._asked.set()

    def stopped(self) -> bool:
        """True once the attempt is to end, by `stop` or by the user's `spec.suspend`."""
        if self._sink.suspended():
            self.stop("Suspended")
        return self._asked.is_set()

    def pause(self, seconds: float) -> bool:
        """Sleeps; returns early, and True, when the attempt is to end."""
        return self._asked.wait(seconds)

    def gather(self, pending: Sequence[Any], timeout_s: float, what: str) -> list[Any]:
        """Waits for calls of actors, see `Fleet.gather`.

        Raises:
            Stopped: the attempt is to end.
        """

        def tick() -> None:
            if self.stopped():
                raise Stopped(self.reason)

        return self._fleet.gather(pending, timeout_s, what, tick)

    def patiently(self, reason: str, errors: tuple[type[Exception], ...], action: Callable[[], T]) -> T:
        """Repeats an action that fails for a cause outside, shows the cause as Degraded, goes on once it is mended.

        Args:
            reason: of the condition; empty for the error's own.
            errors: what is worth waiting for; a permanent `SourceError` never is.
            action: may be called any number of times.

        Raises:
            Stopped: the attempt is to end.
        """
        tries = 0
        while True:
            try:
                result = action()
            except (Fenced, StalePublication):
                raise
            except errors as error:
                if isinstance(error, SourceError) and error.permanent:
                    raise
                why = reason or getattr(error, "reason", "Unavailable")
                self._board.condition(DEGRADED, True, why, str(error))
                self._sink.write(self._board.status)
                logger.warning("%s; trying again", error)
                if self.pause(RETRY_S[min(tries, len(RETRY_S) - 1)]) or self.stopped():
                    raise Stopped(self.reason) from error
                tries += 1
                continue
            if tries:
                self._board.clear(DEGRADED)
            return result
