"""The replay check: every logged request is computed again, and every output must have the digest that was served.

The plan that trains computes what was served, from what was read at that time; so one different bit is a defect (code
skew) and not noise, and the number of mismatches that is right is 0. Whether what was read was right is the question of
`featuregen.replay.events`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from featuregen.engine import Backend, Engine
from featuregen.plan import Plan, explain_difference
from featuregen.replay.digests import digest, digests
from featuregen.replay.events import BehaviorTally, EventLog, compare, with_events
from featuregen.replay.snapshot import Snapshot, SnapshotFormat, canonical_plan
from featuregen.results import Column
from featuregen.rows import row_of, row_values


@dataclass
class Example:
    """The first difference of an output.

    Attributes:
        now: time of the request, ms; the first is the earliest.
        request_id: the request.
        row: the first row that differs; None if the snapshot has no outputs to tell it by.
        item: key of that row's candidate, None if unknown or if the output is the user's.
        served: the row as it was served, None if the snapshot has no outputs.
        recomputed: the row as it is computed now (row 0 if the row is unknown).
    """

    now: int
    request_id: str
    row: int | None
    item: str | None
    served: list[Any] | None
    recomputed: list[Any]


@dataclass
class Tally:
    """Requests in which an output was compared, and in which it differed."""

    requests: int = 0
    mismatches: int = 0
    example: Example | None = None

    def add(self, other: "Tally") -> None:
        """Adds another part of the log."""
        self.requests += other.requests
        self.mismatches += other.mismatches
        found = [e for e in (self.example, other.example) if e is not None]
        self.example = min(found, key=lambda e: (e.now, e.request_id), default=None)


@dataclass
class OtherPlan:
    """Requests of another plan, which were left out, and what differs, if their log says it."""

    requests: int = 0
    differences: list[str] = field(default_factory=list)

    def add(self, other: "OtherPlan") -> None:
        """Adds another part of the log."""
        self.requests += other.requests
        self.differences = self.differences or other.differences


@dataclass
class Report:
    """What a replay found. Parts of a log are replayed apart, and their reports added.

    Attributes:
        requests: requests that were computed again.
        features: output -> what became of it, in the plan's order.
        other_plans: digest of another plan -> its requests.
        behaviors: behaviour -> its logged events against an event log; empty if none was given.
        unreadable: what could not be read, with where it is.
    """

    requests: int = 0
    features: dict[str, Tally] = field(default_factory=dict)
    other_plans: dict[str, OtherPlan] = field(default_factory=dict)
    behaviors: dict[str, BehaviorTally] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)

    @property
    def mismatches(self) -> int:
        """Differences over all outputs."""
        return sum(tally.mismatches for tally in self.features.values())

    @property
    def seen(self) -> int:
        """All requests, those of other plans too."""
        return self.requests + sum(other.requests for other in self.other_plans.values())

    def add(self, other: "Report") -> None:
        """Adds another part of the log."""
        self.requests += other.requests
        for name, tally in other.features.items():
            self.features.setdefault(name, Tally()).add(tally)
        for plan, requests in other.other_plans.items():
            self.other_plans.setdefault(plan, OtherPlan()).add(requests)
        for name, behavior in other.behaviors.items():
            self.behaviors.setdefault(name, BehaviorTally()).add(behavior)
        self.unreadable += other.unreadable

    def to_json(self) -> dict[str, Any]:
        """Returns plain data."""
        return {"mismatches": self.mismatches, **asdict(self)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Report":
        """Returns what `to_json` gave."""
        features = {
            name: Tally(t["requests"], t["mismatches"], t["example"] and Example(**t["example"]))
            for name, t in data["features"].items()
        }
        behaviors = {name: BehaviorTally(**tally) for name, tally in data["behaviors"].items()}
        others = {plan: OtherPlan(**other) for plan, other in data["other_plans"].items()}
        return cls(data["requests"], features, others, behaviors, list(data["unreadable"]))


class Replayer:
    """Computes logged requests again. One is used by one thread at a time.

    Args:
        plan: the plan to prove.
        files: folder of the files that the plan names.
        events: behaviour -> raw events; where it is given, behaviours are made from it instead of from the snapshot.
        backend: of the engine.
    """

    def __init__(
        self,
        plan: Plan,
        files: Path | None = None,
        events: Mapping[str, EventLog] | None = None,
        backend: Backend = "auto",
    ) -> None:
        self.plan = plan
        self._engine = Engine(plan, files, backend)
        self._form = SnapshotFormat(plan)
        self._events = dict(events or {})
        self._explained: dict[str, list[str]] = {}
        self._shared = [column.name for column in plan.inputs if not column.of_candidate]

    def check(self, batches: Iterable[pa.RecordBatch]) -> Report:
        """Replays batches of snapshots.

        Raises:
            SnapshotError: a batch has this plan's digest, but not its columns.
        """
        report = Report(features={output.name: Tally() for output in self.plan.outputs})
        for batch in batches:
            self._check(batch, report)
        return report

    def _check(self, batch: pa.RecordBatch, report: Report) -> None:
        found = np.array(batch.column("plan_digest").to_pylist(), object)
        mine = found == self.plan.digest
        for plan in found[~mine]:
            report.other_plans.setdefault(plan, OtherPlan()).add(OtherPlan(1, self._differences(batch.schema, plan)))
        for snapshot in self._form.read(batch.filter(pa.array(mine))) if mine.any() else []:
            report.requests += 1
            self._compare(snapshot, report)

    def _differences(self, schema: pa.Schema, plan: str) -> list[str]:
        if plan not in self._explained:
            written = canonical_plan(schema)
            if written is None:
                return []
            self._explained[plan] = explain_difference(written, self.plan.canonical)
        return self._explained[plan]

    def _compare(self, snapshot: Snapshot, report: Report) -> None:
        request = snapshot.request
        if (user := snapshot.user_key) is not None:
            for name, log in self._events.items():
                served, request = request, with_events(log, user, request, self._shared)
                behavior = report.behaviors.setdefault(name, BehaviorTally())
                compare(log.behavior, served, request, self._shared, behavior)
        features = self._engine.run(request)
        differs = digests(features) != snapshot.digests
        now = request.shared[self._shared.index("now")][0].as_py()
        for (name, column), wrong in zip(features.columns.items(), differs.tolist(), strict=True):
            tally = report.features[name]
            first = tally.example is None or (now, snapshot.request_id) < (tally.example.now, tally.example.request_id)
            tally.add(Tally(1, int(wrong), _example(snapshot, now, name, column) if wrong and first else None))


def _example(snapshot: Snapshot, now: int, name: str, column: Column) -> Example:
    served = (snapshot.outputs or {}).get(name)
    row = None if served is None else first_difference(served, column)
    at = min(row or 0, column.rows - 1)
    keys = snapshot.item_keys
    item = keys[at] if keys and row is not None and column.rows == len(keys) > at else None
    return Example(
        now,
        snapshot.request_id,
        row,
        item,
        None if served is None or row is None or row >= served.rows else row_values(served, row),
        row_values(column, at) if column.rows else [],
    )


def first_difference(a: Column, b: Column) -> int:
    """Returns the first row in which two columns differ bit for bit; of equal columns the number of rows."""
    rows = min(a.rows, b.rows)
    return next((row for row in range(rows) if digest(row_of(a, row)) != digest(row_of(b, row))), rows)
