"""Which rows a table gives up: those that were not pushed for long, and under a budget the ones that are worth least.

A row's worth is how often it was pushed, halved for every half life since its last push, so that what was popular long
ago makes room for what is popular now. Time is the newest time of a push that the table has seen, never this machine's
clock: while nothing is learnt nothing gets old, and a replayed year is as long as it was.

Work is done in slices (`Sweeper.step`): each looks at `SLICE` row numbers of one table under its lock, well under a
millisecond for most, and everything between two slices goes on. A pass over all tables counts rows by worth; if they
exceed the budget, the next pass knows from these counts how little a row must be worth to go. Rows that were pulled and
never pushed get the time at which a sweep first meets them as their last push.
"""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from kuberec_runtime.table.buckets import I64
from kuberec_runtime.table.compiled import kernel

if TYPE_CHECKING:
    from kuberec_runtime.table.table import Table

SLICE = 16_384
PAUSE_S = 0.01
"""Between two slices: a sweep takes a few percent of one core at most."""
PASS_EVERY_S = 60.0
START, GOAL = 0.95, 0.90
"""Shares of a budget: a pass that finds more rows than the first removes down to the second."""
INDEX_BYTES = 24
"""Of a row, on average: 64 bytes for 5 slots of which about half are taken."""
CLASSES = 512


@kernel
def _class_of(worth: int) -> int:
    """0 to 255 as they are, then eight classes for each doubling."""
    if worth < 256:
        return worth
    doublings = 0
    while (worth >> doublings) >= 512:
        doublings += 1
    return min(256 + 8 * doublings + (((worth >> doublings) - 256) >> 5), 511)


@kernel
def judge_rows(
    bits: Any, keys: Any, start: int, stop: int, pitch: int, counter: int, clock: int, idle_s: int, half_life_s: int,
    least: int, quota: Any, counts: Any, doomed: Any,
) -> int:  # fmt: skip
    """Writes the keys of doomed rows among numbers [start, stop) into `doomed`; returns how many.

    Args:
        bits: the arena of tails as uint32.
        keys: int64, the key of each row, negative where there is none.
        start: first row number.
        stop: row number behind the last.
        pitch: floats from tail to tail.
        counter: floats from a tail's start to its frequency; last-seen follows.
        clock: seconds since the epoch.
        idle_s: a row whose last push is longer ago goes; 0: none does.
        half_life_s: of a row's worth.
        least: rows of a lower class go, and `quota[0]` rows of this one, but not more than `quota[1]` in all: a row
            may have got older since it was counted.
        quota: int64, shape (2,), counted down.
        counts: int64, shape (CLASSES,); rows that stay are counted by class.
        doomed: int64, with room for all.
    """
    n = 0
    for row in range(start, stop):
        if keys[row] < 0:
            continue
        at = row * pitch + counter
        if bits[at + 1] == 0:
            bits[at + 1] = np.uint32(clock)
        age: int = max(clock - np.int64(bits[at + 1]), 0)  # type: ignore[assignment]
        kind = _class_of(np.int64(bits[at]) >> min(age // half_life_s, 32))
        cheap = quota[1] > 0 and (kind < least or (kind == least and quota[0] > 0))
        if cheap:
            quota[0] -= np.int64(kind == least)
            quota[1] -= 1
        if cheap or (idle_s > 0 and age > idle_s):
            doomed[n] = keys[row]
            n += 1
        else:
            counts[kind] += 1
    return n


@dataclass
class Verdict:
    """What `judge_rows` goes by, and what it counts."""

    idle_s: int = 0
    half_life_s: int = 86_400
    least: int = 0
    quota: I64 = field(default_factory=lambda: np.zeros(2, np.int64))
    counts: I64 = field(default_factory=lambda: np.zeros(CLASSES, np.int64))


@dataclass(frozen=True)
class EvictionRule:
    """What one shard evicts by.

    Attributes:
        idle_s: seconds without a push after which a row goes; 0: never.
        rows: rows that the shard may hold; 0: no limit.
        bytes: bytes of rows, keys and index that the shard may hold; 0: no limit.
        half_life_s: after which a row without a push is worth half.
    """

    idle_s: int = 0
    rows: int = 0
    bytes: int = 0
    half_life_s: int = 86_400


def lowest(counts: npt.NDArray[np.int64], excess: int) -> tuple[int, int]:
    """The class below which all rows go, and how many of that class, so that `excess` of the counted rows do."""
    if excess <= 0:
        return 0, 0
    below = np.cumsum(counts)
    least = int(np.searchsorted(below, excess))
    if least >= CLASSES:
        return CLASSES, 0
    return least, excess - (int(below[least - 1]) if least else 0)


class Sweeper:
    """Sweeps a shard's tables, slice by slice. `step` is called by one thread.

    Args:
        tables: by width; asked for anew at every slice, as a restore replaces them.
        rule: what to evict by.
        clock: seconds, for how often to begin.
    """

    def __init__(
        self,
        tables: Callable[[], Mapping[int, "Table"]],
        rule: EvictionRule,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tables, self._rule, self._time = tables, rule, clock
        self._todo: list[int] = []
        self._row = 0
        self._began = -np.inf
        self._counts: I64 | None = None
        self._verdict = Verdict()
        self._over = threading.Event()
        self._thread: threading.Thread | None = None
        self.evicted = self.passes = 0

    def step(self) -> bool:
        """Sweeps one slice, if a pass is under way or due; returns whether there is more to do now."""
        tables = self._tables()
        if not self._todo and not self._begin(tables):
            return False
        width = self._todo[0]
        gone = 0
        if width in tables:
            self._row, gone = tables[width].sweep(self._row, SLICE, self._verdict)
        else:
            self._row = 0
        self.evicted += gone
        if self._row == 0:
            self._todo.pop(0)
            if not self._todo:
                self._counts = self._verdict.counts
                self.passes += 1
        return bool(self._todo) or self._excess(tables) > 0

    def _begin(self, tables: Mapping[int, "Table"]) -> bool:
        excess, now = self._excess(tables), self._time()
        rule = self._rule
        period = min(PASS_EVERY_S, max(rule.idle_s / 10, 1.0)) if rule.idle_s else PASS_EVERY_S
        if excess <= 0 and (not rule.idle_s or now < self._began + period):
            return False
        fresh = self._counts is not None and now < self._began + PASS_EVERY_S
        least, quota = lowest(self._counts, excess) if fresh and self._counts is not None else (0, 0)
        self._began = now
        self._verdict = Verdict(
            rule.idle_s, rule.half_life_s, least, np.array([quota, excess if least or quota else 0])
        )
        self._todo, self._row = sorted(tables), 0
        return bool(self._todo)

    def _excess(self, tables: Mapping[int, "Table"]) -> int:
        """Rows to remove: 0 below `START` of the budget."""
        rule = self._rule
        rows = sum(len(table) for table in tables.values())
        excess = 0
        if rule.rows and rows > START * rule.rows:
            excess = rows - int(GOAL * rule.rows)
        if rule.bytes and rows:
            held = sum(len(table) * (table.row_bytes + INDEX_BYTES) for table in tables.values())
            if held > START * rule.bytes:
                excess = max(excess, int(rows * (1 - GOAL * rule.bytes / held)))
        return excess

    def start(self) -> None:
        """Sweeps in a thread until `stop`."""
        self._thread = threading.Thread(target=self._run, name="sweeper", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._over.wait(PAUSE_S if self.step() else 0.1):
            pass

    def stop(self) -> None:
        """Ends the thread, if there is one."""
        self._over.set()
        if self._thread is not None:
            self._thread.join(10.0)
