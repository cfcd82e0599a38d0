"""Row optimizers against their papers' formulas in float64, and what each does that another does not."""

from fractions import Fraction

import numpy as np
import pytest

from kuberec_api.model import Initializer, InitializerKind, SparseOptimizer, SparseOptimizerKind
from kuberec_runtime.table import RowLayout, Table
from kuberec_runtime.table.optimizers import powers

WIDTH, STEPS = 19, 60
NORMAL, ZEROS = Initializer(), Initializer(kind=InitializerKind.ZEROS)
KEYS = np.array([3, 99])


def gradients(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((STEPS, KEYS.size, WIDTH)).astype(np.float32)


def trained(optimizer: SparseOptimizer, grads: np.ndarray, initializer: Initializer = NORMAL) -> Table:
    table = Table(WIDTH, optimizer, initializer, 4)
    for grad in grads:
        table.push(KEYS, grad, now=1)
    return table


@pytest.mark.parametrize("betas", [{}, {"beta1": 0.5, "beta2": 0.9}, {"beta1": 0.0, "beta2": 1 - 1e-9}])
def test_adam_is_algorithm_1_of_kingma_and_ba(betas: dict[str, float]) -> None:
    optimizer = SparseOptimizer(kind=SparseOptimizerKind.ADAM, learning_rate=0.01, epsilon=1e-3, **betas)
    beta1, beta2 = optimizer.betas
    table = Table(WIDTH, optimizer, Initializer(), 4)
    w = table.pull(KEYS).astype(np.float64)
    m, v = np.zeros_like(w), np.zeros_like(w)
    for t, grad in enumerate(gradients(), 1):
        table.push(KEYS, grad, now=1)
        g = grad.astype(np.float64)
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g * g
        w -= 0.01 * (m / (1 - beta1**t)) / (np.sqrt(v / (1 - beta2**t)) + 1e-3)
    np.testing.assert_allclose(table.pull(KEYS), w, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("penalties", [{}, {"l1": 0.5}, {"l2": 0.3}, {"l1": 2.0, "l2": 0.1}])
def test_ftrl_is_algorithm_1_of_mcmahan(penalties: dict[str, float]) -> None:
    alpha, beta = 0.1, 1.0
    optimizer = SparseOptimizer(kind=SparseOptimizerKind.FTRL, learning_rate=alpha, epsilon=beta, **penalties)
    l1, l2 = optimizer.penalties
    table = Table(WIDTH, optimizer, Initializer(), 4)
    w = table.pull(KEYS).astype(np.float64)
    z, n = np.zeros_like(w), np.zeros_like(w)
    for grad in gradients():
        table.push(KEYS, grad, now=1)
        g = grad.astype(np.float64)
        sigma = (np.sqrt(n + g * g) - np.sqrt(n)) / alpha
        z += g - sigma * w
        n += g * g
        w = np.where(np.abs(z) <= l1, 0, -(z - np.sign(z) * l1) / ((beta + np.sqrt(n)) / alpha + l2))
    np.testing.assert_allclose(table.pull(KEYS), w, rtol=1e-3, atol=1e-5)


def test_the_bias_of_a_row_is_corrected_by_its_own_steps() -> None:
    """A row's first step is rate * sign(g), however long the others have been trained."""
    optimizer = SparseOptimizer(kind=SparseOptimizerKind.ADAM, learning_rate=0.01)
    table = trained(optimizer, gradients(), ZEROS)
    grad = gradients(1)[0, :1]
    table.push(np.array([7]), grad, now=1)
    np.testing.assert_allclose(table.pull(np.array([7])), -0.01 * np.sign(grad), rtol=1e-3)
    rows = table.take_dirty("checkpoint")
    steps = {int(key): row[3 * WIDTH] for key, row in zip(rows.keys, rows.raw, strict=True)}
    assert steps == {3: STEPS, 99: STEPS, 7: 1}


def test_a_row_that_is_not_pushed_keeps_its_moments() -> None:
    table = trained(SparseOptimizer(kind=SparseOptimizerKind.ADAM), gradients())
    before = table.take_dirty("checkpoint")
    for grad in gradients(1):
        table.push(KEYS[:1], grad[:1], now=2)
    after = table.take_dirty("checkpoint", full=True)
    assert np.array_equal(before.raw[1].view(np.uint32), after.raw[1].view(np.uint32))


def test_the_step_count_saturates_where_the_correction_is_over() -> None:
    optimizer = SparseOptimizer(
        kind=SparseOptimizerKind.ADAM, learning_rate=0.125, epsilon=1e-30, beta1=0.999999, beta2=0.999999
    )
    table = Table(1, optimizer, ZEROS, 1)
    table.restore(np.array([5]), np.array([[0, 2, 4, 2**24 - 1, 0, 0]], np.float32))
    for _ in range(3):
        table.push(np.array([5]), np.full((1, 1), 2, np.float32), now=1)
    row = table.take_dirty("checkpoint").raw[0]
    assert row[3] == 2**24
    assert row[0] == -3 * 0.125


@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.5, 0.999999), (0.0, 0.1)])
def test_powers_are_right_for_every_step_count(betas: tuple[float, float]) -> None:
    table = powers(betas)
    for t in (1, 2, 255, 256, 257, 65_535, 65_536, 70_001, 2**24):
        low, middle, high = t & 255, (t >> 8) & 255, t >> 16
        for i, beta in enumerate(betas):
            exact = float(Fraction(beta) ** t) if t < 300 else beta**t
            got = table[0, low, i] * table[1, middle, i] * table[2, high, i]
            assert got == pytest.approx(exact, rel=1e-9, abs=1e-300)


