"""A table as a dict of plain Python: the oracle that the real one is compared with, bit for bit."""

import numpy as np

from kuberec_api.model import Initializer, SparseOptimizer, SparseOptimizerKind
from kuberec_runtime.table.initial import initial_rows

F = np.float32


def mean_square(grad: np.ndarray) -> np.float32:
    """16 lanes, each over every sixteenth column, then a tree of halves."""
    acc = [F(0)] * 16
    for j, g in enumerate(grad):
        acc[j % 16] = F(acc[j % 16] + F(g * g))
    for half in (8, 4, 2, 1):
        acc = [F(acc[j] + acc[j + half]) for j in range(half)]
    return F(acc[0] * F(F(1) / F(grad.size)))


class ReferenceTable:
    def __init__(self, width: int, optimizer: SparseOptimizer, initializer: Initializer, seed: int) -> None:
        self.width, self.optimizer, self.initializer, self.seed = width, optimizer, initializer, seed
        self.state = {
            SparseOptimizerKind.ROWWISE_ADAGRAD: 1,
            SparseOptimizerKind.ADAGRAD: width,
            SparseOptimizerKind.SGD: 0,
        }[optimizer.kind]
        self.rows: dict[int, np.ndarray] = {}
        self.dirty: dict[str, set[int]] = {"checkpoint": set(), "publication": set()}

    def row(self, key: int) -> np.ndarray:
        if key not in self.rows:
            row = np.zeros(self.width + self.state + 2, np.float32)
            row[: self.width] = initial_rows(np.array([key]), self.width, self.initializer, self.seed)[0]
            self.rows[key] = row
        return self.rows[key]

    def pull(self, keys: list[int]) -> np.ndarray:
        return np.array([self.row(key)[: self.width] for key in keys], np.float32).reshape(len(keys), self.width)

    def push(self, keys: list[int], grads: np.ndarray, now: int) -> None:
        rate, epsilon = F(self.optimizer.learning_rate), F(self.optimizer.epsilon)
        w = self.width
        for key, grad in zip(keys, grads, strict=True):
            row = self.row(key)
            if self.optimizer.kind is SparseOptimizerKind.ROWWISE_ADAGRAD:
                row[w] = F(row[w] + mean_square(grad))
                row[:w] -= F(rate / F(F(np.sqrt(row[w])) + epsilon)) * grad
            elif self.optimizer.kind is SparseOptimizerKind.ADAGRAD:
                row[w : 2 * w] += grad * grad
                row[:w] -= rate * grad / (np.sqrt(row[w : 2 * w]) + epsilon)
            else:
                row[:w] -= rate * grad
            bits = row.view(np.uint32)
            bits[-2] += 1
            bits[-1] = now
            for marks in self.dirty.values():
                marks.add(key)

    def take(self, consumer: str, full: bool) -> dict[int, np.ndarray]:
        keys = set(self.rows) if full else self.dirty[consumer]
        taken = {key: self.rows[key].copy() for key in keys}
        self.dirty[consumer] = set()
        return taken
