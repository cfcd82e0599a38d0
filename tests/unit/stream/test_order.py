"""Messages of several partitions come out in one order, whatever the brokers' timing and wherever a read resumes."""

import random
from collections.abc import Mapping
from dataclasses import dataclass

import pytest

from kuberec_runtime.stream.order import ByWhatIsLeft


@dataclass(frozen=True)
class Message:
    of: int
    at: int

    def partition(self) -> int:
        return self.of

    def offset(self) -> int:
        return self.at

    def __len__(self) -> int:
        return 10


def read(ends: Mapping[int, int], positions: Mapping[int, int], gaps: set[tuple[int, int]], seed: int) -> list[Message]:
    """Reads from positions to the ends, in fetches of random partitions and sizes."""
    luck, order, out = random.Random(seed), ByWhatIsLeft(ends), []
    ahead = dict(positions)
    open_ = {p for p in ends if ahead[p] < ends[p]}
    while open_:
        partition = luck.choice(sorted(open_))
        arrived = []
        for _ in range(luck.randint(0, 5)):
            if ahead[partition] >= ends[partition]:
                open_.discard(partition)
                break
            if (partition, ahead[partition]) not in gaps:
                arrived.append(Message(partition, ahead[partition]))
            ahead[partition] += 1
        out += order.release(arrived, ahead, open_)
    return out


ENDS = {0: 17, 1: 40, 3: 23}
GAPS = {(1, 20), (1, 39), (3, 0), (3, 1)}


@pytest.mark.parametrize("seed", range(20))
def test_the_order_does_not_depend_on_what_arrives_when(seed: int) -> None:
    everything = read(ENDS, {0: 0, 1: 0, 3: 0}, GAPS, seed)
    assert everything == read(ENDS, {0: 0, 1: 0, 3: 0}, GAPS, 1000)
    assert len(everything) == len(set(everything)) == sum(ENDS.values()) - len(GAPS)


@pytest.mark.parametrize("cut", range(0, 76, 5))
def test_a_read_that_resumes_goes_on_in_the_same_order(cut: int) -> None:
    everything = read(ENDS, {0: 0, 1: 0, 3: 0}, GAPS, 0)
    positions = {0: 0, 1: 0, 3: 0}
    for message in everything[:cut]:
        positions[message.of] = message.at + 1
    assert read(ENDS, positions, GAPS, cut) == everything[cut:]


def test_partitions_take_turns_once_the_longest_has_no_more_left_than_the_others() -> None:
    order = [m.of for m in read({0: 4, 1: 2}, {0: 0, 1: 0}, set(), 0)]
    assert order == [0, 0, 0, 1, 0, 1]


def test_a_message_waits_for_what_may_still_come_before_it() -> None:
    order = ByWhatIsLeft({0: 3, 1: 3})
    assert order.release([Message(1, 0)], {0: 0, 1: 1}, {0, 1}) == []
    assert order.release([Message(0, 0)], {0: 1, 1: 1}, {0, 1}) == [Message(0, 0), Message(1, 0)]


def test_bytes_that_wait_are_counted_until_they_are_released() -> None:
    order = ByWhatIsLeft({0: 3, 1: 3})
    order.release([Message(1, 0), Message(1, 1)], {0: 0, 1: 2}, {0, 1})
    assert order.waiting == {0: 0, 1: 20}
    order.release([Message(0, 0)], {0: 1, 1: 2}, {0, 1})
    assert order.waiting == {0: 0, 1: 10}
    order.release([Message(0, 1), Message(0, 2)], {0: 3, 1: 2}, {1})
    assert order.waiting == {0: 0, 1: 0}


@pytest.mark.parametrize("seed", range(20))
def test_stopping_whoever_is_ahead_changes_no_order_and_ends(seed: int) -> None:
    """Of the partition whose next message decides nothing waits, so there is always one to read on with."""
    luck, order, out = random.Random(seed), ByWhatIsLeft(ENDS), []
    ahead = dict.fromkeys(ENDS, 0)
    open_ = set(ENDS)
    while open_:
        partition = luck.choice([p for p in sorted(open_) if order.waiting[p] < 20])
        message = Message(partition, ahead[partition])
        ahead[partition] += 1
        if ahead[partition] == ENDS[partition]:
            open_.discard(partition)
        out += order.release([message], ahead, open_)
        assert max(order.waiting.values()) <= 20
    assert out == read(ENDS, {0: 0, 1: 0, 3: 0}, set(), 1000)
