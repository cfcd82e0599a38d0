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
