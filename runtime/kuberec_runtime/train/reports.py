"""What workers tell the driver. Apart from `worker`, so that the driver never imports TensorFlow."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from kuberec_runtime.stream import Position

F32 = NDArray[np.float32]


@dataclass(frozen=True)
class WorkerCut:
    """A worker's part of a cut: positions after all that was pushed before the mark, and counts until then."""

    positions: dict[int, Position]
    samples: dict[int, int]
    skipped: dict[int, int]
    watermark_ms: int


@dataclass
class WorkerReport:
    """What happened since the report before; predictions and labels float32[n] in the order of training."""

    steps: int = 0
    samples: int = 0
    loss_sum: float = 0.0
    predictions: list[F32] = field(default_factory=list)
    labels: list[F32] = field(default_factory=list)
    lag: int | None = None
    skipped: int = 0
    bad_records: list[str] = field(default_factory=list)
    finished: bool = False
