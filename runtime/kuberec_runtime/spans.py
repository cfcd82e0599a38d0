"""Where a process spends its time: spans by thread and stage, counted always, kept as events for the newest ones.

`KUBEREC_PROFILE=<folder>` turns it on. Without it a span is one shared object that does nothing. A stage's time is its
own: what a span inside it took is the inner stage's. Memory is bounded however long a process runs: durations are kept
as a histogram by stage, whose buckets are 3% wide, and of events the newest `EVENTS` are kept.

This module only measures; `train.profile` gathers the processes of an attempt and shows them.
"""

import os
import threading
import time
from collections import deque
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from types import TracebackType
from typing import NamedTuple

VARIABLE = "KUBEREC_PROFILE"
EVENTS = 60_000
FINE_BITS = 5

_IDLE: AbstractContextManager[None] = nullcontext()


@dataclass
class Stage:
    """What one stage on one thread took, in nanoseconds; `buckets` counts durations by `bucket_of`.

    Attributes:
        count: spans.
        own_ns: in all, without the spans inside.
        began_ns: of the first span; `ended_ns`: of the last. Since the epoch.
        buckets: spans by the bucket of their own time.
    """

    count: int = 0
    own_ns: int = 0
    began_ns: int = 0
    ended_ns: int = 0
    buckets: dict[int, int] = field(default_factory=dict)


class Event(NamedTuple):
    """One span of the thread with the system's number `tid`: nanoseconds since the epoch, with all that was inside."""

    stage: str
    tid: int
    began_ns: int
    took_ns: int


@dataclass(frozen=True)
class Part:
    """One process' spans: `stages` by (thread's name, stage), names of `threads` by tid, the newest `events`.

    Threads of one name count together. Events are in the order in which they ended.
    """

    role: str
    stages: dict[tuple[str, str], Stage]
    threads: dict[int, str]
    events: list[Event]


def bucket_of(ns: int) -> int:
    """The bucket of a duration: exact below 64 ns, then 32 buckets for every power of two."""
    shift = max(ns.bit_length() - FINE_BITS - 1, 0)
    return (shift << FINE_BITS) + (ns >> shift)


def middle_of(bucket: int) -> int:
    """A duration in the middle of a bucket, at most 1.6% off any that is in it."""
    shift = max((bucket >> FINE_BITS) - 1, 0)
    low = (bucket - (shift << FINE_BITS)) << shift
    return low + ((1 << shift) >> 1)


class Timeline:
    """Spans of one process. Methods may be called from any thread."""

    def __init__(self, events: int = EVENTS) -> None:
        self.local = threading.local()
        self._lock = threading.Lock()
        self._events: deque[Event] = deque(maxlen=events)
        self._stages: dict[tuple[str, str], Stage] = {}
        self._threads: dict[int, str] = {}
        # Threads of several processes are shown together: one clock for all, which does not jump within a process.
        self._epoch_ns = time.time_ns() - time.monotonic_ns()

    def add(self, name: str, began_ns: int, took_ns: int, own_ns: int) -> None:
        """Counts one span that began at `began_ns` of the monotonic clock."""
        thread, tid = threading.current_thread().name, threading.get_native_id()
        began = began_ns + self._epoch_ns
        bucket = bucket_of(own_ns)
        with self._lock:
            stage = self._stages.get((thread, name))
            if stage is None:
                stage = self._stages[thread, name] = Stage(began_ns=began)
            stage.count += 1
            stage.own_ns += own_ns
            stage.ended_ns = began + took_ns
            stage.buckets[bucket] = stage.buckets.get(bucket, 0) + 1
            self._threads[tid] = thread
            self._events.append(Event(name, tid, began, took_ns))

    def part(self, role: str) -> Part:
        """What was seen so far."""
        with self._lock:
            stages = {
                key: Stage(s.count, s.own_ns, s.began_ns, s.ended_ns, dict(s.buckets))
                for key, s in self._stages.items()
            }
            return Part(role, stages, dict(self._threads), list(self._events))


class Span:
    """One span, from `with` to its end."""

    __slots__ = ("_began", "_inner", "_outer", "_stage", "_timeline")

    def __init__(self, timeline: Timeline, stage: str) -> None:
        self._timeline, self._stage, self._inner = timeline, stage, 0

    def __enter__(self) -> None:
        local = self._timeline.local
        self._outer: Span | None = getattr(local, "span", None)
        local.span = self
        self._began = time.monotonic_ns()

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        took = time.monotonic_ns() - self._began
        self._timeline.local.span = self._outer
        if self._outer is not None:
            self._outer._inner += took
        self._timeline.add(self._stage, self._began, took, took - self._inner)


_timeline = Timeline() if os.environ.get(VARIABLE) else None


def folder() -> str | None:
    """Where this process' profile is wanted, None if it is not."""
    return os.environ.get(VARIABLE) or None


def span(stage: str) -> AbstractContextManager[None]:
    """A context whose time counts for `stage` of this thread."""
    return _IDLE if _timeline is None else Span(_timeline, stage)


def ended_now(stage: str, seconds: float) -> None:
    """Counts a span that ends now and whose length was measured elsewhere."""
    if _timeline is not None:
        took = int(seconds * 1e9)
        _timeline.add(stage, time.monotonic_ns() - took, took, took)


def name_thread(name: str) -> None:
    """Gives this thread a name in the profile, where whoever started it gave none."""
    if _timeline is not None:
        threading.current_thread().name = name


def part(role: str) -> Part | None:
    """What this process saw so far; None if nothing is measured."""
    return None if _timeline is None else _timeline.part(role)
