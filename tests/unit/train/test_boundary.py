"""In Sync mode every worker marks behind the same step, wherever each one is when the driver asks."""

import random

import pytest

from kuberec_runtime.train.boundary import Boundary


def test_a_mark_at_any_boundary_is_due_at_once() -> None:
    boundary = Boundary()
    assert boundary.due() is None
    boundary.ask(3, 0)
    assert not boundary.begin(), "the mark comes first"
    assert boundary.due() == 3
    assert boundary.begin() and boundary.due() is None


def test_a_worker_that_is_held_begins_nothing_until_it_is_asked_or_released() -> None:
    boundary = Boundary()
    boundary.begin()
    assert boundary.hold(7) == 1
    assert not boundary.begin()
    boundary.release(6)
    assert not boundary.begin(), "the release of an older epoch comes late"
    boundary.release(7)
    assert boundary.begin()
    assert boundary.hold(8) == 2
    boundary.ask(8, 4)
    assert boundary.due() is None
    assert boundary.begin() and boundary.begin()
    assert not boundary.begin()
    assert boundary.due() == 8


def test_a_worker_that_takes_no_further_part_marks_at_once() -> None:
    boundary = Boundary()
    boundary.begin()
    boundary.leave()
    assert boundary.hold(1) == 0
    boundary.ask(1, 99)
    assert boundary.due() == 1


def test_a_mark_that_is_not_wanted_any_more_is_not_made() -> None:
    boundary = Boundary()
    boundary.ask(1, 5)
    boundary.withdraw(2)
    assert boundary.begin()
    boundary.withdraw(1)
    for _ in range(9):
        assert boundary.begin()
    assert boundary.due() is None


@pytest.mark.parametrize("seed", range(50))
def test_all_workers_mark_behind_one_step(seed: int) -> None:
    """Workers in lockstep (none begins a step before all have begun the one before), interleaved by chance."""
    luck = random.Random(seed)
    workers = [Boundary() for _ in range(3)]

    def run(turns: int) -> None:
        for _ in range(turns):
            worker = luck.choice(workers)
            if worker.begun <= min(w.begun for w in workers):
                worker.begin()

    run(luck.randint(0, 40))
    steps = []
    for worker in luck.sample(workers, 3):
        steps.append(worker.hold(1))
        run(luck.randint(0, 9))
    marked: dict[int, int] = {}
    for worker in luck.sample(workers, 3):
        worker.ask(1, max(steps))
        run(luck.randint(0, 9))
    for _ in range(200):
        for i, worker in enumerate(workers):
            if worker.due() is not None:
                marked[i] = worker.begun
        waiting = [i for i in range(3) if i not in marked]
        worker = workers[luck.choice(waiting)] if waiting else workers[0]
        if worker.begun <= min(w.begun for w in workers) and waiting:
            worker.begin()
    assert marked == dict.fromkeys(range(3), max(steps))
