"""Follows the training in a thread of its own, so that the demo can do one thing at a time and still show both."""

import threading
import time
from dataclasses import dataclass

from kuberec_api.training import RecTrainingStatus
from kuberec_devcluster.demo.board import Board
from kuberec_devcluster.demo.interrupts import Interrupts
from kuberec_runtime.local.supervisor import TrainingFailedError, TrainingProcess

LOOK_SECONDS = 0.2
START_SECONDS = 300.0
STALL_SECONDS = 90.0


@dataclass(frozen=True)
class Learnt:
    """The status when all samples were learnt, and the rate from the first report that had any to this one.

    What was learnt before the first report counts for neither samples nor time: nobody saw when it began.
    """

    status: RecTrainingStatus
    per_second: float


class Watcher:
    """Looks after a training's attempts and shows its figures. `close` before the training is stopped."""

    def __init__(self, training: TrainingProcess, board: Board, samples: int, interrupts: Interrupts) -> None:
        self._training, self._board, self._samples = training, board, samples
        self._interrupts = interrupts
        self._learnt: Learnt | None = None
        self._failure: TrainingFailedError | None = None
        self._changed = threading.Condition()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watcher", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stops looking."""
        self._closing.set()
        self._thread.join(10)

    def check(self) -> None:
        """Raises what ended the training.

        Raises:
            TrainingFailedError: it has failed, ended early, or does not get on.
            KeyboardInterrupt: Ctrl-C.
        """
        self._interrupts.check()
        if self._failure is not None:
            raise self._failure

    def wait_for_version(self) -> str:
        """Returns the first published version. Raises as `check`."""
        with self._changed:
            while self._board.figures.version is None:
                self.check()
                self._changed.wait(LOOK_SECONDS)
            return self._board.figures.version

    def wait_until_learnt(self) -> Learnt:
        """Returns how the training stood when all samples were learnt. Raises as `check`."""
        with self._changed:
            while self._learnt is None:
                self.check()
                self._changed.wait(LOOK_SECONDS)
            return self._learnt

    def _run(self) -> None:
        try:
            self._follow()
        except TrainingFailedError as error:
            self._failure = error
        with self._changed:
            self._changed.notify_all()

    def _follow(self) -> None:
        moved = first_at = time.monotonic()
        first = seen = 0
        while not self._closing.wait(LOOK_SECONDS):
            if not self._training.poll():
                raise TrainingFailedError(f"the training ended early\n  see {self._training.log_path}")
            status, now = self._training.status(), time.monotonic()
            with self._changed:
                self._board.figures.take(status)
                samples = self._board.figures.samples
                if samples and not first:
                    first_at, first = now, samples
                if samples != seen:
                    seen, moved = samples, now
                if self._learnt is None and status is not None and samples >= self._samples:
                    seconds = now - first_at
                    self._learnt = Learnt(status, (samples - first) / seconds if seconds else 0.0)
                self._changed.notify_all()
            self._board.tick()
            limit = STALL_SECONDS if samples else START_SECONDS
            if samples < self._samples and now - moved > limit:
                raise TrainingFailedError(f"nothing was learnt for {limit:.0f} s\n  see {self._training.log_path}")