def test_l1_makes_weights_exactly_zero_and_without_it_none_is() -> None:
    grads = gradients() * 0.1
    sparse = trained(SparseOptimizer(kind=SparseOptimizerKind.FTRL, l1=1.0), grads).pull(KEYS)
    dense = trained(SparseOptimizer(kind=SparseOptimizerKind.FTRL), grads).pull(KEYS)
    assert 0.5 < (sparse == 0).mean() < 1
    assert not np.signbit(sparse[sparse == 0]).any()
    assert (dense != 0).all()


def test_a_weight_of_ftrl_without_any_gradient_so_far_becomes_zero() -> None:
    """The closed form has no other memory of a first value; a row that was never pushed keeps its own."""
    grads = gradients()[:1]
    grads[..., 5] = 0
    table = trained(SparseOptimizer(kind=SparseOptimizerKind.FTRL), grads)
    assert (table.pull(KEYS)[:, 5] == 0).all()
    assert (table.pull(np.array([8])) != 0).all()


def test_ftrl_without_penalties_walks_as_adagrad() -> None:
    """McMahan et al. 2013, section 3: then both are online gradient descent with the same rates."""
    ftrl = trained(SparseOptimizer(kind=SparseOptimizerKind.FTRL, epsilon=1e-20), gradients())
    adagrad = trained(SparseOptimizer(kind=SparseOptimizerKind.ADAGRAD, epsilon=1e-20), gradients())
    np.testing.assert_allclose(ftrl.pull(KEYS), adagrad.pull(KEYS), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "state"),
    [
        (SparseOptimizerKind.ROWWISE_ADAGRAD, 1),
        (SparseOptimizerKind.ADAGRAD, 16),
        (SparseOptimizerKind.ADAM, 33),
        (SparseOptimizerKind.FTRL, 32),
        (SparseOptimizerKind.SGD, 0),
    ],
)
def test_a_row_is_weights_state_and_two_counters(kind: SparseOptimizerKind, state: int) -> None:
    layout = RowLayout.of(16, kind)
    assert (layout.state, layout.stride) == (state, 16 + state + 2)
    table = Table(16, SparseOptimizer(kind=kind), Initializer(), 1)
    table.push(KEYS, np.ones((2, 16), np.float32), now=9)
    rows = table.take_dirty("publication")
    assert rows.raw.shape == (2, layout.stride)
    assert np.array_equal(rows.raw[:, :16], table.pull(KEYS)), "what is published is the weights alone"
    assert rows.raw.view(np.uint32)[:, layout.frequency :].tolist() == [[1, 9]] * 2
