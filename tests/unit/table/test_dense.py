import numpy as np
import pytest

from kuberec_api.training import DenseOptimizer, DenseOptimizerKind
from kuberec_runtime.table import DenseWeights, TableError


def test_adam_follows_the_paper_in_keras_form() -> None:
    rng = np.random.default_rng(0)
    dense = DenseWeights(100, DenseOptimizer(learning_rate=0.01))
    w = rng.standard_normal(100)
    dense.set(w.astype(np.float32))
    w = w.astype(np.float32).astype(np.float64)
    m = v = np.zeros(100)
    for t in range(1, 51):
        g = rng.standard_normal(100).astype(np.float32)
        dense.apply(g)
        m = 0.9 * m + 0.1 * g
        v = 0.999 * v + 0.001 * g.astype(np.float64) ** 2
        w = w - 0.01 * np.sqrt(1 - 0.999**t) / (1 - 0.9**t) * m / (np.sqrt(v) + 1e-7)
    state = dense.snapshot()
    assert state.step == 50
    assert np.allclose(state.weights, w, rtol=0, atol=2e-5)


def test_sgd_steps_against_the_gradient() -> None:
    dense = DenseWeights(3, DenseOptimizer(kind=DenseOptimizerKind.SGD, learning_rate=0.5))
    dense.set(np.array([1, 2, 3], np.float32))
    dense.apply(np.array([2, 0, -2], np.float32))
    assert dense.snapshot().weights.tolist() == [0, 2, 4]


def test_a_restored_slice_goes_on_bit_for_bit() -> None:
    rng = np.random.default_rng(1)
    grads = rng.standard_normal((10, 50)).astype(np.float32)
    whole, half = (DenseWeights(50, DenseOptimizer()) for _ in range(2))
    for g in grads:
        whole.apply(g)
    for g in grads[:5]:
        half.apply(g)
    back = DenseWeights(50, DenseOptimizer())
    back.restore(half.snapshot())
    for g in grads[5:]:
        back.apply(g)
    for a, b in zip(whole.snapshot().__dict__.values(), back.snapshot().__dict__.values(), strict=True):
        assert np.array_equal(a, b)


def test_a_gradient_of_another_size_is_refused() -> None:
    dense = DenseWeights(4, DenseOptimizer())
    with pytest.raises(TableError, match="5 floats"):
        dense.apply(np.zeros(5, np.float32))
    assert dense.snapshot().step == 0
