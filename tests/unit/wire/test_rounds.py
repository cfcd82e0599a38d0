"""Sync mode on a shard: whatever order pushes come in, they are applied step by step, worker by worker."""

import random
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from kuberec_api.training import DenseOptimizer
from kuberec_runtime.wire.errors import WireRefused
from kuberec_runtime.wire.messages import Push
from kuberec_runtime.wire.rounds import LAST_STEP
from kuberec_runtime.wire.session import Session, Superseded
from kuberec_runtime.wire.shardconfig import DedupeMark
from kuberec_runtime.wire.shardstate import ShardState
from tests.unit.wire.shards import config

LONG = 20.0
WORKERS, STEPS = 3, 6


def state(workers: int = WORKERS) -> ShardState:
    """Adam over dense weights: its sums depend on the order of gradients."""
    return ShardState(replace(config(workers=workers), synchronous=True, dense_optimizer=DenseOptimizer()))


def push(step: int, worker: int, samples: int = 1) -> Push:
    rng = np.random.default_rng(100 * step + worker)
    keys = np.array([1, 2 + worker], np.int64)
    grads = {2: rng.normal(size=(2, 2)).astype(np.float32)}
    return Push(step, 1000 * step, {2: keys}, grads, {worker: samples}, rng.normal(size=4).astype(np.float32))


def empty(step: int) -> Push:
    return Push(step, 0, {}, {}, {}, np.empty(0, np.float32))


def bits(state: ShardState) -> bytes:
    rows = state.tables[2].take_dirty("checkpoint", full=True)
    order = np.argsort(rows.keys)
    dense = state.dense.snapshot()
    return b"".join(a.tobytes() for a in (rows.keys[order], rows.raw[order], dense.weights, dense.m, dense.v))


def in_order() -> bytes:
    """What one thread computes, pushing step by step, worker by worker."""
    one = ShardState(replace(config(workers=1), dense_optimizer=DenseOptimizer()))
    session, at = one.enter(0, 0), 0
    for step in range(1, STEPS + 1):
        for worker in range(WORKERS):
            at += 1
            one._apply(session, replace(push(step, worker), sequence=at), step)
    return bits(one)


def together(actions: list[Callable[[], bool]]) -> list[bool]:
    with ThreadPoolExecutor(len(actions)) as threads:
        return [f.result(LONG) for f in [threads.submit(action) for action in actions]]


@pytest.mark.parametrize("seed", range(5))
def test_bits_do_not_depend_on_who_is_first(seed: int) -> None:
    shard = state()
    sessions = [shard.enter(worker, 0) for worker in range(WORKERS)]
    luck = random.Random(seed)

    def work(session: Session) -> bool:
        for step in range(1, STEPS + 1):
            threading.Event().wait(luck.random() * 0.003)
            assert shard.push(session, push(step, session.worker))
            assert shard.applied()[session.worker] >= step
        return True

    together([lambda s=s: work(s) for s in sessions])  # type: ignore[misc]
    assert bits(shard) == in_order()
    assert shard.applied() == {worker: STEPS for worker in range(WORKERS)}


def parked(shard: ShardState, threads: ThreadPoolExecutor, session: Session, given: Push) -> "Future[bool]":
    """Hands in a push on another thread and returns once it stands there."""
    future = threads.submit(shard.push, session, given)
    with shard._rounds.lock:
        assert shard._rounds.lock.wait_for(lambda: session.worker in shard._rounds._parked or future.done(), LONG)
    return future


@pytest.fixture
def threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(8)


def test_nothing_of_a_step_is_applied_before_all_of_it_is_there(threads: ThreadPoolExecutor) -> None:
    shard = state(2)
    first, second = shard.enter(0, 0), shard.enter(1, 0)
    waiting = parked(shard, threads, second, push(1, 1))
    assert not waiting.done() and shard.applied() == {}
    assert shard.push(first, push(1, 0))
    assert waiting.result(LONG)
    assert shard.applied() == {0: 1, 1: 1}


def test_a_push_that_was_parked_when_its_connection_broke_is_applied_once_when_sent_again(
    threads: ThreadPoolExecutor,
) -> None:
    shard = state(2)
    first, second = shard.enter(0, 0), shard.enter(1, 0)
    lost = parked(shard, threads, second, push(1, 1))
    again = shard.enter(1, 0)
    with pytest.raises(Superseded):
        lost.result(LONG)
    resent = parked(shard, threads, again, push(1, 1))
    assert shard.push(first, push(1, 0))
    assert resent.result(LONG)
    assert not shard.push(again, push(1, 1)), "what was acknowledged into the void is a duplicate"
    assert shard.applied() == {0: 1, 1: 1}


