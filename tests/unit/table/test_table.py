import threading

import numpy as np
import pytest

from kuberec_api.model import Initializer, SparseOptimizer, SparseOptimizerKind
from kuberec_runtime.table import RowLayout, Table, TableError


def table(width: int = 8, kind: SparseOptimizerKind = SparseOptimizerKind.ROWWISE_ADAGRAD, **kw: bool) -> Table:
    return Table(width, SparseOptimizer(kind=kind), Initializer(), 7, **kw)


@pytest.mark.parametrize("kind", list(SparseOptimizerKind))
@pytest.mark.parametrize("width", [*range(1, 34), 64, 100, 513])
def test_vector_and_scalar_kernels_give_the_same_bits(kind: SparseOptimizerKind, width: int) -> None:
    taken = []
    for scalar in (True, False):
        rng = np.random.default_rng(width)
        one = table(width, kind, scalar=scalar)
        for now in range(5):
            keys = rng.permutation(np.unique(rng.integers(0, 200, 150)))
            one.push(keys, rng.standard_normal((keys.size, width)).astype(np.float32) * 10.0 ** (now - 2), now=now)
        taken.append((one.pull(np.arange(250)), one.take_dirty("publication")))
    (a, rows_a), (b, rows_b) = taken
    assert np.array_equal(a.view(np.uint32), b.view(np.uint32))
    assert np.array_equal(rows_a.keys, rows_b.keys)
    assert np.array_equal(rows_a.raw.view(np.uint32), rows_b.raw.view(np.uint32))


def test_the_environment_chooses_the_scalar_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    assert table()._mode is None
    monkeypatch.setenv("KUBEREC_SCALAR_KERNELS", "1")
    assert table()._mode is True


def test_rows_survive_growth_where_they_are() -> None:
    one = table(4)
    keys = np.random.default_rng(1).permutation(np.arange(1, 200_001)) * 7919
    first = one.pull(keys[:1000])
    one.push(keys[:1000], np.ones((1000, 4), np.float32), now=1)
    after = one.pull(keys[:1000])
    assert not np.array_equal(first, after)
    for start in range(1000, keys.size, 10_000):
        one.pull(keys[start : start + 10_000])
    assert len(one) == keys.size
    assert np.array_equal(one.pull(keys[:1000]), after)
    assert np.array_equal(one.take_dirty("checkpoint", full=True).keys, keys)


def test_creating_a_row_does_not_make_it_dirty_but_a_push_does_for_both_consumers() -> None:
    one = table()
    one.pull(np.arange(10))
    assert one.dirty("checkpoint") == one.dirty("publication") == 0
    one.push(np.array([3, 5]), np.ones((2, 8), np.float32))
    assert one.take_dirty("publication").keys.tolist() == [3, 5]
    assert one.take_dirty("publication").keys.size == 0
    assert one.take_dirty("checkpoint").keys.tolist() == [3, 5]


def test_a_key_pushed_twice_at_once_takes_two_steps() -> None:
    twice, apart = table(kind=SparseOptimizerKind.ADAGRAD), table(kind=SparseOptimizerKind.ADAGRAD)
    grads = np.random.default_rng(0).standard_normal((2, 8)).astype(np.float32)
    twice.push(np.array([4, 4]), grads, now=1)
    apart.push(np.array([4]), grads[:1], now=1)
    apart.push(np.array([4]), grads[1:], now=1)
    assert len(twice) == 1
    assert np.array_equal(twice.take_dirty("checkpoint").raw, apart.take_dirty("checkpoint").raw)


def test_frequency_and_last_seen_are_kept_as_integers() -> None:
    one = table(5)
    for now in (100, 200, 4_000_000_000):
        one.push(np.array([1]), np.zeros((1, 5), np.float32), now=now)
    raw = one.take_dirty("checkpoint").raw.view(np.uint32)
    layout = RowLayout.of(5, SparseOptimizerKind.ROWWISE_ADAGRAD)
    assert raw[0, layout.frequency] == 3 and raw[0, layout.last_seen] == 4_000_000_000
    assert raw.shape[1] == layout.stride


