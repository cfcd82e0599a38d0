"""Numbers of a pull's rows serve the push to them, until a key is removed; whatever is not known is searched for."""

import numpy as np
import pytest

from kuberec_api.model import Initializer, SparseOptimizer, SparseOptimizerKind
from kuberec_runtime.table import Table, TableError
from kuberec_runtime.table import recent as module
from kuberec_runtime.table.recent import Recent


def keys(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def noted(*pulls: np.ndarray) -> Recent:
    recent = Recent()
    for pull in pulls:
        recent.note(pull, pull * 10)
    return recent


def taken(recent: Recent, *values: int) -> list[int] | None:
    numbers = recent.take(keys(*values))
    return None if numbers is None else numbers.tolist()


def test_a_pull_is_taken_once() -> None:
    recent = noted(keys(1, 2, 3), keys(4, 5))
    assert taken(recent, 1, 2, 3) == [10, 20, 30]
    assert taken(recent, 1, 2, 3) is None
    assert taken(recent, 4, 5) == [40, 50]
    assert recent.memory_bytes == 0


@pytest.mark.parametrize("other", [(1, 2), (1, 9, 3), (3, 2, 1), (1, 2, 3, 4), ()])
def test_other_keys_are_not_known_and_take_nothing_away(other: tuple[int, ...]) -> None:
    recent = noted(keys(1, 2, 3))
    assert taken(recent, *other) is None
    assert taken(recent, 1, 2, 3) == [10, 20, 30]


def test_pieces_of_a_pull_are_put_together() -> None:
    recent = noted(keys(1, 2), keys(1, 7), keys(3), keys(4, 5))
    assert taken(recent, 1, 2, 3, 4, 5) == [10, 20, 30, 40, 50]
    assert taken(recent, 1, 7) == [10, 70]


def test_what_is_noted_is_a_copy() -> None:
    mine = keys(1, 2)
    recent = noted(mine)
    mine[:] = 9
    assert taken(recent, 1, 2) == [10, 20]


def test_the_oldest_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_PULLS", 2)
    recent = noted(keys(1), keys(2), keys(3))
    assert taken(recent, 1) is None
    assert taken(recent, 3) == [30]
    monkeypatch.setattr(module, "MOST_KEYS", 3)
    recent = noted(keys(1, 2), keys(3, 4))
    assert taken(recent, 1, 2) is None
    assert recent.memory_bytes == 32
    recent.note(keys(5, 6), keys(50, 60), 1)
    assert taken(recent, 5, 6) is None
    assert taken(recent, 3, 4) == [30, 40]


def table() -> Table:
    return Table(4, SparseOptimizer(kind=SparseOptimizerKind.SGD, learning_rate=1.0), Initializer(), 1)


def test_a_push_after_a_removal_creates_the_row_anew() -> None:
    one, other = table(), table()
    names = keys(5, 6)
    for t in (one, other):
        t.pull(np.arange(100, 300))
        t.pull(names)
        t.push(names, np.ones((2, 4), np.float32), now=1)
    one.pull(names)  # and remembers numbers that do not hold
    for t in (one, other):
        t.remove(keys(5))
        t.pull(keys(7))  # takes the place that became free
        t.push(names, np.ones((2, 4), np.float32), now=1)
    every = keys(5, 6, 7)
    assert np.array_equal(one.pull(every), other.pull(every))
    assert np.array_equal(one.pull(keys(7)), table().pull(keys(7)))


def test_keys_of_another_type_are_refused_though_their_values_were_pulled() -> None:
    one = table()
    one.pull(np.arange(100, 300))
    one.pull(keys(5, 6))
    for wrong in (np.array([5.0, 6.0]), keys(5, 6).reshape(2, 1), keys(5, 6).astype(np.int32)):
        with pytest.raises(TableError, match="keys must be int64 of one dimension"):
            one.push(wrong, np.ones((2, 4), np.float32), now=1)  # type: ignore[arg-type]


def test_a_push_of_pulled_keys_is_that_of_searched_ones() -> None:
    rng = np.random.default_rng(0)
    one, other = table(), table()
    one.pull(np.arange(100, 600))
    for _ in range(50):
        names = rng.permutation(40)[: rng.integers(1, 20)].astype(np.int64)
        grads = rng.random((names.size, 4)).astype(np.float32)
        one.pull(names)
        for t in (one, other):
            t.push(names, grads, now=1)
    every = np.arange(40)
    assert np.array_equal(one.pull(every), other.pull(every))
