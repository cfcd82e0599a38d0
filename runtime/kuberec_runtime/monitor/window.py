"""The last n scored samples, and exact metrics over them.

Predictions are progressive: every sample is scored before it is trained on, so the window is a held-out set that moves.
"""

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]


class Window:
    """A ring of the last `size` pairs (prediction, label); both float32."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._predictions = np.zeros(size, np.float32)
        self._labels = np.zeros(size, np.float32)
        self._at = 0
        self.count = 0

    def add(self, predictions: F32, labels: F32) -> None:
        """Appends pairs in order; only the last `size` remain."""
        predictions, labels = predictions[-self.size :], labels[-self.size :]
        index = (self._at + np.arange(len(predictions))) % self.size
        self._predictions[index], self._labels[index] = predictions, labels
        self._at = int((self._at + len(predictions)) % self.size)
        self.count = min(self.size, self.count + len(predictions))

    @property
    def full(self) -> bool:
        """True once `size` samples have been seen."""
        return self.count == self.size

    def pairs(self) -> tuple[F32, F32]:
        """Predictions and labels in the window, oldest first, each float32[count]."""
        index = (self._at - self.count + np.arange(self.count)) % self.size
        return self._predictions[index], self._labels[index]


def positive_ratio(labels: F32) -> float | None:
    """Share of positive labels, None for an empty window."""
    return float(labels.mean()) if len(labels) else None


def auc(predictions: F32, labels: F32) -> float | None:
    """Area under the ROC curve with ties at half weight (Mann-Whitney U); None unless both classes occur."""
    positive = labels > 0.5
    positives, negatives = int(positive.sum()), int((~positive).sum())
    if not positives or not negatives:
        return None
    _, inverse, counts = np.unique(predictions, return_inverse=True, return_counts=True)
    last_rank = np.cumsum(counts).astype(np.float64)
    mean_rank = last_rank - (counts - 1) / 2
    rank_sum = float(mean_rank[inverse][positive].sum())
    return (rank_sum - positives * (positives + 1) / 2) / (positives * negatives)
