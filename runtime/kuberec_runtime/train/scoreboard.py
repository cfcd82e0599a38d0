"""The driver's part of the status, kept up to date from the workers' reports. No I/O."""

import time
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from kuberec_api.meta import Condition, ConditionStatus, timestamp
from kuberec_api.training import Monitor, Outcome, Progress, RecTrainingStatus
from kuberec_runtime.monitor import Gate, Window, auc
from kuberec_runtime.train.reports import WorkerReport

PROGRESS_WINDOW = 50_000
RATE_WINDOW_S = 10.0
DEGRADED = "Degraded"
PUBLISHING_PAUSED = "PublishingPaused"


class Scoreboard:
    """Accumulates progress, monitor windows and conditions of one attempt."""

    def __init__(self, monitors: Sequence[Monitor], generation: int) -> None:
        self.status = RecTrainingStatus(progress=Progress())
        self.gate = Gate(monitors)
        self.window = Window(PROGRESS_WINDOW)
        self.verdict = self.gate.judge()
        self._generation = generation
        self._loss = deque[tuple[float, int]](maxlen=50)
        self._rate = deque[tuple[float, int]]()
        self._skipped_before = 0

    def resume(self, steps: int, samples: int, skipped: int) -> None:
        """Starts counting where the last commit stands."""
        assert self.status.progress is not None
        self.status.progress.step = steps
        self.status.progress.samples = samples
        self.status.progress.skipped_records = self._skipped_before = skipped

    def rewind(self) -> None:
        """Forgets what was seen of samples that will be seen again."""
        self.gate.clear()
        self.window = Window(PROGRESS_WINDOW)
        self._loss.clear()
        self._rate.clear()

    def restore_windows(self, windows: dict[str, NDArray[np.float32]]) -> None:
        """Refills the monitors' windows from a checkpoint and judges them."""
        self.gate.restore(windows)
        self.verdict = self.gate.judge()

    def add(self, reports: Sequence[WorkerReport]) -> None:
        """Adds what the workers did since the last call and judges the monitors: `verdict` is as of now."""
        progress = self.status.progress
        assert progress is not None
        for report in reports:
            progress.step += report.steps
            progress.samples += report.samples
            if report.samples:
                self._loss.append((report.loss_sum, report.samples))
            for predictions, labels in zip(report.predictions, report.labels, strict=True):
                self.window.add(predictions, labels)
                self.gate.add(predictions, labels)
        progress.skipped_records = self._skipped_before + sum(r.skipped for r in reports)
        lags = [r.lag for r in reports]
        progress.lag = None if any(lag is None for lag in lags) else sum(lag or 0 for lag in lags)
        progress.samples_per_second = self._samples_per_second(progress.samples)
        if self._loss:
            progress.loss = round(sum(s for s, _ in self._loss) / sum(n for _, n in self._loss), 6)
        value = auc(*self.window.pairs())
        progress.auc = None if value is None else round(value, 6)
        progress.updated_at = _now()
        self.verdict = self.gate.judge()
        self.status.monitors = list(self.verdict.monitors)
        bad = [text for r in reports for text in r.bad_records]
        if bad:
            self.condition(DEGRADED, True, "BadRecordsSkipped", f"{progress.skipped_records} skipped; last: {bad[-1]}")

    def condition(self, kind: str, true: bool, reason: str, message: str = "") -> None:
        """Sets a condition; the transition time moves only when its status flips."""
        status = ConditionStatus.TRUE if true else ConditionStatus.FALSE
        for condition in self.status.conditions:
            if condition.type == kind:
                if condition.status is not status:
                    condition.last_transition_time = _now()
                condition.status, condition.reason, condition.message = status, reason, message
                condition.observed_generation = self._generation
                return
        self.status.conditions.append(
            Condition(
                type=kind,
                status=status,
                reason=reason,
                message=message,
                last_transition_time=_now(),
                observed_generation=self._generation,
            )
        )

    def clear(self, kind: str, *reasons: str) -> None:
        """Sets a condition to False if it is True for one of these reasons."""
        for condition in self.status.conditions:
            if (
                condition.type == kind
                and condition.status is ConditionStatus.TRUE
                and (not reasons or condition.reason in reasons)
            ):
                self.condition(kind, False, "Recovered", condition.message)

    def outcome(
        self, attempt: int, reason: str, message: str, permanent: bool, exit_code: int, newest_attempt: int | None
    ) -> None:
        """Records how the attempt ends."""
        self.status.outcome = Outcome(
            attempt=attempt,
            reason=reason,
            message=message[:4096],
            permanent=permanent,
            exit_code=exit_code,
            newest_attempt=newest_attempt,
        )

    def _samples_per_second(self, samples: int) -> float:
        now = time.monotonic()
        self._rate.append((now, samples))
        while now - self._rate[0][0] > RATE_WINDOW_S and len(self._rate) > 2:
            self._rate.popleft()
        seconds = now - self._rate[0][0]
        return round((samples - self._rate[0][1]) / seconds, 1) if seconds > 0 else 0.0


def _now() -> str:
    return timestamp(datetime.now(UTC))
