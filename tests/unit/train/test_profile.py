"""Spans by stage become figures and a trace; a span costs nothing that is not asked for."""

import io
import threading
import time

import pytest
from rich.console import Console

from kuberec_runtime import spans
from kuberec_runtime.spans import Event, Part, Span, Stage, Timeline, bucket_of, middle_of
from kuberec_runtime.train.profile import rendered, rows, trace

MS = 1_000_000


def stage(*durations_ms: float, began_ms: int = 0, ended_ms: int = 0) -> Stage:
    own = [int(ms * MS) for ms in durations_ms]
    buckets: dict[int, int] = {}
    for ns in own:
        buckets[bucket_of(ns)] = buckets.get(bucket_of(ns), 0) + 1
    return Stage(len(own), sum(own), began_ms * MS, ended_ms * MS, buckets)


def worker(number: int, **stages: Stage) -> Part:
    return Part(f"worker {number}", {("loop", name): s for name, s in stages.items()}, {7: "loop"}, [])


@pytest.mark.parametrize("ns", [0, 1, 63, 64, 65, 1000, 123_456, 10**9, 7 * 10**12])
def test_a_bucket_is_less_than_two_percent_off(ns: int) -> None:
    assert abs(middle_of(bucket_of(ns)) - ns) <= ns / 62
    assert bucket_of(ns) < 2000


def test_longer_spans_have_later_buckets() -> None:
    durations = sorted({int(1.01**i) for i in range(3000)})
    buckets = [bucket_of(ns) for ns in durations]
    assert buckets == sorted(buckets)


def test_a_stage_counts_its_own_time_and_not_that_of_spans_inside() -> None:
    timeline = Timeline()
    with Span(timeline, "poll"):
        with Span(timeline, "decode"):
            time.sleep(0.02)
        with Span(timeline, "decode"):
            time.sleep(0.02)
    stages = timeline.part("worker 0").stages
    name = threading.current_thread().name
    poll, decode = stages[name, "poll"], stages[name, "decode"]
    assert (poll.count, decode.count) == (1, 2)
    events = {event.stage: event for event in timeline.part("worker 0").events}
    assert poll.own_ns == events["poll"].took_ns - decode.own_ns
    assert decode.own_ns >= 40 * MS


def test_a_span_ends_when_its_block_raises() -> None:
    timeline = Timeline()
    with pytest.raises(ValueError, match="no"), Span(timeline, "outer"), Span(timeline, "inner"):
        raise ValueError("no")
    with Span(timeline, "next"):
        pass
    part = timeline.part("worker 0")
    assert [event.stage for event in part.events] == ["inner", "outer", "next"]


def test_threads_have_stages_and_tracks_of_their_own() -> None:
    timeline = Timeline()

    def work() -> None:
        with Span(timeline, "pull"):
            pass

    threads = [threading.Thread(target=work, name=f"shard0-peer-{i}") for i in range(2)]
    for thread in threads:
        thread.start()
        thread.join()
    part = timeline.part("shard 0")
    assert set(part.stages) == {("shard0-peer-0", "pull"), ("shard0-peer-1", "pull")}
    (row,) = rows([part])
    assert (row.process, row.thread, row.stage, row.count) == ("shard", "shard-peer", "pull", 2)


def test_memory_is_bounded_and_figures_count_on() -> None:
    timeline = Timeline(events=10)
    for _ in range(1000):
        with Span(timeline, "pull"):
            pass
    part = timeline.part("shard 0")
    assert len(part.events) == 10
    (only,) = part.stages.values()
    assert only.count == sum(only.buckets.values()) == 1000


def test_nothing_is_measured_unless_it_is_asked_for() -> None:
    assert spans.folder() is None
    with spans.span("pull") as nothing:
        spans.ended_now("push", 1.0)
    assert nothing is None and spans.part("worker 0") is None
    assert spans.span("pull") is spans.span("push"), "one object that does nothing"


def test_figures_of_all_workers_are_added_up_and_shares_are_of_one() -> None:
    figures = rows(
        [
            worker(0, compute=stage(10, 10, 10, 50, began_ms=0, ended_ms=100), push=stage(5, 5, 5, 5, began_ms=10)),
            worker(1, compute=stage(10, 10, 10, 10, began_ms=0, ended_ms=100), push=stage(5, 5, 5, 25, began_ms=10)),
            Part("shard 0", {("shard0-peer", "pull"): stage(1, 1, 1, 7)}, {}, []),
        ]
    )
    compute, push, pull = figures
    assert (compute.process, compute.thread, compute.stage, compute.count) == ("worker", "loop", "compute", 8)
    assert compute.mean_ms == pytest.approx(15)
    assert compute.p50_ms == pytest.approx(10, rel=0.02)
    assert compute.p99_ms == pytest.approx(50, rel=0.02)
    assert compute.share == pytest.approx(120 / 200)
    assert push.step_ms == pytest.approx(60 / 8)
    assert (pull.process, pull.step_ms) == ("shard", pytest.approx(10 / 8))
    assert pull.share == pytest.approx(10 / 100)


def test_the_table_names_a_process_and_a_thread_once() -> None:
    console = Console(width=120, file=io.StringIO())
    console.print(rendered(rows([worker(0, compute=stage(10, ended_ms=20), push=stage(5, began_ms=10))])))
    assert isinstance(console.file, io.StringIO)
    lines = [line.split() for line in console.file.getvalue().splitlines()]
    assert lines[0][:4] == ["process", "thread", "stage", "count"]
    assert lines[1][:4] == ["worker", "loop", "compute", "1"] and lines[1][-2:] == ["10.000", "50.0%"]
    assert lines[2][:2] == ["push", "1"] and lines[2][-1] == "25.0%"


def test_a_trace_has_a_track_for_each_thread_and_begins_at_zero() -> None:
    parts = [
        Part(
            "worker 0",
            {},
            {11: "loop", 12: "puller"},
            [Event("pull", 12, 5_000, 2_000), Event("compute", 11, 3_000, 9_000)],
        ),
        Part("shard 0", {}, {11: "shard0-peer"}, [Event("pull", 11, 6_000, 500)]),
    ]
    events = trace(parts)["traceEvents"]
    names = {(e["pid"], e["tid"]): e["args"]["name"] for e in events if e["name"] == "thread_name"}
    assert names == {(1, 11): "loop", (1, 12): "puller", (2, 11): "shard0-peer"}
    assert [e["args"]["name"] for e in events if e["name"] == "process_name"] == ["worker 0", "shard 0"]
    timed = [(e["pid"], e["tid"], e["name"], e["ts"], e["dur"]) for e in events if e["ph"] == "X"]
    assert timed == [(1, 12, "pull", 2.0, 2.0), (1, 11, "compute", 0.0, 9.0), (2, 11, "pull", 3.0, 0.5)]
