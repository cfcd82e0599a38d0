import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from kuberec_runtime.table import Rows, shard_of
from kuberec_runtime.wire.errors import CutAborted, CutTimeout, FrameError, StaleEpoch, WireRefused
from kuberec_runtime.wire.shardconfig import Cut, DedupeMark
from kuberec_runtime.wire.shardstate import ShardState, Superseded
from tests.unit.wire.shards import config, ones

LONG = 20.0


def values(cut: Cut, width: int = 2) -> dict[int, float]:
    """How often each row of a cut was pushed."""
    rows = cut.rows[width]
    return dict(zip(rows.keys.tolist(), (-rows.raw[:, 0]).tolist(), strict=True))


def test_a_push_is_applied_once_however_often_it_comes() -> None:
    state = ShardState(config())
    session = state.enter(0, 0)
    assert state.push(session, ones(0, [1, 2]))
    assert state.push(session, ones(1, [2]))
    for sequence in (0, 1, 0):
        assert not state.push(session, ones(sequence, [1, 2]))
    out = np.empty((2, 2), np.float32)
    state.pull_into(2, np.array([1, 2]), out)
    assert out.tolist() == [[-1, -1], [-2, -2]]
    assert state.applied() == {0: 2}
    assert state.dense.snapshot().weights.tolist() == [-2] * 4
    assert state.duplicates == 3


def test_a_new_incarnation_begins_its_own_sequence_and_ends_the_old_one() -> None:
    state = ShardState(config())
    old = state.enter(0, 3)
    state.push(old, ones(7, [1]))
    hung_up = []
    state.enter(0, 3, lambda: hung_up.append(True))
    new = state.enter(0, 4)
    assert hung_up == [True]
    with pytest.raises(Superseded):
        state.push(old, ones(8, [1]))
    assert state.push(new, ones(0, [1]))
    with pytest.raises(WireRefused, match="incarnation 3 of worker 0 is stale: 4"):
        state.enter(0, 3)


def test_an_unknown_worker_is_refused() -> None:
    with pytest.raises(WireRefused, match="workers 0 to 1, not 2"):
        ShardState(config(workers=2)).enter(2, 0)


@pytest.mark.parametrize("keys", [[-1], [5, -9]])
def test_a_push_with_a_bad_key_changes_nothing(keys: list[int]) -> None:
    state = ShardState(config(widths=(2, 3)))
    session = state.enter(0, 0)
    push = ones(0, [1])
    push.keys[3] = np.array(keys)
    push.grads[3] = np.ones((len(keys), 3), np.float32)
    with pytest.raises(FrameError, match="negative or not of shard"):
        state.push(session, push)
    assert state.applied() == {} and len(state.tables[2]) == 0


def test_a_push_that_fails_halfway_breaks_the_shard_rather_than_count_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    state = ShardState(config(widths=(2, 3)))
    session = state.enter(0, 0)
    push = ones(0, [1])
    push.keys[3], push.grads[3] = np.array([1]), np.ones((1, 3), np.float32)

    def full(*_: object, **__: object) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr(state.tables[3], "push", full)
    for _ in range(2):
        with pytest.raises(WireRefused, match="broken, push 0 failed halfway: no room"):
            state.push(session, push)
    with pytest.raises(WireRefused, match="broken"):
        state.pull_into(2, np.array([1]), np.empty((1, 2), np.float32))
    with ThreadPoolExecutor(1) as pool:
        pool.submit(state.mark, session, 0)
        with pytest.raises(CutAborted, match="broken"):
            state.await_cut(0, "checkpoint", False, LONG)
    state.restore([], None, {})
    assert state.push(state.enter(0, 1), ones(0, [1]))


def test_rows_of_another_shard_and_unknown_widths_are_refused() -> None:
    state = ShardState(config(index=1, shards=2))
    session = state.enter(0, 0)
    mine = [k for k in range(50) if shard_of(np.array([k]), 2)[0] == 1]
    other = [k for k in range(50) if k not in mine]
    assert state.push(session, ones(0, mine, dense=2))
    with pytest.raises(FrameError, match="not of shard 1 of 2"):
        state.push(session, ones(1, other[:1], dense=2))
    with pytest.raises(FrameError, match=r"no rows of width 9, only \[2\]"):
        state.pull_into(9, np.array(mine), np.empty((len(mine), 9), np.float32))
    with pytest.raises(FrameError, match="3 floats"):
        state.push(session, ones(1, mine, dense=3))


