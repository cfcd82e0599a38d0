"""What `KUBEREC_PROFILE` measured in the processes of an attempt: gathered at its end, as a table and as a trace.

The driver forwards the variable to its actors (`fleet`), asks each for its part and writes two files into the folder:
`attempt-<n>.json`, which `kuberec run --profile` shows as a table, and `attempt-<n>.trace.json.gz` in Chrome's Trace
Event Format, which ui.perfetto.dev opens. Processes that died before the end take their part with them.
"""

import gzip
import json
import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from kuberec_runtime import spans
from kuberec_runtime.spans import Part, Stage, middle_of

if TYPE_CHECKING:
    from kuberec_runtime.train.fleet import Fleet

GATHER_TIMEOUT_S = 20.0
STEP = "compute"
"""The stage of a worker that every step has once."""

ORDER = ("reader", "puller", "loop")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Row:
    """A stage of all processes of one kind, times in milliseconds.

    Attributes:
        process: worker or shard; thread: which of its threads, without numbers.
        count: spans.
        mean_ms, p50_ms, p99_ms: of one span, without the spans inside; percentiles within 1.6%.
        step_ms: of all processes of the kind together, for each step of a worker.
        share: of the time that all steps took, for one process: 1 is one thread that does nothing else.
    """

    process: str
    thread: str
    stage: str
    count: int
    mean_ms: float
    p50_ms: float
    p99_ms: float
    step_ms: float
    share: float


def keep_profile(fleet: "Fleet", attempt: int) -> None:
    """Writes the profile of an attempt whose actors live, if one is wanted. A failure is logged, not raised."""
    wanted = spans.folder()
    if wanted is None:
        return
    try:
        pending = [*fleet.workers("profile"), *fleet.shards("profile")]
        parts: list[Part] = fleet.gather(pending, GATHER_TIMEOUT_S, "profiles")
        folder = Path(wanted)
        folder.mkdir(parents=True, exist_ok=True)
        # The trace first: who sees the table finds the trace.
        with gzip.open(trace_path(folder, attempt), "wt", compresslevel=4) as file:
            json.dump(trace(parts), file, separators=(",", ":"))
        table_path(folder, attempt).write_text(json.dumps([asdict(row) for row in rows(parts)], indent=1))
        logger.info("profile: %s", trace_path(folder, attempt))
    except Exception as error:
        logger.warning("no profile: %s", error)


def table_path(folder: Path, attempt: int) -> Path:
    """Where the figures of an attempt are."""
    return folder / f"attempt-{attempt}.json"


def trace_path(folder: Path, attempt: int) -> Path:
    """Where the trace of an attempt is."""
    return folder / f"attempt-{attempt}.trace.json.gz"


def read_rows(folder: Path, attempt: int) -> list[Row]:
    """The figures of an attempt.

    Raises:
        FileNotFoundError: the attempt left none.
    """
    return [Row(**row) for row in json.loads(table_path(folder, attempt).read_text())]


def rows(parts: Sequence[Part]) -> list[Row]:
    """Stages of all processes: workers, then shards; then by thread in the order of a step; then as they began."""
    processes: dict[str, list[Part]] = {}
    for part in parts:
        processes.setdefault(part.role.split()[0], []).append(part)
    steps = [s for part in processes.get("worker", ()) for (_, name), s in part.stages.items() if name == STEP]
    number = sum(s.count for s in steps)
    # What the steps of one worker took; of shards, which have none, the same time is looked at.
    window = sum(s.ended_ns - s.began_ns for s in steps) / max(len(steps), 1)
    out: list[Row] = []
    for process, members in processes.items():
        stages: dict[tuple[str, str], list[Stage]] = {}
        for part in members:
            for (thread, name), stage in part.stages.items():
                stages.setdefault((_without_numbers(thread), name), []).append(stage)
        for (thread, name), same in sorted(stages.items(), key=lambda item: _place(item[0][0], item[1])):
            count, own = sum(s.count for s in same), sum(s.own_ns for s in same)
            out.append(
                Row(
                    *(process, thread, name, count),
                    mean_ms=own / count / 1e6,
                    p50_ms=_quantile(same, 0.5) / 1e6,
                    p99_ms=_quantile(same, 0.99) / 1e6,
                    step_ms=own / max(number, 1) / 1e6,
                    share=own / len(members) / window if window else 0.0,
                )
            )
    return out


def rendered(figures: Iterable[Row]) -> Table:
    """The figures for people."""
    table = Table("process", "thread", "stage", box=None, header_style="bold")
    for name in ("count", "mean ms", "p50 ms", "p99 ms", "ms a step", "share"):
        table.add_column(name, justify="right")
    before = ("", "")
    for row in figures:
        process, thread = row.process if row.process != before[0] else "", row.thread
        if (row.process, row.thread) == before:
            thread = ""
        before = row.process, row.thread
        numbers = (row.mean_ms, row.p50_ms, row.p99_ms, row.step_ms)
        table.add_row(
            *(process, thread, row.stage, f"{row.count:,}"), *(f"{n:.3f}" for n in numbers), f"{row.share:.1%}"
        )
    return table


def trace(parts: Sequence[Part]) -> dict[str, Any]:
    """The newest spans of all processes in Chrome's Trace Event Format: a track for each thread, times from the first.

    https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU ("X": a span in microseconds.)
    """
    first = min((event.began_ns for part in parts for event in part.events), default=time.time_ns())
    events: list[dict[str, Any]] = []
    for pid, part in enumerate(parts, start=1):
        events.append({"ph": "M", "name": "process_name", "pid": pid, "args": {"name": part.role}})
        events.append({"ph": "M", "name": "process_sort_index", "pid": pid, "args": {"sort_index": pid}})
        for tid, name in part.threads.items():
            events.append({"ph": "M", "name": "thread_name", "pid": pid, "tid": tid, "args": {"name": name}})
        events += (
            {
                "ph": "X",
                "name": event.stage,
                "cat": part.role.split()[0],
                "pid": pid,
                "tid": event.tid,
                "ts": (event.began_ns - first) / 1000,
                "dur": event.took_ns / 1000,
            }
            for event in part.events
        )
    return {"traceEvents": events, "displayTimeUnit": "ms"}


def _without_numbers(thread: str) -> str:
    return "".join(c for c in thread if not c.isdigit()).strip("-_ ")


def _place(thread: str, same: Sequence[Stage]) -> tuple[int, str, int]:
    return ORDER.index(thread) if thread in ORDER else len(ORDER), thread, min(s.began_ns for s in same)


def _quantile(same: Sequence[Stage], q: float) -> int:
    buckets: dict[int, int] = {}
    for stage in same:
        for bucket, count in stage.buckets.items():
            buckets[bucket] = buckets.get(bucket, 0) + count
    left = q * sum(buckets.values())
    for bucket, count in sorted(buckets.items()):
        left -= count
        if left <= 0:
            return middle_of(bucket)
    return 0
