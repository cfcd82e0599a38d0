"""What a replay found, for people (a table), for programs (JSON) and for alerts (Prometheus text)."""

import time
from pathlib import Path
from typing import Any

import numpy as np
from prometheus_client import CollectorRegistry, Gauge, write_to_textfile
from rich.markup import escape
from rich.table import Table

from featuregen.replay.check import Example, Report
from featuregen.replay.events import LAGS_MS

_LONGEST = 48
_UNITS = {1000: "s", 60_000: "min", 3_600_000: "h"}


def features_table(report: Report) -> Table:
    """Returns one line for each output."""
    table = Table("feature", "requests", "mismatches", "first difference")
    for name, tally in report.features.items():
        wrong = f"[red]{tally.mismatches}[/red]" if tally.mismatches else "0"
        first = "" if tally.example is None else escape(example_text(tally.example))
        table.add_row(name, str(tally.requests), wrong, first)
    return table


def example_text(example: Example) -> str:
    """Returns where a difference is, and what was served and is computed."""
    where = f"request {example.request_id}"
    if example.row is None:
        return f"{where}: computed {_short(example.recomputed)} in row 0 (the log has digests only)"
    item = "" if example.item is None else f" ({example.item})"
    served = "nothing" if example.served is None else _short(example.served)
    return f"{where} row {example.row}{item}: served {served}, computed {_short(example.recomputed)}"


def behaviors_table(report: Report) -> Table:
    """Returns one line for each behaviour that was compared with an event log."""
    ages = [f"up to {_duration(lag)}" for lag in LAGS_MS] + ["older"]
    table = Table("behavior", "requests", "exact", "missing events", "extra events", "age of missing events")
    for name, tally in report.behaviors.items():
        counts = (tally.requests, tally.exact, tally.missing, tally.extra)
        lags = (f"{age}: {count}" for age, count in zip(ages, tally.lags, strict=True) if count)
        table.add_row(name, *(str(count) for count in counts), ", ".join(lags))
    return table


def write_metrics(path: Path, model: str, report: Report) -> None:
    """Writes gauges in the text format that node_exporter's textfile collector reads, in one step.

    With an event log the differences are of data and not of code, and have a name of their own: `kuberec_replay_skew`
    may be some, `kuberec_replay_mismatch` must be 0.
    """
    registry = CollectorRegistry()

    def gauge(name: str, what: str, *labels: str) -> Any:
        return Gauge(f"kuberec_replay_{name}", what, ["model", *labels], registry=registry)

    gauge("requests_total", "Logged requests that were computed again").labels(model).set(report.requests)
    gauge("unreadable_total", "Files or messages that are no log").labels(model).set(len(report.unreadable))
    others = gauge("other_plan_total", "Logged requests of another plan, left out")
    others.labels(model).set(report.seen - report.requests)
    gauge("timestamp_seconds", "When the replay ended").labels(model).set(time.time())
    if report.behaviors:
        what = gauge("skew_total", "Requests whose feature differs from that of the event log", "feature")
        events = gauge("events_total", "Events that a request should, or should not, have seen", "behavior", "kind")
        for name, behavior in report.behaviors.items():
            events.labels(model, name, "missing").set(behavior.missing)
            events.labels(model, name, "extra").set(behavior.extra)
    else:
        what = gauge("mismatch_total", "Requests whose feature is not what was served", "feature")
    for name, tally in report.features.items():
        what.labels(model, name).set(tally.mismatches)
    write_to_textfile(str(path), registry)


def _short(values: list[Any]) -> str:
    text = _text(values)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."


def _text(value: Any) -> str:
    """Numbers are float32: the shortest text that tells them apart."""
    if isinstance(value, list | tuple):
        inner = ", ".join(map(_text, value))
        return f"[{inner}]" if isinstance(value, list) else f"({inner})"
    return str(np.float32(value)) if isinstance(value, float) else repr(value)


def _duration(ms: int) -> str:
    unit = max(size for size in _UNITS if size <= ms)
    return f"{ms // unit} {_UNITS[unit]}"
