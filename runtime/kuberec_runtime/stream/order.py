"""One order for the messages of several partitions that depends on nothing but their offsets.

Whoever has most left goes first: by records up to the partition's end, falling, then by partition number. So the place
of a message is a pure function of its offset, what was read before a position is a prefix of the order, and what is
read after a resume is the rest of it, however the broker's answers were timed. Long partitions are read alone at first,
then all of them in turns, and all end together.
"""

from collections import deque
from collections.abc import Collection, Mapping, Sequence
from heapq import merge
from typing import Protocol, TypeVar


class Placed(Protocol):
    """A message, as far as its place in the order goes."""

    def partition(self) -> int:
        """Its partition."""

    def offset(self) -> int:
        """Its offset."""


M = TypeVar("M", bound=Placed)


class ByWhatIsLeft:
    """Holds messages back until none that belongs before them can come any more.

    Args:
        ends: offset at which each partition ends.
    """

    def __init__(self, ends: Mapping[int, int]) -> None:
        self._ends = dict(ends)
        self._waiting: dict[int, deque[Placed]] = {partition: deque() for partition in ends}

    def release(self, arrived: Sequence[M], ahead: Mapping[int, int], open_: Collection[int]) -> list[M]:
        """Takes in what arrived and returns, in order, what nothing can precede any more.

        Args:
            arrived: messages, those of a partition in the order of their offsets.
            ahead: by partition, an offset that no later message of it is below.
            open_: partitions of which more messages will come.
        """
        for message in arrived:
            self._waiting[message.partition()].append(message)
        frontier = min((self._place(p, ahead[p]) for p in open_), default=None)
        ready: list[list[Placed]] = []
        for waiting in self._waiting.values():
            mine: list[Placed] = []
            while waiting and (frontier is None or self._of(waiting[0]) < frontier):
                mine.append(waiting.popleft())
            ready.append(mine)
        return list(merge(*ready, key=self._of))  # type: ignore[arg-type]

    def _of(self, message: Placed) -> tuple[int, int]:
        return self._place(message.partition(), message.offset())

    def _place(self, partition: int, offset: int) -> tuple[int, int]:
        return offset - self._ends[partition], partition