def test_a_cut_holds_exactly_what_was_pushed_before_the_marks() -> None:
    """Four workers push from threads without a pause; each cut must equal what each had pushed when it marked."""
    workers, epochs, keys = 4, 12, 50
    state = ShardState(config(workers=workers))
    pushed = np.zeros((epochs, keys), np.int64)
    samples = np.zeros((epochs, workers), np.int64)
    lock = threading.Lock()

    def work(worker: int) -> None:
        rng = np.random.default_rng(worker)
        session, sequence = state.enter(worker, 0), 0
        mine, count = np.zeros(keys, np.int64), 0
        for epoch in range(epochs):
            for _ in range(int(rng.integers(0, 30))):
                touched = np.unique(rng.integers(0, keys, 5))
                state.push(session, ones(sequence, touched.tolist(), partition=worker, samples=3))
                mine[touched] += 1
                count += 3
                sequence += 1
            with lock:
                pushed[epoch] += mine
                samples[epoch, worker] = count
            assert state.mark(session, epoch)

    with ThreadPoolExecutor(workers) as pool:
        running = [pool.submit(work, worker) for worker in range(workers)]
        totals = {"checkpoint": {}, "publication": {}}
        for epoch in range(epochs):
            consumer = "publication" if epoch % 3 else "checkpoint"
            cut = state.await_cut(epoch, consumer, False, LONG)
            totals[consumer].update(values(cut))
            expected = {k: float(n) for k, n in enumerate(pushed[epoch].tolist()) if n}
            assert totals[consumer] == expected
            assert cut.applied == {w: int(n) for w, n in enumerate(samples[epoch]) if n}
            assert cut.dense.weights[0] == -cut.dense.step == -samples[epoch].sum() / 3
            assert sum(mark.sequence + 1 for mark in cut.dedupe.values()) == cut.dense.step
        for done in running:
            done.result(LONG)


def test_a_missing_mark_aborts_the_epoch_and_keeps_what_was_dirty() -> None:
    state = ShardState(config(workers=2))
    first, second = state.enter(0, 0), state.enter(1, 0)
    state.push(first, ones(0, [1, 2]))
    with ThreadPoolExecutor(2) as pool:
        marked = pool.submit(state.mark, first, 5)
        with pytest.raises(CutTimeout, match=r"epoch 5 is aborted: no mark from worker\(s\) 1"):
            state.await_cut(5, "checkpoint", False, 0.05)
        assert marked.result(LONG) is False
        assert state.mark(second, 5) is False  # late marks of a closed epoch stop nobody
        state.push(first, ones(1, [2]))
        marks = [pool.submit(state.mark, session, 6) for session in (first, second)]
        assert values(state.await_cut(6, "checkpoint", False, LONG)) == {1: 1, 2: 2}
        assert [mark.result(LONG) for mark in marks] == [True, True]
    assert (state.cuts, state.aborted) == (1, 1)


def test_consumers_have_marks_of_their_own() -> None:
    state = ShardState(config())
    session = state.enter(0, 0)
    taken = []
    with ThreadPoolExecutor(1) as pool:
        for epoch, (consumer, keys) in enumerate(
            [("publication", [1]), ("publication", [2]), ("checkpoint", [3]), ("publication", [])]
        ):
            state.push(session, ones(epoch, keys))
            mark = pool.submit(state.mark, session, epoch)
            taken.append(set(values(state.await_cut(epoch, consumer, False, LONG))))
            mark.result(LONG)
    assert taken == [{1}, {2}, {1, 2, 3}, {3}]


def test_a_full_cut_holds_every_row() -> None:
    state = ShardState(config())
    session = state.enter(0, 0)
    state.push(session, ones(0, [1, 2]))
    with ThreadPoolExecutor(1) as pool:
        for epoch, (full, size) in enumerate([(False, 2), (False, 0), (True, 2), (False, 0)]):
            mark = pool.submit(state.mark, session, epoch)
            assert len(values(state.await_cut(epoch, "checkpoint", full, LONG))) == size
            mark.result(LONG)


def test_rows_that_could_not_be_written_come_again() -> None:
    state = ShardState(config())
    session = state.enter(0, 0)
    state.push(session, ones(0, [1, 2]))
    with ThreadPoolExecutor(1) as pool:
        pool.submit(state.mark, session, 0)
        cut = state.await_cut(0, "checkpoint", False, LONG)
        state.redirty("checkpoint", {width: rows.keys for width, rows in cut.rows.items()})
        pool.submit(state.mark, session, 1)
        assert values(state.await_cut(1, "checkpoint", False, LONG)) == {1: 1, 2: 1}


def test_a_copy_that_fails_midway_loses_no_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    state = ShardState(config(widths=(2, 3)))
    session = state.enter(0, 0)
    state.push(session, ones(0, [1, 2]))
    with ThreadPoolExecutor(1) as pool:
        mark = pool.submit(state.mark, session, 0)
        with monkeypatch.context() as patch:

            def fail(*_: object) -> Rows:
                raise MemoryError

            patch.setattr(state.tables[3], "take_dirty", fail)
            with pytest.raises(MemoryError):
                state.await_cut(0, "checkpoint", False, LONG)
        assert mark.result(LONG) is False
        pool.submit(state.mark, session, 1)
        assert values(state.await_cut(1, "checkpoint", False, LONG)) == {1: 1, 2: 1}


