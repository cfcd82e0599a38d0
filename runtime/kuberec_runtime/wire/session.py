"""One worker's connection as a shard's state knows it, without sockets."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Session:
    """One worker's connection as the state knows it; `closed` is true once it may not hand in anything more."""

    def __init__(
        self, worker: int, incarnation: int, hang_up: Callable[[], None], lock: "threading.Lock | None" = None
    ) -> None:
        self.worker = worker
        self.incarnation = incarnation
        self.closed = False
        self._hang_up = hang_up
        self._lock = lock or threading.Lock()

    @contextmanager
    def guard(self) -> Iterator[None]:
        """While it is entered, no newer session takes this one's place.

        Raises:
            Superseded: one did.
        """
        with self._lock:
            if self.closed:
                raise Superseded
            yield

    def close(self) -> None:
        """Ends the session and wakes the thread that serves it; returns at once."""
        self.closed = True
        self._hang_up()


class Superseded(Exception):  # noqa: N818 - a signal between threads, not a failure
    """The session was replaced by a newer connection of its worker, or the shard was restored or closed."""
