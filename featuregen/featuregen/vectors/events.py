"""Behaviour in NumPy: which events are visible, and windows over them, by positions and not by loops.

Which events count is decided by positions in arrival order: an event is kept if fewer than `max_events` events that
count come behind it. Working in positions and not in times is what makes the cap and ties exact.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from featuregen.plan import Operation, Plan
from featuregen.vectors.columns import Dictionary, Reader, flags_of, numbers_of, texts_of
from featuregen.vectors.spans import Floats, Ints, PairIndex, Spans, first_of_pairs, fold, spans_of_rows


@dataclass(frozen=True, slots=True)
class Events:
    """The visible events of logs, in the order of arrival.

    Attributes:
        spans: the events of each log.
        log: of each event, the log.
        position: of each event, its place in the log's lists.
        ts: of each event, its time, ms.
        length: of each log, how long its lists must be to be aligned with it.
        shared: there is one log, for all rows.
    """

    spans: Spans
    log: Ints
    position: Ints
    ts: Ints
    length: Ints
    shared: bool

    def owners(self, rows: int) -> Ints:
        """Returns the log of each row."""
        return np.arange(rows) * (not self.shared)


def visible_events(reader: Reader, plan: Plan, operation: Operation, rows: int) -> Events:
    """Returns the events that an operation may see: before now, the last `max_events`, fresh, of its actions."""
    key = f"{operation.behavior} {sorted(operation.actions)}"
    name = f"behavior.{operation.behavior}.ts"
    return reader.once(f"events {key}", name, lambda _: _visible(reader, plan, operation, rows))


def _visible(reader: Reader, plan: Plan, operation: Operation, rows: int) -> Events:
    behavior, stamps = plan.behaviors[operation.behavior], f"behavior.{operation.behavior}.ts"
    shared = reader.is_shared(stamps) and reader.is_shared("now")
    logs = 1 if shared else rows
    spans, values = reader.lists(stamps, logs)
    log, element = spans.expand()
    now = reader.array("now").to_numpy()[reader.owners("now", logs)][log]
    ts = np.asarray(pc.fill_null(values, 0))[element]
    before = flags_of(values.is_valid())[element] & (ts < now)
    count = np.concatenate((np.zeros(1, np.int64), np.cumsum(before)))
    local = spans_of_rows(log, logs)
    newer = count[local.stops][log] - count[1:]
    chosen = before & (newer < behavior.max_events) & (ts >= now - behavior.max_age_ms)
    lengths = spans.lengths
    position = element - spans.starts[log]
    if operation.actions:
        index, actions = attribute(reader, f"behavior.{operation.behavior}.action", logs, lengths, log, position)
        allowed = flags_of(pc.is_in(actions, value_set=pa.array(operation.actions, pa.string())))
        chosen &= np.append(allowed, False)[index]  # -1 is the last
    kept = np.flatnonzero(chosen)
    return Events(spans_of_rows(log[kept], logs), log[kept], position[kept], ts[kept], lengths, shared)


def attribute(reader: Reader, name: str, rows: int, lengths: Ints, row: Ints, position: Ints) -> tuple[Ints, pa.Array]:
    """Returns where an attribute of each event, or element, is in the values of its column, and these values.

    -1 where the row's list is not as long as `lengths` says: it is not aligned, and all of it is missing.
    """
    spans, values = reader.lists(name, rows)
    aligned = (spans.lengths == lengths)[row]
    return np.where(aligned, spans.starts[row] + position, -1), values


def window(reader: Reader, plan: Plan, operation: Operation, rows: int) -> Floats:
    """Returns a number for each window, of events with now - w <= ts < now; NaN where there is none.

    Each event belongs to the smallest window that holds it; a window's result is that of its own events and of the next
    smaller window's result, so that sums are added up in one order everywhere.
    """
    events = visible_events(reader, plan, operation, rows)
    logs = len(events.spans)
    now = reader.array("now").to_numpy()[reader.owners("now", logs)][events.log]
    windows = np.array(operation.windows_ms, np.int64)
    bucket = np.searchsorted(windows, now - events.ts)
    chosen = bucket < len(windows)
    numbers = np.zeros(len(bucket))
    if operation.value_column:
        index, values = attribute(reader, operation.value_column, logs, events.length, events.log, events.position)
        numbers = np.append(numbers_of(values), np.nan)[index]
        chosen &= ~np.isnan(numbers)
    if operation.columns:
        group, groups, of_row = _groups(reader, operation, events, rows)
        chosen &= group >= 0
    else:
        group, groups, of_row = events.log, logs, events.owners(rows)
    kept = np.flatnonzero(chosen)
    cell = group[kept] * len(windows) + bucket[kept]
    order = np.argsort(cell, kind="stable")
    cells = spans_of_rows(cell[order], groups * len(windows))
    result = _aggregated(operation.method, numbers[kept][order], cells, kept[order], groups, len(windows))
    nothing = np.full((1, len(windows)), 0.0 if operation.method in ("count", "sum") else np.nan)
    return np.concatenate((result, nothing))[of_row]


def _groups(reader: Reader, operation: Operation, events: Events, rows: int) -> tuple[Ints, int, Ints]:
    """Returns the group (log and attribute) of each event, -1 without one; their number; each row's, -1 if none."""
    event_column, candidate_column = operation.columns
    index, values = attribute(reader, event_column, len(events.spans), events.length, events.log, events.position)
    keys, candidates = texts_of(values), reader.texts(candidate_column, rows)
    dictionary = Dictionary(keys.values)
    lengths = np.append(keys.spans.lengths, 0)
    code = np.append(dictionary.codes, -1)[np.where(lengths[index] > 0, np.append(keys.spans.starts, 0)[index], -1)]
    known = np.flatnonzero(code >= 0)
    first = known[first_of_pairs(events.log[known], code[known])]
    groups = PairIndex(events.log[first], code[first], len(dictionary))
    row, element = candidates.spans.expand()
    of_row = np.full(rows, -1)
    of_row[row] = groups.find(events.owners(rows)[row], dictionary.codes_of(candidates.values)[element])
    return groups.find(events.log, code), len(first), of_row


