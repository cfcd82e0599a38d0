"""Dense weights of one shard: a slice of the model's flat weight vector, with Adam or SGD.

Dense weights live on the shards for the same reason rows do: a worker may die without taking anything with it.
"""

import threading
from dataclasses import dataclass

import numpy as np

from kuberec_api.training import DenseOptimizer, DenseOptimizerKind
from kuberec_runtime.table.compiled import kernel
from kuberec_runtime.table.errors import TableError
from kuberec_runtime.table.initial import F32

BETA_1, BETA_2, EPSILON = 0.9, 0.999, 1e-7
"""Keras' defaults of Adam."""


@dataclass(frozen=True)
class DenseState:
    """Copy of a slice of the dense weights with its optimizer state.

    Attributes:
        weights: float32, shape (d,).
        m: float32, shape (d,), Adam's first moment; zeros under SGD.
        v: float32, shape (d,), Adam's second moment; zeros under SGD.
        step: gradients applied so far.
    """

    weights: F32
    m: F32
    v: F32
    step: int


@kernel
def _adam(w: F32, m: F32, v: F32, g: F32, rate: np.float32, b1: np.float32, b2: np.float32, eps: np.float32) -> None:
    one = np.float32(1.0)
    for i in range(w.size):
        m[i] += (g[i] - m[i]) * (one - b1)
        v[i] += (g[i] * g[i] - v[i]) * (one - b2)
        w[i] -= rate * m[i] / (np.sqrt(v[i]) + eps)


@kernel
def _sgd(w: F32, g: F32, rate: np.float32) -> None:
    for i in range(w.size):
        w[i] -= rate * g[i]


class DenseWeights:
    """The slice, its optimizer and a lock: a pull never sees half of a step."""

    def __init__(self, size: int, optimizer: DenseOptimizer) -> None:
        self._optimizer = optimizer
        self._lock = threading.Lock()
        self._w = np.zeros(size, np.float32)
        self._m = np.zeros(size, np.float32)
        self._v = np.zeros(size, np.float32)
        self._step = 0

    @property
    def size(self) -> int:
        """Floats in the slice."""
        return self._w.size

    def read_into(self, out: F32) -> None:
        """Copies the weights into `out`, float32, shape (d,)."""
        with self._lock:
            out[:] = self._w

    def apply(self, gradient: F32) -> None:
        """One optimizer step (Kingma & Ba 2015, algorithm 1, in Keras' form), float32 throughout.

        Raises:
            TableError: the gradient has another size than the slice.
        """
        if gradient.size != self._w.size:
            raise TableError(f"dense gradient has {gradient.size} floats, this shard's slice has {self._w.size}")
        with self._lock:
            self._step += 1
            rate = self._optimizer.learning_rate
            if self._optimizer.kind is DenseOptimizerKind.SGD:
                _sgd(self._w, gradient, np.float32(rate))
                return
            corrected = rate * np.sqrt(1.0 - BETA_2**self._step) / (1.0 - BETA_1**self._step)
            _adam(
                self._w, self._m, self._v, gradient,
                np.float32(corrected), np.float32(BETA_1), np.float32(BETA_2), np.float32(EPSILON),
            )  # fmt: skip

    def set(self, weights: F32) -> None:
        """Starts from `weights`, float32, shape (d,), with fresh optimizer state."""
        self.restore(DenseState(weights, np.zeros_like(weights), np.zeros_like(weights), 0))

    def restore(self, state: DenseState) -> None:
        """Replaces weights and optimizer state.

        Raises:
            TableError: a vector has another size than the slice.
        """
        for name, vector in (("weights", state.weights), ("m", state.m), ("v", state.v)):
            if vector.shape != self._w.shape:
                raise TableError(f"dense {name} has shape {vector.shape}, this shard's slice has {self._w.shape}")
        with self._lock:
            self._w[:], self._m[:], self._v[:] = state.weights, state.m, state.v
            self._step = state.step

    def snapshot(self) -> DenseState:
        """A copy of everything."""
        with self._lock:
            return DenseState(self._w.copy(), self._m.copy(), self._v.copy(), self._step)
