"""A lock that one writer holds, or any number of readers: pulls of several workers then use as many cores."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class SharedLock:
    """`with lock:` holds it alone, `with lock.shared():` beside other readers. A writer who waits goes first.

    Not reentrant. Readers do not starve where a thread that wrote reads before it writes again, as a worker's does.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._readers = self._waiting = 0
        self._writing = False

    def __enter__(self) -> None:
        with self._changed:
            self._waiting += 1
            try:
                self._changed.wait_for(lambda: not self._writing and not self._readers)
                self._writing = True
            finally:
                self._waiting -= 1
                self._changed.notify_all()

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._writing = False
            self._changed.notify_all()

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Holds it beside other readers."""
        with self._changed:
            self._changed.wait_for(lambda: not self._writing and not self._waiting)
            self._readers += 1
        try:
            yield
        finally:
            with self._changed:
                self._readers -= 1
                if not self._readers:
                    self._changed.notify_all()
