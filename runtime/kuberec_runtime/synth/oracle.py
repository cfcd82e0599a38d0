"""What the best possible model reaches: AUC of the true probability on the very samples that were written.

No model can beat it by more than chance, so "AUC within 0.02 of the oracle" is a statement about the trainer, not about
the luck of the data.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kuberec_runtime.monitor import auc
from kuberec_runtime.synth.stream import EFFECTS, Samples

TAIL = 0.2


@dataclass(frozen=True)
class Report:
    """Oracle figures of a bounded run.

    Attributes:
        samples: how many.
        click_ratio: share of clicks.
        auc: of the true log-odds on all samples; None unless both classes occur.
        tail_samples, tail_auc: the same on the newest fifth, what a progressive AUC at the end compares with.
        without: AUC on all samples if a model knew everything but this effect.
    """

    samples: int
    click_ratio: float
    auc: float | None
    tail_samples: int
    tail_auc: float | None
    without: dict[str, float | None]

    def as_json(self) -> dict[str, Any]:
        """Returns what `oracle.json` holds."""
        return asdict(self)


class Oracle:
    """Collects the truth of samples as they are written, 37 bytes each."""

    def __init__(self) -> None:
        self._effects: list[NDArray[np.float32]] = []
        self._logits: list[NDArray[np.float32]] = []
        self._clicks: list[NDArray[np.int8]] = []

    def add(self, samples: Samples) -> None:
        """Adds samples, in order."""
        self._effects.append(samples.effects)
        self._logits.append(samples.logit)
        self._clicks.append(samples.click)

    @property
    def logits(self) -> NDArray[np.float32]:
        """True log-odds of all samples so far, float32[n]."""
        return np.concatenate([np.zeros(0, np.float32), *self._logits])

    @property
    def clicks(self) -> NDArray[np.float32]:
        """Labels of all samples so far, float32[n]."""
        return np.concatenate([np.zeros(0, np.int8), *self._clicks]).astype(np.float32)

    def report(self) -> Report:
        """Computes the figures."""
        logits, clicks = self.logits, self.clicks
        effects = np.concatenate([np.zeros((0, len(EFFECTS)), np.float32), *self._effects])
        tail = len(logits) - round(len(logits) * TAIL)
        return Report(
            samples=len(logits),
            click_ratio=float(clicks.mean()) if len(clicks) else 0.0,
            auc=auc(logits, clicks),
            tail_samples=len(logits) - tail,
            tail_auc=auc(logits[tail:], clicks[tail:]),
            without={name: auc(logits - effects[:, k], clicks) for k, name in enumerate(EFFECTS)},
        )


def best_without(effects: NDArray[np.float64], clicks: NDArray[np.float32], effect: int, first: int) -> NDArray[Any]:
    """Log-odds, to somebody who knows all effects but one, of the samples from `first` on: float64[n - first].

    Effects go together (who clicked within an hour has clicked within a day), so the others are weighed anew, by
    Newton's method for a logistic model on the samples before `first`.

    Args:
        effects: float64[n, k], addends of the log-odds.
        clicks: float32[n], labels.
        effect: the column that is not known.
        first: the first sample that is asked for.
    """
    known = np.column_stack([np.delete(effects, effect, axis=1), np.ones(len(effects))])
    x, weights = known[:first], np.zeros(known.shape[1])
    for _ in range(8):
        chance = 1.0 / (1.0 + np.exp(-(x @ weights)))
        curvature = (x * (chance * (1.0 - chance))[:, None]).T @ x
        weights += np.linalg.solve(curvature, x.T @ (clicks[:first] - chance))
    return np.asarray(known[first:] @ weights)


def auc_error(value: float, clicks: NDArray[np.float32]) -> float:
    """Standard error of an AUC on samples with these labels (Hanley and McNeil, Radiology 143, 1982)."""
    positives = float(clicks.sum())
    negatives = len(clicks) - positives
    of_positives, of_negatives = value / (2 - value), 2 * value**2 / (1 + value)
    variance = value * (1 - value)
    variance += (positives - 1) * (of_positives - value**2) + (negatives - 1) * (of_negatives - value**2)
    return float(np.sqrt(variance / (positives * negatives)))


def leaks(value: float, oracle: float, clicks: NDArray[np.float32]) -> bool:
    """Whether a model with this AUC must have seen what it could not know: it is above the oracle by over 3 errors."""
    return value > oracle + 3 * auc_error(oracle, clicks)
