"""Where a worker's loop and the driver's wishes meet: between two steps.

In Async a mark may stand at any boundary. In Sync it must stand behind the same step on every worker, or the shards
would wait for pushes of workers that stand at the barrier already. So the driver asks twice: `hold` tells it the step
that a worker has begun and lets no later one begin; the largest answer is a step that every worker can still reach and
none has passed, and `ask` names it. What is in between lasts as long as two calls.
"""

import threading


class Boundary:
    """Counts the steps of one worker and says when a mark is due. Methods may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._begun = 0
        self._held: int | None = None
        self._asked: tuple[int, int] | None = None
        self._left = False

    @property
    def begun(self) -> int:
        """The step that was begun last, counted from 1."""
        return self._begun

    def begin(self) -> bool:
        """Begins the next step; False while a mark must come first or the driver holds the worker."""
        with self._lock:
            if self._held is not None or (self._asked is not None and self._begun >= self._asked[1]):
                return False
            self._begun += 1
            return True

    def leave(self) -> None:
        """The worker takes part in no further step: it may mark at once, whatever the others have to do before."""
        with self._lock:
            self._left = True

    def hold(self, epoch: int) -> int:
        """Lets no further step begin before `ask` or `release`; returns the step begun, 0 after `leave`."""
        with self._lock:
            self._held = epoch
            return 0 if self._left else self._begun

    def release(self, epoch: int) -> None:
        """Undoes the hold for an epoch that failed; one for a later epoch stays."""
        with self._lock:
            if self._held == epoch:
                self._held = None

    def ask(self, epoch: int, step: int) -> None:
        """Wants the mark of `epoch` behind the step `step`, or at the next boundary if that is past."""
        with self._lock:
            self._asked, self._held = (epoch, step), None

    def withdraw(self, epoch: int) -> None:
        """Wants the mark no more."""
        with self._lock:
            if self._asked is not None and self._asked[0] == epoch:
                self._asked = None

    def due(self) -> int | None:
        """Takes the epoch whose mark belongs here, if there is one."""
        with self._lock:
            if self._asked is None or (self._begun < self._asked[1] and not self._left):
                return None
            epoch, self._asked = self._asked[0], None
            return epoch