def test_an_empty_push_lets_the_others_go_on_and_changes_nothing(threads: ThreadPoolExecutor) -> None:
    shard, alone = state(2), state(1)
    first, second = shard.enter(0, 0), shard.enter(1, 0)
    waiting = parked(shard, threads, second, empty(1))
    assert shard.push(first, push(1, 0))
    assert waiting.result(LONG)
    alone.push(alone.enter(0, 0), push(1, 0))
    assert bits(shard) == bits(alone)


def test_nobody_waits_for_a_worker_that_has_said_farewell(threads: ThreadPoolExecutor) -> None:
    shard = state(2)
    first, second = shard.enter(0, 0), shard.enter(1, 0)
    waiting = parked(shard, threads, first, push(1, 0))
    assert shard.push(second, empty(LAST_STEP)), "a farewell waits for nobody"
    assert waiting.result(LONG), "and completes what waited for it"
    assert shard.push(first, push(2, 0))
    assert not shard.push(second, empty(LAST_STEP))
    assert shard.applied() == {0: 2}


def test_a_worker_that_is_out_of_step_is_refused() -> None:
    shard = state(2)
    with pytest.raises(WireRefused, match="worker 1 pushes step 2, this shard waits for step 1"):
        shard.push(shard.enter(1, 0), push(2, 1))


def test_a_stale_incarnation_cannot_complete_a_step(threads: ThreadPoolExecutor) -> None:
    shard = state(2)
    first = shard.enter(0, 0)
    stale = parked(shard, threads, shard.enter(1, 0), push(1, 1))
    new = shard.enter(1, 1)
    with pytest.raises(Superseded):
        stale.result(LONG)
    waiting = parked(shard, threads, first, push(1, 0))
    assert not waiting.done()
    assert shard.push(new, push(1, 1, samples=7))
    assert waiting.result(LONG)
    assert shard.applied() == {0: 1, 1: 7}


def test_marks_behind_a_step_cut_that_step(threads: ThreadPoolExecutor) -> None:
    shard = state(2)
    sessions = [shard.enter(worker, 0) for worker in range(2)]

    def step_and_mark(session: Session) -> bool:
        shard.push(session, push(1, session.worker))
        return shard.mark(session, 5)

    both = [threads.submit(step_and_mark, s) for s in sessions]
    cut = shard.await_cut(5, "checkpoint", True, LONG)
    assert [f.result(LONG) for f in both] == [True, True]
    assert cut.applied == {0: 1, 1: 1}
    assert cut.dedupe == {0: DedupeMark(0, 1), 1: DedupeMark(0, 1)}


def test_a_push_that_fails_halfway_tells_everyone_in_its_step(
    threads: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = state(2)
    first, second = shard.enter(0, 0), shard.enter(1, 0)
    waiting = parked(shard, threads, second, push(1, 1))

    def full(*_: object, **__: object) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr(shard.tables[2], "push", full)
    with pytest.raises(WireRefused, match="no room"):
        shard.push(first, push(1, 0))
    with pytest.raises(WireRefused, match="no room"):
        waiting.result(LONG)


def test_closing_wakes_who_waits_for_a_step(threads: ThreadPoolExecutor) -> None:
    shard = state(2)
    waiting = parked(shard, threads, shard.enter(0, 0), push(1, 0))
    shard.close()
    with pytest.raises(Superseded):
        waiting.result(LONG)


def test_a_restored_shard_waits_for_the_first_step_again(threads: ThreadPoolExecutor) -> None:
    shard = state(2)
    waiting = parked(shard, threads, shard.enter(0, 0), push(1, 0))
    shard.restore([], None, {0: 4}, epoch=1)
    with pytest.raises(Superseded):
        waiting.result(LONG)
    sessions = [shard.enter(worker, 9) for worker in range(2)]
    assert together([lambda s=s: shard.push(s, push(1, s.worker)) for s in sessions]) == [True, True]  # type: ignore[misc]
    assert shard.applied() == {0: 5, 1: 1}
