"""What a sweep removes, what is remembered of it, and how much it does at once."""

import time

import numpy as np
import pytest

from kuberec_api.model import Initializer, SparseOptimizer
from kuberec_runtime.table import Table
from kuberec_runtime.table.eviction import CLASSES, EvictionRule, Sweeper, Verdict, _class_of, lowest

DAY = 86_400


def table(width: int = 4) -> Table:
    return Table(width, SparseOptimizer(), Initializer(), 3)


def push(one: Table, keys: np.ndarray, now: int, times: int = 1) -> None:
    for _ in range(times):
        one.push(keys, np.ones((keys.size, one.width), np.float32), now=now)


def swept(*tables: Table, rule: EvictionRule, steps: int = 10_000) -> Sweeper:
    """A sweeper that has worked until there was nothing left to do."""
    sweeper = Sweeper(lambda: {t.width: t for t in tables}, rule, clock=lambda: 0.0)
    for _ in range(steps):
        if not sweeper.step():
            return sweeper
    raise AssertionError("the sweep does not end")


def test_rows_without_a_push_for_longer_than_idle_go_and_others_stay() -> None:
    one = table()
    push(one, np.arange(100), now=10 * DAY)
    push(one, np.arange(50), now=13 * DAY)
    push(one, np.array([500]), now=20 * DAY)
    assert swept(one, rule=EvictionRule(idle_s=7 * DAY)).evicted == 50
    assert one.take_dirty("checkpoint", full=True).keys.tolist() == [*range(50), 500]


def test_time_is_what_was_pushed_last_and_not_the_clock_on_the_wall() -> None:
    one = table()
    push(one, np.arange(10), now=5)
    assert swept(one, rule=EvictionRule(idle_s=1)).evicted == 0


def test_a_row_that_was_only_pulled_gets_the_time_of_the_sweep_that_meets_it_first() -> None:
    one = table()
    push(one, np.array([1]), now=100)
    one.pull(np.array([2]))
    assert one.sweep(0, 10, Verdict(idle_s=50)) == (0, 0)
    push(one, np.array([1]), now=150)
    assert one.sweep(0, 10, Verdict(idle_s=50)) == (0, 0)
    push(one, np.array([1]), now=151)
    assert one.sweep(0, 10, Verdict(idle_s=50)) == (0, 1)
    assert one.take_dirty("checkpoint", full=True).keys.tolist() == [1]


def test_a_key_that_comes_back_starts_from_its_first_value_in_a_freed_place() -> None:
    one = table()
    first = one.pull(np.arange(20))
    push(one, np.arange(20), now=1, times=3)
    assert one.remove(np.arange(20)) == 20 and len(one) == 0
    used = one._used
    assert np.array_equal(one.pull(np.arange(20)), first)
    assert one._used == used and len(one) == 20
    raw = one.take_dirty("checkpoint", full=True).raw
    assert (raw[:, 4:] == 0).all(), "no state and no counters of the row before"


def test_each_consumer_gets_its_own_tombstones_and_a_key_that_came_back_is_a_row() -> None:
    one = table()
    push(one, np.arange(6), now=1)
    for consumer in ("checkpoint", "publication"):
        one.take_dirty(consumer)
    one.remove(np.array([1, 2, 3]))
    one.pull(np.array([2]))
    rows = one.take_dirty("publication")
    assert rows.keys.tolist() == [2] and rows.removed.tolist() == [1, 3]
    assert one.take_dirty("publication").removed.size == 0
    one.pull(np.array([3]))
    rows = one.take_dirty("checkpoint")
    assert sorted(rows.keys.tolist()) == [2, 3] and rows.removed.tolist() == [1]


def test_a_checkpoint_also_holds_what_the_publication_has_yet_to_learn() -> None:
    one = table()
    push(one, np.arange(6), now=1)
    one.remove(np.array([1]))
    one.take_dirty("checkpoint", full=True)
    assert one.take_dirty("checkpoint").removed.tolist() == [1]
    one.take_dirty("publication")
    assert one.take_dirty("checkpoint").removed.size == 0


def test_tombstones_whose_file_could_not_be_written_come_again() -> None:
    one = table()
    push(one, np.arange(4), now=1)
    one.remove(np.array([0, 1]))
    rows = one.take_dirty("publication")
    one.pull(np.array([1]))
    one.redirty("publication", rows.touched)
    again = one.take_dirty("publication")
    assert sorted(again.keys.tolist()) == [1, 2, 3] and again.removed.tolist() == [0]


def test_without_a_publication_nothing_is_remembered_for_it() -> None:
    one = Table(4, SparseOptimizer(), Initializer(), 3, published=False)
    push(one, np.arange(4), now=1)
    one.remove(np.array([0, 1]))
    assert one.take_dirty("checkpoint").removed.tolist() == [0, 1]
    assert one.take_dirty("publication").removed.size == 0
    assert one.take_dirty("checkpoint").removed.size == 0