def test_an_aborted_epoch_releases_workers_and_the_waiting_driver() -> None:
    state = ShardState(config(workers=2))
    session = state.enter(0, 0)
    with ThreadPoolExecutor(2) as pool:
        cut = pool.submit(state.await_cut, 0, "checkpoint", False, LONG)
        mark = pool.submit(state.mark, session, 0)
        while not state._marks.get(0):
            pass
        assert state.abort_cut(0)
        assert mark.result(LONG) is False
        with pytest.raises(CutAborted):
            cut.result(LONG)
    assert not state.abort_cut(0)
    with pytest.raises(StaleEpoch, match="epoch 0 is not newer than epoch 0"):
        state.await_cut(0, "checkpoint", False, LONG)


def test_the_mark_of_a_replaced_worker_does_not_count() -> None:
    state = ShardState(config())
    old = state.enter(0, 0)
    with ThreadPoolExecutor(1) as pool:
        mark = pool.submit(state.mark, old, 0)
        while not state._marks.get(0):
            pass
        state.enter(0, 1)
        with pytest.raises(Superseded):
            mark.result(LONG)
        with pytest.raises(CutTimeout):
            state.await_cut(0, "checkpoint", False, 0.02)


def test_a_restored_shard_remembers_rows_counts_and_pushes_but_no_former_worker() -> None:
    first = ShardState(config())
    session = first.enter(0, 0)
    for sequence in range(3):
        first.push(session, ones(sequence, [1, 2]))
    with ThreadPoolExecutor(1) as pool:
        pool.submit(first.mark, session, 4)
        cut = first.await_cut(4, "checkpoint", False, LONG)

    second = ShardState(config())
    assert second.restore(cut.rows.items(), cut.dense, cut.applied, cut.dedupe, cut.epoch) == 2
    again = second.enter(0, 0)
    assert not second.push(again, ones(2, [1, 2]))
    assert second.push(again, ones(3, [1]))
    assert second.applied() == {0: 4}
    with pytest.raises(StaleEpoch):
        second.await_cut(4, "checkpoint", False, LONG)

    # In place: what the worker had under way was read from offsets that are rolled back.
    first.push(session, ones(3, [1]))
    first.restore(cut.rows.items(), cut.dense, cut.applied, None, cut.epoch)
    with pytest.raises(Superseded):
        first.push(session, ones(4, [1]))
    with pytest.raises(WireRefused, match="stale"):
        first.enter(0, 0)
    assert first.push(first.enter(0, 1), ones(0, [2]))
    out = np.empty((2, 2), np.float32)
    first.pull_into(2, np.array([1, 2]), out)
    assert out[:, 0].tolist() == [-3, -4]


@pytest.mark.parametrize(("before", "after"), [(2, 3), (3, 1), (1, 4)])
def test_rows_go_to_however_many_shards_there_are_now(before: int, after: int) -> None:
    keys = np.arange(3000)
    chain: list[tuple[int, Rows]] = []
    for index in range(before):
        state = ShardState(config(index, before, dense_size=0))
        mine = keys[shard_of(keys, before) == index]
        session = state.enter(0, 0)
        with ThreadPoolExecutor(1) as pool:
            for epoch, subset in enumerate([mine, mine[::3]]):
                state.push(session, ones(epoch, subset.tolist(), dense=0))
                pool.submit(state.mark, session, epoch)
                chain += state.await_cut(epoch, "checkpoint", False, LONG).rows.items()
    total = {}
    for index in range(after):
        state = ShardState(config(index, after, dense_size=0))
        state.restore(chain, None, {0: 6})
        rows = state.tables[2].take_dirty("checkpoint", full=True)
        assert (shard_of(rows.keys, after) == index).all()
        total |= dict(zip(rows.keys.tolist(), (-rows.raw[:, 0]).tolist(), strict=True))
    assert len(total) == 3000
    twice = {int(k) for i in range(before) for k in keys[shard_of(keys, before) == i][::3]}
    assert all(n == (2 if k in twice else 1) for k, n in total.items())


def test_a_closed_shard_lets_everyone_go() -> None:
    state = ShardState(config(workers=2))
    session = state.enter(0, 0)
    with ThreadPoolExecutor(2) as pool:
        mark = pool.submit(state.mark, session, 0)
        cut = pool.submit(state.await_cut, 0, "checkpoint", False, LONG)
        state.close()
        with pytest.raises(Superseded):
            mark.result(LONG)
        with pytest.raises(CutAborted):
            cut.result(LONG)
    with pytest.raises(Superseded):
        state.enter(1, 0)
    with pytest.raises(CutAborted):
        state.await_cut(1, "checkpoint", False, LONG)


def test_dedupe_marks_of_a_new_attempt_do_not_drop_its_pushes() -> None:
    state = ShardState(config())
    state.restore([], None, {}, {0: DedupeMark(5, 900)}, 3)
    session = state.enter(0, 6)
    assert state.push(session, ones(0, [1]))
