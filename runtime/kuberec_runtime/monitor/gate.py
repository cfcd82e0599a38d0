"""The verdict that lets a publication through or holds it back: every full window must be in its range.

A window that is not full yet does not hold anything back: a fresh training has to be served somehow. What was held back
stays dirty on the shards and goes out with the next publication that passes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kuberec_api.training import Monitor, MonitorMetric, MonitorState, MonitorStatus
from kuberec_runtime.monitor.window import Window, auc, positive_ratio

F32 = NDArray[np.float32]


@dataclass(frozen=True)
class Verdict:
    """Open or not; when closed, the first monitor out of range and a sentence about it."""

    open: bool
    monitors: tuple[MonitorStatus, ...]
    reason: str = ""
    message: str = ""


class Gate:
    """Holds one window for each monitor."""

    def __init__(self, monitors: Sequence[Monitor]) -> None:
        self._monitors = monitors
        self.clear()

    def clear(self) -> None:
        """Empties all windows."""
        self._windows = [Window(m.window) for m in self._monitors]

    def add(self, predictions: F32, labels: F32) -> None:
        """Feeds scored samples to all windows."""
        for window in self._windows:
            window.add(predictions, labels)

    def state(self) -> dict[str, NDArray[np.float32]]:
        """The windows as arrays float32[2, count] by monitor name, for the checkpoint."""
        return {
            m.name: np.stack(w.pairs()).astype(np.float32) for m, w in zip(self._monitors, self._windows, strict=True)
        }

    def restore(self, state: dict[str, NDArray[np.float32]]) -> None:
        """Refills the windows; monitors that the checkpoint does not know start empty."""
        for monitor, window in zip(self._monitors, self._windows, strict=True):
            if monitor.name in state:
                window.add(state[monitor.name][0], state[monitor.name][1])

    def judge(self) -> Verdict:
        """Measures every monitor."""
        statuses, reason, message = [], "", ""
        for monitor, window in zip(self._monitors, self._windows, strict=True):
            predictions, labels = window.pairs()
            value = (
                positive_ratio(labels) if monitor.metric is MonitorMetric.POSITIVE_RATIO else auc(predictions, labels)
            )
            state = _state(monitor, value, window.full)
            statuses.append(MonitorStatus(name=monitor.name, value=_rounded(value), state=state))
            if state is MonitorState.OUT_OF_RANGE and not message:
                reason = "".join(part.capitalize() for part in monitor.name.split("-")) + "OutOfRange"
                low, high = monitor.range.min, monitor.range.max
                message = (
                    f"monitor '{monitor.name}': {monitor.metric.value} {value:.4f} over the last {window.count} "
                    f"samples is outside [{'-inf' if low is None else low}, {'inf' if high is None else high}]"
                )
        return Verdict(not message, tuple(statuses), reason, message)


def _state(monitor: Monitor, value: float | None, full: bool) -> MonitorState:
    if value is None or not full:
        return MonitorState.WARMING
    low, high = monitor.range.min, monitor.range.max
    inside = (low is None or value >= low) and (high is None or value <= high)
    return MonitorState.IN_RANGE if inside else MonitorState.OUT_OF_RANGE


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