@pytest.mark.parametrize("by", ["rows", "bytes"])
def test_a_budget_keeps_the_rows_that_were_pushed_most(by: str) -> None:
    one, other = table(4), table(8)
    for place, t in enumerate((one, other)):
        keys = np.arange(10_000) * 2 + place
        push(t, keys, now=DAY)
        push(t, keys[:5000], now=DAY)
        push(t, keys[:3000], now=DAY, times=5)
    each = one.row_bytes + other.row_bytes + 2 * 24
    rule = EvictionRule(rows=10_000) if by == "rows" else EvictionRule(bytes=5000 * each)
    swept(one, other, rule=rule)
    rows = len(one) + len(other)
    assert 8500 <= rows <= 9500
    for t in (one, other):
        kept = t.take_dirty("checkpoint", full=True).keys // 2
        assert np.isin(np.arange(3000), kept).all(), "the most pushed"
        assert (kept < 5000).all(), "none of those that were pushed once"


def test_what_was_popular_long_ago_makes_room_for_what_is_popular_now() -> None:
    one = table()
    push(one, np.arange(1000), now=DAY, times=100)
    push(one, np.arange(1000, 2000), now=10 * DAY, times=2)
    swept(one, rule=EvictionRule(rows=1050))
    kept = one.take_dirty("checkpoint", full=True).keys
    assert (kept >= 1000).sum() > 900 and kept.size <= 1000


def test_a_slice_looks_at_so_many_rows_and_no_more() -> None:
    one = table()
    push(one, np.arange(100_000), now=1)
    push(one, np.array([0]), now=DAY)
    assert one.sweep(0, 1000, Verdict(idle_s=5)) == (1000, 999)
    assert one.sweep(99_500, 1000, Verdict(idle_s=5)) == (0, 500)


def test_a_sweeper_works_behind_training_until_it_is_stopped() -> None:
    one = table()
    push(one, np.arange(40_000), now=1)
    push(one, np.arange(100), now=10 * DAY)
    sweeper = Sweeper(lambda: {4: one}, EvictionRule(idle_s=DAY))
    sweeper.start()
    deadline = time.monotonic() + 20
    while len(one) > 100 and time.monotonic() < deadline:
        push(one, np.arange(100), now=10 * DAY)
    sweeper.stop()
    assert len(one) == 100 and sweeper.evicted == 39_900
    rows = one.take_dirty("checkpoint")
    assert rows.removed.tolist() == list(range(100, 40_000))


def test_the_classes_of_worth_are_in_order_and_the_lowest_go_first() -> None:
    worths = [*range(600), *np.geomspace(600, 2**32 - 1, 3000).astype(np.int64).tolist()]
    classes = [_class_of(w) for w in worths]
    assert classes == sorted(classes) and classes[:256] == worths[:256] and max(classes) < CLASSES
    counts = np.zeros(CLASSES, np.int64)
    counts[[1, 2, 7]] = 10, 5, 3
    assert [lowest(counts, n) for n in (0, 4, 10, 11, 18, 99)] == [
        (0, 0),
        (1, 4),
        (1, 10),
        (2, 1),
        (7, 3),
        (CLASSES, 0),
    ]


def test_a_chain_with_tombstones_restores_the_live_table() -> None:
    """Random pushes, pulls, removals and cuts: full and deltas in order give the table, bit for bit."""
    rng = np.random.default_rng(11)
    one = table()
    chain = [one.take_dirty("checkpoint", full=True)]
    tier: dict[int, bytes] = {}
    for now in range(1, 60):
        keys = np.unique(rng.integers(0, 400, 60))
        push(one, keys, now=now)
        one.pull(rng.integers(0, 500, 20))
        one.remove(np.unique(rng.integers(0, 500, 25)))
        if now % 3 == 0:
            rows = one.take_dirty("publication")
            tier |= {int(k): r[:4].tobytes() for k, r in zip(rows.keys, rows.raw, strict=True)}
            tier = {k: v for k, v in tier.items() if k not in set(rows.removed.tolist())}
        if now % 4 == 0:
            full = now % 20 == 0
            chain = [*([] if full else chain), one.take_dirty("checkpoint", full=full)]
    chain.append(one.take_dirty("checkpoint"))
    rows = one.take_dirty("publication")
    tier |= {int(k): r[:4].tobytes() for k, r in zip(rows.keys, rows.raw, strict=True)}
    tier = {k: v for k, v in tier.items() if k not in set(rows.removed.tolist())}
    back = table()
    for link in chain:
        back.restore(link.keys, link.raw)
        back.remove(link.removed, ("publication",))
    live, restored = one.take_dirty("checkpoint", full=True), back.take_dirty("checkpoint", full=True)
    pushed = {int(k): r.tobytes() for k, r in zip(live.keys, live.raw, strict=True) if r.view(np.uint32)[-2]}
    found = {int(k): r.tobytes() for k, r in zip(restored.keys, restored.raw, strict=True)}
    assert pushed.items() <= found.items()
    for key in found.keys() - pushed.keys():
        assert found[key] == next(r.tobytes() for k, r in zip(live.keys, live.raw, strict=True) if k == key)
    assert {k: v for k, v in tier.items() if k in pushed} == {k: v[:16] for k, v in pushed.items()}
    assert set(tier) <= {int(k) for k in live.keys}, "nothing that is gone is still published"
