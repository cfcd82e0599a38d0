"""Where the time of a training goes: spans by stage, as a table of totals and as a trace that Perfetto opens.

`KUBEREC_PROFILE=<folder>` turns it on, for this process and all that it starts; each process writes one file there.
Without it a span is a shared object that does nothing. A stage's time is its own: what a span inside it took is the
inner stage's. Threads are tracks. One timeline per process, since whoever waits for whom is a matter of processes.
"""

import json
import os
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

VARIABLE = "KUBEREC_PROFILE"
MOST_EVENTS = 200_000
"""Events of one process that go into the trace; totals count on."""

_IDLE: AbstractContextManager[None] = nullcontext()


@dataclass
class Total:
    """What one stage of one role took."""

    count: int = 0
    own_ns: int = 0
    longest_ns: int = 0


class _Span:
    __slots__ = ("_began", "_inner", "_outer", "_stage", "_timeline")

    def __init__(self, timeline: "Timeline", stage: str) -> None:
        self._timeline, self._stage, self._inner = timeline, stage, 0

    def __enter__(self) -> None:
        local = self._timeline.local
        self._outer: _Span | None = getattr(local, "span", None)
        local.span = self
        self._began = time.monotonic_ns()

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        took = time.monotonic_ns() - self._began
        self._timeline.local.span = self._outer
        if self._outer is not None:
            self._outer._inner += took
        self._timeline.add(self._stage, self._began, took, took - self._inner)


class Timeline:
    """Spans and counters of this process. Methods may be called from any thread."""

    def __init__(self) -> None:
        self.local = threading.local()
        self._lock = threading.Lock()
        self._events: list[tuple[str, str, int, int]] = []
        self._counters: list[tuple[str, int, float]] = []
        self._totals: dict[str, Total] = {}

    def add(self, stage: str, began_ns: int, took_ns: int, own_ns: int) -> None:
        """Counts one span; `own_ns` is what no span inside it took."""
        with self._lock:
            total = self._totals.setdefault(stage, Total())
            total.count += 1
            total.own_ns += own_ns
            total.longest_ns = max(total.longest_ns, took_ns)
            if len(self._events) < MOST_EVENTS:
                self._events.append((stage, threading.current_thread().name, began_ns, took_ns))

    def count(self, name: str, value: float) -> None:
        """Notes a counter's value as of now."""
        with self._lock:
            if len(self._counters) < MOST_EVENTS:
                self._counters.append((name, time.monotonic_ns(), value))

    def write(self, folder: Path, role: str) -> None:
        """Writes what was seen so far as `<role>-<pid>.json`."""
        with self._lock:
            totals = {stage: [t.count, t.own_ns, t.longest_ns] for stage, t in self._totals.items()}
            body = {"role": role, "pid": os.getpid(), "totals": totals, "events": self._events[:]}
            body["counters"] = self._counters[:]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{role.replace(' ', '-')}-{os.getpid()}.json").write_text(json.dumps(body))


_timeline = Timeline() if os.environ.get(VARIABLE) else None


def span(stage: str) -> AbstractContextManager[None]:
    """A context whose time counts for `stage`."""
    return _IDLE if _timeline is None else _Span(_timeline, stage)


def count(name: str, value: float) -> None:
    """Notes a counter's value as of now."""
    if _timeline is not None:
        _timeline.count(name, value)


def write(role: str) -> None:
    """Writes this process' part; called at the end of whatever has spans."""
    if _timeline is not None:
        _timeline.write(Path(os.environ[VARIABLE]), role)


def read(folder: Path) -> list[dict[str, Any]]:
    """The parts of all processes."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*-*.json"))]


def totals(parts: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], Total]:
    """Totals by (role without its number, stage)."""
    out: dict[tuple[str, str], Total] = {}
    for part in parts:
        role = str(part["role"]).rstrip("0123456789 ")
        for stage, (times, own, longest) in part["totals"].items():
            total = out.setdefault((role, stage), Total())
            total.count += times
            total.own_ns += own
            total.longest_ns = max(total.longest_ns, longest)
    return out


def trace(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """All parts as one trace in Chrome's JSON format: processes by role, threads as tracks, counters."""
    events: list[dict[str, Any]] = []
    for part in parts:
        pid = part["pid"]
        events.append({"ph": "M", "name": "process_name", "pid": pid, "args": {"name": part["role"]}})
        tracks = {name: i for i, name in enumerate(sorted({event[1] for event in part["events"]}), start=1)}
        for name, tid in tracks.items():
            events.append({"ph": "M", "name": "thread_name", "pid": pid, "tid": tid, "args": {"name": name}})
        for stage, thread, began, took in part["events"]:
            events.append(
                {"ph": "X", "name": stage, "pid": pid, "tid": tracks[thread], "ts": began / 1000, "dur": took / 1000}
            )
        for name, at, value in part["counters"]:
            events.append({"ph": "C", "name": name, "pid": pid, "ts": at / 1000, "args": {"value": value}})
    return {"traceEvents": events, "displayTimeUnit": "ms"}
