"""Sync mode on a shard: the pushes of one step wait for each other and are applied in the order of the workers.

A step's push has the step's number as its sequence: 1, 2, 3 ... in every attempt. It is parked until every worker has
handed in that step, then all are applied at once; only then are they acknowledged. A worker pulls step s + 1 after the
acknowledgement of step s, so what it pulls is the state after step s, whatever the timing: sums of floats depend on
their order, and this fixes the order. A worker without samples hands in empty pushes; one that has none left says so
with `LAST_STEP`, and later steps do not wait for it.

Pure bookkeeping: whoever calls holds `lock`, which comes before every other lock of the shard.
"""

import threading
from collections.abc import Iterable

from kuberec_runtime.wire.errors import WireRefused
from kuberec_runtime.wire.messages import Push
from kuberec_runtime.wire.session import Session

LAST_STEP = 2**62
"""Sequence of the empty push with which a worker says that all its later steps are empty."""


class Rounds:
    """Which step is next, who has handed it in, and who takes part no more."""

    def __init__(self, workers: int) -> None:
        self.lock = threading.Condition()
        self._everyone = range(workers)
        self._parked: dict[int, tuple[Session, Push]] = {}
        self._done: set[int] = set()
        self._step = 0

    def park(self, session: Session, push: Push) -> None:
        """Keeps a push until its step is complete.

        Raises:
            WireRefused: it is not of the next step: the worker's place was taken within an attempt, and only a new
                attempt can bring the workers in step again.
        """
        if push.sequence >= LAST_STEP:
            self._done.add(session.worker)
        elif push.sequence != self._step + 1:
            raise WireRefused(
                f"worker {session.worker} pushes step {push.sequence}, this shard waits for step {self._step + 1}: "
                "workers that are out of step need a new attempt"
            )
        self._parked[session.worker] = session, push

    def complete(self) -> list[tuple[Session, Push]]:
        """Takes out what may be applied now, in order: farewells at once, a step once everyone has handed it in."""
        leaving = [self._parked.pop(w) for w in sorted(self._done & set(self._parked))]
        taking_part = [w for w in self._everyone if w not in self._done]
        if not taking_part or any(w not in self._parked for w in taking_part):
            return leaving
        self._step += 1
        return leaving + [self._parked.pop(w) for w in taking_part]

    def withdraw(self, session: Session) -> None:
        """Forgets what this session handed in and was not applied."""
        if self._parked.get(session.worker, (None,))[0] is session:
            del self._parked[session.worker]

    def rejoin(self, worker: int) -> None:
        """A new process in a worker's place takes part again."""
        self._done.discard(worker)

    def reset(self, sequences: Iterable[tuple[int, int]] = ()) -> None:
        """Starts anew, or behind the last (worker, sequence) that a checkpoint remembers."""
        known = list(sequences)
        self._parked.clear()
        self._done = {worker for worker, sequence in known if sequence >= LAST_STEP}
        self._step = max((sequence for _, sequence in known if 0 <= sequence < LAST_STEP), default=0)
        self.lock.notify_all()
