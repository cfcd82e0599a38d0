"""Turns bound how far pulls run ahead; a handover carries items, then an end or an error."""

import threading
import time

import pytest

from kuberec_runtime.train.handover import Handover
from kuberec_runtime.train.pulling import Turns


def in_a_thread(turns: Turns) -> tuple[threading.Thread, list[int | None]]:
    answers: list[int | None] = []
    thread = threading.Thread(target=lambda: answers.append(turns.next()))
    thread.start()
    return thread, answers


def test_with_a_staleness_of_one_the_turn_comes_when_the_step_before_has_ended() -> None:
    turns = Turns(1, threading.Event())
    assert turns.next() == 0
    thread, answers = in_a_thread(turns)
    thread.join(0.05)
    assert not answers
    turns.ended()
    thread.join(5)
    assert answers == [0]


@pytest.mark.parametrize("staleness", [2, 3, 16])
def test_the_batch_that_computes_counts_like_a_push_that_is_not_acknowledged(staleness: int) -> None:
    turns = Turns(staleness, threading.Event())
    assert turns.next() == staleness - 1
    assert turns.next() == staleness - 2, "one step is computed, its push is yet to come"
    thread, answers = in_a_thread(turns)
    thread.join(0.05)
    assert not answers, "never more than one batch ahead"
    turns.ended()
    thread.join(5)
    assert answers == [staleness - 2]


def test_who_waits_for_a_turn_is_told_when_the_worker_stops() -> None:
    stopping = threading.Event()
    turns = Turns(1, stopping)
    turns.next()
    thread, answers = in_a_thread(turns)
    stopping.set()
    thread.join(5)
    assert answers == [None]


def test_items_come_in_order_and_then_the_end() -> None:
    handover: Handover[int] = Handover(2, threading.Event())
    handover.give(1)
    handover.give(2)
    assert [handover.take(0), handover.take(0), handover.take(0)] == [1, 2, None]
    assert not handover.ended, "nothing was there yet"
    handover.end()
    assert handover.take(0) is None and handover.ended
    assert handover.take(60) is None, "who has come to the end waits for nothing"


def test_an_error_comes_behind_what_was_given_before_it() -> None:
    handover: Handover[int] = Handover(2, threading.Event())
    handover.give(1)
    handover.end(OSError("gone"))
    assert handover.take(0) == 1
    with pytest.raises(OSError, match="gone"):
        handover.take(0)
    assert handover.ended


def test_who_gives_to_a_full_one_ends_when_the_worker_stops() -> None:
    stopping = threading.Event()
    handover: Handover[int] = Handover(1, stopping)
    handover.give(1)
    giving = threading.Thread(target=lambda: handover.give(2))
    giving.start()
    time.sleep(0.01)
    stopping.set()
    giving.join(5)
    assert not giving.is_alive()
