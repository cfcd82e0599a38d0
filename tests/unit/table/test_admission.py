"""Keys without a row: what they are worth, how they are counted, when they get one."""

import numpy as np
import pytest

from kuberec_api.model import Initializer, SparseOptimizer, SparseOptimizerKind
from kuberec_runtime.table import Table
from kuberec_runtime.table.admission import COUNTERS, Sketch
from kuberec_runtime.table.initial import initial_rows

SGD = SparseOptimizer(kind=SparseOptimizerKind.SGD, learning_rate=1.0)


def table(min_count: int = 3, **more: bool) -> Table:
    return Table(4, SGD, Initializer(), 3, min_count=min_count, **more)


def grads(n: int) -> np.ndarray:
    return np.ones((n, 4), np.float32)


def test_a_key_gets_its_row_at_the_kth_push_and_learns_from_that_one_on() -> None:
    one, keys = table(), np.array([5, 9])
    first = initial_rows(keys, 4, Initializer(), 3)
    for _ in range(2):
        assert np.array_equal(one.pull(keys), first)
        one.push(keys, grads(2), now=1)
    assert len(one) == 0 and one.dropped == 4
    one.push(keys, grads(2), now=1)
    assert np.array_equal(one.pull(keys), first - 1)
    assert len(one) == 2 and one.dropped == 4


@pytest.mark.parametrize("scalar", [True, False])
def test_pulls_create_nothing_and_mix_rows_with_first_values(scalar: bool) -> None:
    one, all_keys = table(scalar=scalar), np.arange(100)
    known = all_keys[::3]
    for _ in range(3):
        one.push(known, grads(known.size), now=1)
    expected = initial_rows(all_keys, 4, Initializer(), 3)
    expected[::3] -= 1
    assert np.array_equal(one.pull(all_keys), expected)
    assert np.array_equal(one.pull(np.arange(1000, 1010)), initial_rows(np.arange(1000, 1010), 4, Initializer(), 3))
    assert len(one) == known.size


def test_in_one_push_some_keys_learn_and_the_others_do_not() -> None:
    one = table(2)
    one.push(np.array([1, 2, 3]), grads(3), now=1)
    one.push(np.array([2, 7, 1, 8]), np.arange(16, dtype=np.float32).reshape(4, 4), now=1)
    rows = one.take_dirty("checkpoint")
    assert rows.keys.tolist() == [2, 1]
    moved = initial_rows(rows.keys, 4, Initializer(), 3) - rows.raw[:, :4]
    np.testing.assert_allclose(moved, [[0, 1, 2, 3], [8, 9, 10, 11]], atol=1e-5)


def test_counts_are_never_too_low_and_seldom_too_high() -> None:
    """Against exact counts, as long as no bucket was halved."""
    rng = np.random.default_rng(0)
    sketch = Sketch(3)
    names = rng.integers(0, 2**62, 400_000)
    exact = np.zeros(names.size, np.int64)
    early = 0
    for _ in range(20):
        chosen = rng.permutation(names.size)[:50_000]
        rows = np.full(chosen.size, -1, np.int64)
        sketch.admit(names[chosen], rows)
        exact[chosen] += 1
        assert (rows[exact[chosen] >= 3] == -1).all(), "a key that came often enough is let in"
        early += int((rows[exact[chosen] < 3] == -1).sum())
    assert sketch._added.max() < COUNTERS
    assert early < 0.01 * 20 * 50_000


def test_what_comes_rarely_is_forgotten() -> None:
    sketch = Sketch(2)
    once = np.array([77])
    sketch.admit(once, np.array([-1]))
    rng = np.random.default_rng(1)
    for _ in range(100):
        keys = rng.integers(0, 2**62, 60_000)
        sketch.admit(keys, np.full(keys.size, -1, np.int64))
    assert (sketch._added < COUNTERS).all()
    filled = (sketch._counters > 0).mean()
    assert filled < 0.8, "a sketch that is never emptied would let everything in"


def test_a_removed_key_that_was_popular_is_let_in_at_once() -> None:
    one, key = table(2), np.array([4])
    for _ in range(3):
        one.push(key, grads(1), now=1)
    one.remove(key)
    one.push(key, grads(1), now=1)
    assert len(one) == 1


@pytest.mark.parametrize("least", [0, 1, 256])
def test_counts_that_a_byte_does_not_hold_are_refused(least: int) -> None:
    with pytest.raises(ValueError, match="2nd to 255th"):
        Sketch(least)
