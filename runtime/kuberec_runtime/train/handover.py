"""A bounded queue between two threads of a worker: items in order, then an end or the error that ended the giver."""

import queue
import threading
from typing import Generic, TypeVar

T = TypeVar("T")

LOOK_EVERY_S = 0.2


class Handover(Generic[T]):
    """One thread gives, one takes. Whoever waits stops waiting when `stopping` is set.

    Args:
        size: items that may lie in it.
        stopping: ends every wait.
    """

    def __init__(self, size: int, stopping: threading.Event) -> None:
        self._queue: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue(size)
        self._stopping = stopping
        self._ended = False

    @property
    def ended(self) -> bool:
        """Whether `take` has come to the end: it returns nothing any more."""
        return self._ended

    def give(self, item: T) -> None:
        """Hands an item over, waiting for room."""
        self._put((item, None))

    def end(self, error: BaseException | None = None) -> None:
        """Says that nothing follows, or hands over what went wrong: `take` raises it in its turn."""
        self._put((None, error))

    def take(self, timeout_s: float) -> T | None:
        """The next item; None if none came in time, or (then `ended`) none will come.

        Raises:
            BaseException: what the giver ended with.
        """
        if self._ended:
            return None
        try:
            item, error = self._queue.get(timeout=timeout_s)
        except queue.Empty:
            return None
        self._ended = item is None
        if error is not None:
            raise error
        return item

    def _put(self, entry: tuple[T | None, BaseException | None]) -> None:
        while not self._stopping.is_set():
            try:
                self._queue.put(entry, timeout=LOOK_EVERY_S)
                return
            except queue.Full:
                continue
