"""The other half of a replay: was the behaviour that a request saw the behaviour that had happened?

A raw event log is read with the exact rule of `window` and `sequence` (events before `now`, of those the last
`maxEvents` in order of arrival, no older than `maxAge`), and the result stands in for the logged lists. What differs
then is data skew: events that reached the feature store too late, twice, or never.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from featuregen.arrays import to_array
from featuregen.engine import Request
from featuregen.errors import FeatureError
from featuregen.plan import Behavior, Plan

I64 = NDArray[np.int64]
LAGS_MS = (1_000, 5_000, 60_000, 300_000, 3_600_000)
"""Bounds of the lag histogram; a last bucket takes what is later."""

_IDENTITY = ("item", "action", "ts")


@dataclass
class BehaviorTally:
    """A behaviour over the replayed requests.

    Attributes:
        requests: requests whose events were compared.
        exact: those that saw exactly the events they should have.
        missing: events that had happened and were not seen.
        extra: events that were seen and are not in the log.
        lags: missing events by their age at the request: at most each of LAGS_MS, then older ones.
    """

    requests: int = 0
    exact: int = 0
    missing: int = 0
    extra: int = 0
    lags: list[int] = field(default_factory=lambda: [0] * (len(LAGS_MS) + 1))

    def add(self, other: "BehaviorTally") -> None:
        """Adds another part of the log."""
        self.requests += other.requests
        self.exact += other.exact
        self.missing += other.missing
        self.extra += other.extra
        self.lags = [a + b for a, b in zip(self.lags, other.lags, strict=True)]


class EventLog:
    """Raw events of one behaviour, by user and in order of arrival.

    Args:
        plan: whose behaviour it is.
        name: of the behaviour.
        events: columns `user`, `ts` (ms), and each attribute of an event that the plan reads (`item`, `action`, its own
            fields, item fields such as `cate`). With a column `behavior` only rows of that name count. Arrival is the
            order of a column `seq`; without one it is `ts`, and the order of rows where that is equal.

    Raises:
        FeatureError: a column is absent or has another type, or `user` or `ts` is null.
    """

    def __init__(self, plan: Plan, name: str, events: pa.Table) -> None:
        if name not in plan.behaviors:
            known = ", ".join(plan.behaviors) or "none"
            raise FeatureError(None, f"no feature reads a behaviour '{name}'", f"behaviours that are read: {known}")
        self.behavior = plan.behaviors[name]
        prefix = f"behavior.{name}."
        inputs = {i.name: i for i in plan.inputs if i.name.startswith(prefix)}
        absent = {"user", "ts", *(n.removeprefix(prefix) for n in inputs)} - set(events.column_names)
        if absent:
            hint = f"the plan reads it of each event; the log has: {', '.join(events.column_names)}"
            raise FeatureError(None, f"the event log of '{name}' has no column '{min(absent)}'", hint)
        if "behavior" in events.column_names:
            events = events.filter(pc.equal(events.column("behavior"), name))
        for needed in ("user", "ts"):
            if events.column(needed).null_count:
                raise FeatureError(None, f"the event log of '{name}' has nulls in '{needed}'", "leave such events out")
        users = events.column("user").cast(pa.string()).combine_chunks().dictionary_encode()
        codes = np.asarray(users.indices)
        arrival = np.asarray(events.column("seq" if "seq" in events.column_names else "ts").cast(pa.int64()))
        order = np.lexsort((arrival, codes))
        self._ts = np.asarray(events.column("ts").cast(pa.int64()))[order]
        bounds = np.concatenate([[0], np.cumsum(np.bincount(codes, minlength=len(users.dictionary)))])
        self._span = {key: (int(bounds[i]), int(bounds[i + 1])) for i, key in enumerate(users.dictionary.to_pylist())}
        events = events.take(pa.array(order))
        self._values = {
            flat: to_array(replace(one, is_list=False), events.column(flat.removeprefix(prefix)))
            for flat, one in inputs.items()
        }

    def lists(self, user: str, now: int) -> dict[str, pa.Array]:
        """Returns flat column -> an array of one row: the events that a request of that user at that time must see."""
        first, last = self._span.get(user, (0, 0))
        seen = pa.array(first + visible(self._ts[first:last], now, self.behavior))
        offsets = pa.array([0, len(seen)], pa.int32())
        return {flat: pa.ListArray.from_arrays(offsets, values.take(seen)) for flat, values in self._values.items()}


def visible(stamps: I64, now: int, behavior: Behavior) -> I64:
    """Returns the positions of the events that a request sees, oldest first."""
    kept = np.flatnonzero(stamps < now)[-behavior.max_events :]
    return kept[stamps[kept] >= now - behavior.max_age_ms]


def with_events(log: EventLog, user: str, request: Request, names: Sequence[str]) -> Request:
    """Returns the request with the behaviour that the event log says; `names` are those of its shared columns."""
    lists = log.lists(user, request.shared[names.index("now")][0].as_py())
    shared = zip(names, request.shared, strict=True)
    return replace(request, shared=tuple(lists.get(name, array) for name, array in shared))


def compare(behavior: Behavior, served: Request, exact: Request, names: Sequence[str], tally: BehaviorTally) -> None:
    """Counts the visible events of a served request that it should not, or should, have seen."""
    now = served.shared[names.index("now")][0].as_py()
    happened, seen = (_events(behavior, request, names, now) for request in (exact, served))
    missing, extra = happened - seen, seen - happened
    tally.requests += 1
    tally.exact += not missing and not extra
    tally.missing += missing.total()
    tally.extra += extra.total()
    for event, count in missing.items():
        tally.lags[int(np.searchsorted(LAGS_MS, now - event[0]))] += count


def _events(behavior: Behavior, request: Request, names: Sequence[str], now: int) -> Counter[tuple[Any, ...]]:
    """Visible events as (ts, item, action), as far as the plan reads these."""
    found = {}
    for attribute in _IDENTITY:
        flat = f"behavior.{behavior.name}.{attribute}"
        if flat in names:
            found[attribute] = request.shared[names.index(flat)][0].as_py() or []
    stamps = found.pop("ts")
    known = [at for at, ts in enumerate(stamps) if ts is not None]
    kept = visible(np.array([stamps[at] for at in known], np.int64), now, behavior)
    aligned = [values for values in found.values() if len(values) == len(stamps)]
    return Counter((stamps[at], *(values[at] for values in aligned)) for at in (known[k] for k in kept.tolist()))