def _aggregated(method: str, numbers: Floats, cells: Spans, arrival: Ints, groups: int, windows: int) -> Floats:
    """Returns the aggregate of each group and window, of numbers that are sorted by cell (group and bucket)."""
    shape = (groups, windows)
    counts = np.cumsum(cells.lengths.reshape(shape), axis=1)
    if method == "count":
        return counts.astype(np.float64)
    if method in ("min", "max", "last"):
        return _chosen(method, numbers, cells, arrival, shape)
    totals = np.where(cells.lengths > 0, fold(numbers, cells, "sum") + 0.0, 0.0).reshape(shape)
    with np.errstate(over="ignore", invalid="ignore"):
        for at in range(1, windows):
            totals[:, at] += totals[:, at - 1]
        if method == "avg":
            return np.where(counts > 0, totals / np.maximum(counts, 1), np.nan)
    return np.where(np.isnan(totals), 0.0, totals)


def _chosen(method: str, numbers: Floats, cells: Spans, arrival: Ints, shape: tuple[int, int]) -> Floats:
    """The least number (min), the greatest (max), or the one that arrived last; of equal ones that came first."""
    rank = {"min": numbers, "max": -numbers, "last": -arrival.astype(np.float64)}[method]
    row, _ = cells.expand()
    order = np.lexsort((rank, row))  # stable: equal ones stay in the order of arrival
    best = np.where(cells.lengths > 0, np.append(order, 0)[np.minimum(cells.starts, len(order))], -1).reshape(shape)
    rank, arrived = np.append(rank, np.inf), np.append(arrival, 2**62)  # -1, no event, comes behind all
    for at in range(1, shape[1]):
        old, own = best[:, at - 1], best[:, at]
        earlier = (rank[old] == rank[own]) & (arrived[old] < arrived[own])
        best[:, at] = np.where((rank[old] < rank[own]) | earlier, old, own)
    return np.append(numbers, np.nan)[best]
