"""A circuit breaker: a Redis that is down costs each request nothing but default rows, not a timeout.

Pure but for the clock that is passed in. After `failures` in a row it opens for `pause_s`, doubled at each failed
probe up to `longest_s`; then one caller may probe.
"""

import threading
import time
from collections.abc import Callable


class Breaker:
    """Safe for threads. Call `allows`, then `succeeded` or `failed`."""

    def __init__(
        self,
        failures: int = 3,
        pause_s: float = 0.1,
        longest_s: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limit, self._first_pause, self._longest = failures, pause_s, longest_s
        self._clock = clock
        self._lock = threading.Lock()
        self._count = 0
        self._pause = pause_s
        self._closed_until = 0.0
        self._probing = False

    @property
    def open(self) -> bool:
        """True while calls are held back."""
        return self._count >= self._limit

    def allows(self) -> bool:
        """Whether a call may be made now; if open, one caller at a time may probe after the pause."""
        with self._lock:
            if self._count < self._limit:
                return True
            if self._probing or self._clock() < self._closed_until:
                return False
            self._probing = True
            return True

    def succeeded(self) -> None:
        """Closes the circuit."""
        with self._lock:
            self._count, self._pause, self._probing = 0, self._first_pause, False

    def failed(self) -> None:
        """Counts a failure; opens the circuit at the limit, longer after each failed probe."""
        with self._lock:
            self._count += 1
            if self._count >= self._limit:
                self._closed_until = self._clock() + self._pause
                if self._probing or self._count == self._limit:
                    self._pause = min(2 * self._pause, self._longest)
            self._probing = False