@pytest.mark.parametrize("kind", list(SparseOptimizerKind))
def test_restored_rows_train_on_as_if_nothing_had_happened(kind: SparseOptimizerKind) -> None:
    rng = np.random.default_rng(2)
    steps = [(np.unique(rng.integers(0, 500, 300)), now) for now in range(6)]
    grads = [rng.standard_normal((keys.size, 8)).astype(np.float32) for keys, _ in steps]
    whole, before, after = table(kind=kind), table(kind=kind), table(kind=kind)
    for (keys, now), grad in zip(steps, grads, strict=True):
        whole.push(keys, grad, now=now)
    for (keys, now), grad in zip(steps[:3], grads[:3], strict=True):
        before.push(keys, grad, now=now)
    saved = before.take_dirty("checkpoint")
    after.restore(saved.keys, saved.raw)
    assert after.dirty("checkpoint") == 0
    for (keys, now), grad in zip(steps[3:], grads[3:], strict=True):
        after.push(keys, grad, now=now)
    a, b = whole.take_dirty("checkpoint", full=True), after.take_dirty("checkpoint", full=True)
    order_a, order_b = np.argsort(a.keys), np.argsort(b.keys)
    assert np.array_equal(a.keys[order_a], b.keys[order_b])
    assert np.array_equal(a.raw[order_a].view(np.uint32), b.raw[order_b].view(np.uint32))


@pytest.mark.parametrize(
    ("keys", "grads"),
    [
        (np.array([1, -1]), np.zeros((2, 8), np.float32)),
        (np.array([1, 2]), np.zeros((2, 7), np.float32)),
        (np.array([1, 2]), np.zeros((1, 8), np.float32)),
        (np.array([1, 2]), np.zeros((2, 8), np.float64)),
        (np.array([1, 2], np.int32), np.zeros((2, 8), np.float32)),
    ],
)
def test_a_push_that_makes_no_sense_is_refused_and_changes_nothing(keys: np.ndarray, grads: np.ndarray) -> None:
    one = table()
    with pytest.raises(TableError):
        one.push(keys, grads)
    assert one.dirty("checkpoint") == 0


def test_rows_of_another_optimizer_are_refused_by_name() -> None:
    saved = table(kind=SparseOptimizerKind.ADAGRAD)
    saved.push(np.array([1]), np.ones((1, 8), np.float32))
    rows = saved.take_dirty("checkpoint")
    with pytest.raises(TableError, match=r"width 8 under RowwiseAdagrad .* another width or optimizer"):
        table().restore(rows.keys, rows.raw)


@pytest.mark.parametrize(
    ("width", "kind"),
    [
        (16, SparseOptimizerKind.ADAGRAD),
        (17, SparseOptimizerKind.ROWWISE_ADAGRAD),
        (16, SparseOptimizerKind.ADAM),
        (16, SparseOptimizerKind.FTRL),
    ],
)
def test_memory_stays_within_1_3_times_rows_and_keys_up_to_a_million_rows(
    width: int, kind: SparseOptimizerKind
) -> None:
    one = table(width, kind)
    worst = 0.0
    for start in range(0, 1_000_000, 40_000):
        one.pull(np.arange(start, start + 40_000, dtype=np.int64) * 31)
        if start >= 400_000:
            worst = max(worst, one.memory_bytes / one.content_bytes)
    assert len(one) == 1_000_000
    assert worst <= 1.3


def test_pushes_and_takes_from_many_threads_lose_no_step() -> None:
    one = table(4, SparseOptimizerKind.SGD)
    keys = np.arange(2000)
    seen = np.zeros(2000, np.int64)
    over = threading.Event()

    def push() -> None:
        for _ in range(50):
            one.push(keys, np.ones((2000, 4), np.float32))

    def take() -> None:
        while not over.is_set():
            one.take_dirty("checkpoint")

    threads = [threading.Thread(target=push) for _ in range(3)]
    taker = threading.Thread(target=take)
    for thread in (*threads, taker):
        thread.start()
    for thread in threads:
        thread.join()
    over.set()
    taker.join()
    rows = one.take_dirty("publication")
    seen[rows.keys] = rows.raw.view(np.uint32)[:, one.layout.frequency]
    assert (seen == 150).all()
