"""What happens when, as a pure function of a seed: the same seed is the same misfortune on every machine.

Moments are told by progress and not by the clock, so that a slow machine lives through the same story as a fast one,
only less of it: `Event.early` strikes while an attempt still starts, any other event once it has learnt something.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum


class Mode(StrEnum):
    """How the workers keep pace; what must hold at the end depends on it."""

    ASYNC = "Async"
    SYNC = "Sync"


class Kind(StrEnum):
    """What may happen."""

    KILL_SHARD = "kill -9 a shard"
    KILL_WORKER = "kill -9 a worker"
    KILL_DRIVER = "kill -9 the driver"
    LOSE_NODE = "kill -9 everything"
    STOP_SHARD = "SIGSTOP a shard"
    STOP_WORKER = "SIGSTOP a worker"
    STOP_DRIVER = "SIGSTOP the driver"
    BROKER_RESTART = "restart of the broker"
    BROKER_CRASH = "kill -9 the broker"
    STORE_ERRORS = "errors of the object store"
    STORE_LATENCY = "slow object store"
    PREEMPT = "SIGTERM"
    RESIZE = "resize"
    NEW_PARTITION = "new partition of the topic"


@dataclass(frozen=True)
class Event:
    """One misfortune.

    Attributes:
        kind: what happens.
        delay_s: seconds from its moment (see the module) until it happens.
        early: it strikes a starting attempt.
        pick: in [0, 1): which shard or worker it hits.
        seconds: how long a stop or a window of the object store lasts.
        workers: from a resize on.
        shards: from a resize on.
        refused: chance that the object store answers 500.
        lost: chance that the answer to a write is lost.
        slow: chance that a read stutters.
        latency_s: before every answer of the object store.
    """

    kind: Kind
    delay_s: float
    early: bool = False
    pick: float = 0.0
    seconds: float = 0.0
    workers: int = 0
    shards: int = 0
    refused: float = 0.0
    lost: float = 0.0
    slow: float = 0.0
    latency_s: float = 0.0


FIRST_SIZE = (2, 2)
"""Workers and shards of the first attempt."""

_MOST = 3
_EARLY = 0.2
_NEVER_EARLY = {Kind.STOP_SHARD, Kind.STOP_WORKER, Kind.KILL_SHARD, Kind.KILL_WORKER, Kind.PREEMPT}
"""Either nobody to hit yet, or (preemption) nothing to commit yet."""


def kinds_of(mode: Mode) -> list[Kind]:
    """What may happen in a mode: in Sync the bits are a promise for a topic that stays as it is."""
    return [kind for kind in Kind if mode is Mode.ASYNC or kind is not Kind.NEW_PARTITION]


def schedule(seed: int, mode: Mode) -> Iterator[Event]:
    """Yields events without end. Every kind of the mode happens once before any happens again.

    In Sync the number of workers stays: who reads what decides which samples make a step, and so the bits.
    """
    luck = random.Random(f"{seed} {mode}")
    workers, shards = FIRST_SIZE
    while True:
        kinds = kinds_of(mode)
        luck.shuffle(kinds)
        for kind in kinds:
            # All numbers are drawn for every event: no kind's needs move what comes after it.
            early, delay, pick = luck.random() < _EARLY, luck.uniform(0.2, 3.0), luck.random()
            seconds, refused, lost, slow = luck.uniform(2, 8), luck.random(), luck.random(), luck.random()
            latency, size = luck.uniform(0.01, 0.1), luck.random()
            event = {"delay_s": round(delay, 2), "early": early and kind not in _NEVER_EARLY, "pick": round(pick, 3)}
            if kind is Kind.RESIZE:
                sizes = [
                    (w, s)
                    for w in range(1, _MOST + 1)
                    for s in range(1, _MOST + 1)
                    if (w, s) != (workers, shards) and (mode is Mode.ASYNC or w == workers)
                ]
                workers, shards = sizes[int(size * len(sizes))]
                event |= {"workers": workers, "shards": shards}
            elif kind is Kind.STORE_ERRORS:
                event |= {
                    "seconds": round(seconds, 1),
                    "refused": round(refused * 0.3, 2),
                    "lost": round(lost * 0.3, 2),
                }
            elif kind is Kind.STORE_LATENCY:
                event |= {"seconds": round(seconds, 1), "slow": round(slow, 2), "latency_s": round(latency, 3)}
            elif kind in (Kind.STOP_SHARD, Kind.STOP_WORKER, Kind.STOP_DRIVER):
                event |= {"seconds": round(seconds, 1)}
            yield Event(kind, **event)
