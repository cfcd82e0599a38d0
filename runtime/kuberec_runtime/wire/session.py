"""One worker's connection as a shard's state knows it, without sockets."""

from collections.abc import Callable


class Session:
    """One worker's connection as the state knows it; `closed` is true once it may not hand in anything more."""

    def __init__(self, worker: int, incarnation: int, hang_up: Callable[[], None]) -> None:
        self.worker = worker
        self.incarnation = incarnation
        self.closed = False
        self._hang_up = hang_up

    def close(self) -> None:
        """Ends the session and wakes the thread that serves it; returns at once."""
        self.closed = True
        self._hang_up()


class Superseded(Exception):  # noqa: N818 - a signal between threads, not a failure
    """The session was replaced by a newer connection of its worker, or the shard was restored or closed."""
