"""One order for the messages of several partitions that depends on nothing but their offsets.

Whoever has most left goes first: by records up to the partition's end, falling, then by partition number. So the place
of a message is a pure function of its offset, what was read before a position is a prefix of the order, and what is
read after a resume is the rest of it, however the broker's answers were timed. Long partitions are read alone at first,
then all of them in turns, and all end together.

What waits is bounded by whoever reads: `waiting` says how many bytes of a partition do. None of the partition whose
next message decides ever waits, so the others can be stopped for as long as it takes, and nobody waits for ever.
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

    def __len__(self) -> int:
        """Bytes of its value."""


M = TypeVar("M", bound=Placed)


class ByWhatIsLeft:
    """Holds messages back until none that belongs before them can come any more.

    Args:
        ends: offset at which each partition ends.
    """

    def __init__(self, ends: Mapping[int, int]) -> None:
        self._ends = dict(ends)
        self._waiting: dict[int, deque[Placed]] = {partition: deque() for partition in ends}
        self.waiting: dict[int, int] = dict.fromkeys(ends, 0)
        """Bytes that wait, by partition."""

    def release(self, arrived: Sequence[M], ahead: Mapping[int, int], open_: Collection[int]) -> list[M]:
        """Takes in what arrived and returns, in order, what nothing can precede any more.

        Args:
            arrived: messages, those of a partition in the order of their offsets.
            ahead: by partition, an offset that no later message of it is below.
            open_: partitions of which more messages will come.
        """
        for message in arrived:
            partition = message.partition()
            self._waiting[partition].append(message)
            self.waiting[partition] += len(message)
        frontier = min((self._place(p, ahead[p]) for p in open_), default=None)
        ready: list[list[Placed]] = []
        for partition, waiting in self._waiting.items():
            mine: list[Placed] = []
            while waiting and (frontier is None or self._of(waiting[0]) < frontier):
                mine.append(waiting.popleft())
            self.waiting[partition] -= sum(map(len, mine))
            ready.append(mine)
        return list(merge(*ready, key=self._of))  # type: ignore[arg-type]

    def _of(self, message: Placed) -> tuple[int, int]:
        return self._place(message.partition(), message.offset())

    def _place(self, partition: int, offset: int) -> tuple[int, int]:
        return offset - self._ends[partition], partition
