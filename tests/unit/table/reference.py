"""A table as a dict of plain Python: the oracle that the real one is compared with, bit for bit.

Columns are rounded to float32 after every operation; Adam's bias correction is computed in Python's own float64 and
rounded once, with beta^t as t multiplications (the table's digits of t are the same below 256 steps).
"""

import math

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


def adam(row: np.ndarray, w: int, g: np.ndarray, optimizer: SparseOptimizer) -> None:
    """m, v and the number of steps, at w, 2 w and 3 w."""
    row[3 * w] += F(1)
    left = []
    for beta in optimizer.betas:
        power = 1.0
        for _ in range(int(row[3 * w])):
            power *= beta
        left.append(1.0 - power)
    rate = F(optimizer.learning_rate * math.sqrt(left[1]) / left[0])
    epsilon = F(optimizer.epsilon * math.sqrt(left[1]))
    (keep1, take1), (keep2, take2) = ((F(beta), F(1.0 - beta)) for beta in optimizer.betas)
    m, v = row[w : 2 * w], row[2 * w : 3 * w]
    m[:] = keep1 * m + take1 * g
    v[:] = keep2 * v + take2 * (g * g)
    row[:w] -= rate * m / (np.sqrt(v) + epsilon)


def ftrl(row: np.ndarray, w: int, g: np.ndarray, optimizer: SparseOptimizer) -> None:
    """z and n, at w and 2 w."""
    inverse, epsilon = F(1.0 / optimizer.learning_rate), F(optimizer.epsilon)
    l1, l2 = map(F, optimizer.penalties)
    weight, z, n = row[:w], row[w : 2 * w], row[2 * w : 3 * w]
    new = n + g * g
    sigma = (np.sqrt(new) - np.sqrt(n)) * inverse
    n[:] = new
    z[:] = z + (g - sigma * weight)
    solved = (np.copysign(l1, z) - z) / ((epsilon + np.sqrt(n)) * inverse + l2)
    weight[:] = np.where(np.abs(z) <= l1, F(0), solved)


class ReferenceTable:
    def __init__(self, width: int, optimizer: SparseOptimizer, initializer: Initializer, seed: int) -> None:
        self.width, self.optimizer, self.initializer, self.seed = width, optimizer, initializer, seed
        self.state = {
            SparseOptimizerKind.ROWWISE_ADAGRAD: 1,
            SparseOptimizerKind.ADAGRAD: width,
            SparseOptimizerKind.ADAM: 2 * width + 1,
            SparseOptimizerKind.FTRL: 2 * width,
            SparseOptimizerKind.SGD: 0,
        }[optimizer.kind]
        self.rows: dict[int, np.ndarray] = {}
        self.clock = 0
        self.dirty: dict[str, set[int]] = {"checkpoint": set(), "publication": set()}
        self.gone: dict[str, set[int]] = {"checkpoint": set(), "publication": set()}

    def row(self, key: int) -> np.ndarray:
        if key not in self.rows:
            row = np.zeros(self.width + self.state + 2, np.float32)
            row[: self.width] = initial_rows(np.array([key]), self.width, self.initializer, self.seed)[0]
            self.rows[key] = row
        return self.rows[key]

    def pull(self, keys: list[int]) -> np.ndarray:
        return np.array([self.row(key)[: self.width] for key in keys], np.float32).reshape(len(keys), self.width)

    def push(self, keys: list[int], grads: np.ndarray, now: int) -> None:
        self.clock = max(self.clock, now)
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
            elif self.optimizer.kind is SparseOptimizerKind.ADAM:
                adam(row, w, grad, self.optimizer)
            elif self.optimizer.kind is SparseOptimizerKind.FTRL:
                ftrl(row, w, grad, self.optimizer)
            else:
                row[:w] -= rate * grad
            bits = row.view(np.uint32)
            bits[-2] += 1
            bits[-1] = now
            for marks in self.dirty.values():
                marks.add(key)

    def take(self, consumer: str, full: bool) -> tuple[dict[int, np.ndarray], set[int]]:
        gone = self.gone[consumer]
        keys = set(self.rows) if full else self.dirty[consumer] | (gone & set(self.rows))
        taken = {key: self.rows[key].copy() for key in keys}
        removed = (gone | self.gone["publication"] if consumer == "checkpoint" else gone) - set(self.rows)
        self.dirty[consumer], self.gone[consumer] = set(), set()
        return taken, removed

    def redirty(self, consumer: str, keys: list[int]) -> None:
        self.dirty[consumer] |= set(keys) & set(self.rows)
        self.gone[consumer] |= set(keys) - set(self.rows)

    def remove(self, keys: list[int]) -> None:
        for key in keys:
            self.rows.pop(key, None)
            for marks in self.dirty.values():
                marks.discard(key)
            for gone in self.gone.values():
                gone.add(key)

    def idle(self, seconds: int) -> list[int]:
        """Keys whose last push is longer ago than that, after stamping those that were never pushed."""
        for row in self.rows.values():
            bits = row.view(np.uint32)
            bits[-1] = bits[-1] or self.clock
        return [key for key, row in self.rows.items() if self.clock - int(row.view(np.uint32)[-1]) > seconds]
