"""`make demo`: starts Kafka and Redis of its own, trains examples/feed.yaml from a synthetic stream, serves, measures.

Prints one JSON object as its last line. Exit code 0 only if everything worked and the AUC came close to the best
possible one. `KEEP=1` leaves the line running until Ctrl-C; `DEMO_PICTURE=file.svg` draws the last screen.
"""

import json
import os
import shutil
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from kuberec_api.training import Monitor, MonitorMetric, Range
from kuberec_devcluster.demo.board import Board
from kuberec_devcluster.demo.interrupts import Interrupts
from kuberec_devcluster.demo.probes import CANDIDATES, FreshnessProbe, ProbeError, RankProbe
from kuberec_devcluster.demo.watcher import Watcher
from kuberec_devcluster.processes import ServerError
from kuberec_devcluster.services import Kafka, Redis
from kuberec_devcluster.toolchain import ToolError
from kuberec_runtime.checkpoint import CheckpointError
from kuberec_runtime.local.resources import Overrides, ResourceFileError, Resources, localize, read_resources
from kuberec_runtime.local.supervisor import TrainingFailedError, TrainingProcess
from kuberec_runtime.publish.errors import TierError
from kuberec_runtime.publish.featurestore import FeatureStore
from kuberec_runtime.serve.local import LocalServing, ServingFailedError, start_serving
from kuberec_runtime.synth import KafkaSink, Oracle, Progress, SinkError, StoreSink, Stream, make_world, run
from kuberec_runtime.synth.stream import DEFAULT_GAP_MS

ROOT = Path(__file__).resolve().parents[3]
EXAMPLE = ROOT / "examples" / "feed.yaml"
SAMPLES = 300_000
PARTITIONS = 8
SEED = 0
LIVE_RATE = 200.0
TAIL = "last-fifth"
REQUESTS = 300
PROBES = 5
CLOSE_ENOUGH = 0.02
READY_SECONDS = 60.0
STAGES = [
    "start Kafka and Redis",
    "write impressions and clicks to Kafka",
    "train on 2 shards and 2 workers",
    "start a Ray Serve replica",
    "rank with the newest version",
    "measure freshness on a live stream",
    "stop everything",
]
ERRORS = (
    CheckpointError,
    ProbeError,
    ResourceFileError,
    ServerError,
    ServingFailedError,
    SinkError,
    TierError,
    ToolError,
    TrainingFailedError,
)


class Demo:
    """One run; `result` fills up as it goes."""

    def __init__(self, board: Board, folder: Path, cleanup: ExitStack, samples: int, interrupts: Interrupts) -> None:
        self._board, self._folder, self._cleanup, self._samples = board, folder, cleanup, samples
        self._interrupts = interrupts
        self.result: dict[str, Any] = {}
        self._world = make_world(SEED)

    def run(self) -> str:
        """Runs all stages; returns how to talk to what is running."""
        board, world = self._board, self._world
        board.figures.total = self._samples
        board.next()
        kafka = self._cleanup.enter_context(Kafka())
        redis = self._cleanup.enter_context(Redis())
        resources = self._resources(kafka, redis)
        source = resources.training.spec.source.kafka
        assert source is not None
        sink = KafkaSink(world, source.bootstrap_servers, source.topic, PARTITIONS)
        training = TrainingProcess(resources, self._folder)
        self._cleanup.callback(training.stop)
        training.start()  # its imports take seconds: they may pass while samples are written
        watcher = Watcher(training, board, self._samples, self._interrupts)
        self._cleanup.callback(watcher.close)
        board.next(f"at {kafka.bootstrap} and {redis.url.removeprefix('redis://')}")
        store = StoreSink(world, FeatureStore(redis.url))
        stream = self._backfill(sink, store)
        self._train(watcher)
        serving = self._serve(resources)
        probe = RankProbe(serving.rank_url, world)
        self._cleanup.callback(probe.close)
        self._cleanup.enter_context(self._live(stream, sink, store))
        self._rank(probe, watcher)
        self._freshness(FreshnessProbe(probe, world, kafka.bootstrap, source.topic, sink.partitions), watcher)
        self.result["published_version"] = board.figures.version
        return self._how_to_talk(serving, kafka, redis, source.topic, probe)

    def _resources(self, kafka: Kafka, redis: Redis) -> Resources:
        overrides = Overrides(
            bootstrap_servers=kafka.bootstrap, redis_url=redis.url, checkpoint_uri=f"file://{self._folder}/checkpoint"
        )
        resources = localize(read_resources(EXAMPLE), overrides)
        spec = resources.training.spec
        # A window of exactly the last fifth: its progressive AUC is what the oracle's on the same samples is for.
        window = Monitor(
            name=TAIL, metric=MonitorMetric.AUC, task="click", window=self._samples // 5, range=Range(min=0.0)
        )
        spec = spec.model_copy(update={"monitors": [*spec.monitors, window]})
        return replace(resources, training=resources.training.model_copy(update={"spec": spec}))

    def _backfill(self, sink: KafkaSink, store: StoreSink) -> Stream:
        """Two days of event time that end about now."""
        board = self._board
        start = int(time.time() * 1000 - self._samples * DEFAULT_GAP_MS) - 900_000
        stream, oracle = Stream(self._world, start), Oracle()
        store.put_entities()

        def show(progress: Progress) -> None:
            self._interrupts.check()
            board.note(f"{progress.samples:,}, {progress.per_second:,.0f}/s")

        done = run(stream, sink, samples=self._samples, store=store, oracle=oracle, report=show)
        report = oracle.report()
        board.figures.oracle = report.tail_auc
        self.result["oracle_auc"] = round(report.tail_auc or 0.0, 4)
        board.next(f"{done.samples:,} samples, {done.per_second:,.0f}/s, {report.click_ratio:.0%} clicks")
        return stream

    def _train(self, watcher: Watcher) -> None:
        board = self._board
        board.note("starting Ray, shards and workers")
        watcher.wait_for_version()
        board.note("")
        learnt = watcher.wait_until_learnt()
        progress = learnt.status.progress
        assert progress is not None
        values = {monitor.name: monitor.value for monitor in learnt.status.monitors}
        self.result["samples"] = progress.samples
        self.result["samples_per_s"] = round(learnt.per_second)
        self.result["auc"] = round(values.get(TAIL) or 0.0, 4)
        board.next(
            f"{self.result['samples_per_s']:,}/s, AUC {self.result['auc']:.4f} of {self.result['oracle_auc']:.4f}"
        )

    def _serve(self, resources: Resources) -> LocalServing:
        """After the training has caught up: on few cores, starting both at once would spoil either's figures."""
        assert resources.serving is not None
        serving = start_serving(resources.serving, resources.model, resources.training, self._folder)
        self._cleanup.callback(serving.stop)
        self._board.next(serving.url)
        return serving

    def _rank(self, probe: RankProbe, watcher: Watcher) -> None:
        board = self._board
        version = self._wait_for_version(probe, watcher)
        latency = probe.measure(REQUESTS)
        board.figures.rank_p50_ms, board.figures.rank_p99_ms = latency.p50_ms, latency.p99_ms
        self.result["rank_candidates"] = CANDIDATES
        self.result["rank_p50_ms"] = round(latency.p50_ms, 2)
        self.result["rank_p99_ms"] = round(latency.p99_ms, 2)
        board.next(f"version {version}, {CANDIDATES} candidates: p50 {latency.p50_ms:.1f} ms")

    def _wait_for_version(self, probe: RankProbe, watcher: Watcher) -> str:
        deadline = time.monotonic() + READY_SECONDS
        while True:
            watcher.check()
            try:
                return str(probe.rank(probe.body())["version"])
            except ProbeError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    def _freshness(self, probe: FreshnessProbe, watcher: Watcher) -> None:
        board, measured = self._board, []
        for number in range(PROBES):
            measured.append(probe.measure(number))
            board.figures.freshness_s = statistics.median(measured)
            board.note(f"{number + 1} of {PROBES} clicks on new items")
            watcher.check()
        self.result["freshness_s"] = round(statistics.median(measured), 2)
        board.next(f"a click changes rankings after {min(measured):.1f}-{max(measured):.1f} s")

    @contextmanager
    def _live(self, stream: Stream, sink: KafkaSink, store: StoreSink) -> Iterator[None]:
        """A live stream beside what is measured: event time is wall-clock time from here on."""
        stop, failures = threading.Event(), []

        def work() -> None:
            stream.set_clock(int(time.time() * 1000), 1000 / LIVE_RATE)
            try:
                run(stream, sink, samples=0, rate=LIVE_RATE, store=store, stop=stop.is_set)
            except (SinkError, TierError) as error:
                failures.append(error)

        thread = threading.Thread(target=work, name="live", daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(10)
        if failures:
            raise failures[0]

    def _how_to_talk(self, serving: LocalServing, kafka: Kafka, redis: Redis, topic: str, probe: RankProbe) -> str:
        body = json.dumps(probe.body(5))
        return (
            f"rank:    curl -s {serving.rank_url} -H 'Content-Type: application/json' -d '{body}'\n"
            f"about:   curl -s {serving.url}/v1/models/{serving.name}\n"
            f"samples: .venv/bin/kuberec synth --bootstrap {kafka.bootstrap} --topic {topic} --live --rate 500\n"
            f"epochs:  .venv/bin/kuberec checkpoints ls file://{self._folder}/checkpoint\n"
            f"redis:   {redis.url}   logs: {self._folder}"
        )


FIGURES = (
    *("samples", "samples_per_s", "auc", "oracle_auc", "published_version"),
    *("rank_candidates", "rank_p50_ms", "rank_p99_ms", "freshness_s"),
)
"""The figures of the demo's last line, in this order."""


def summary(result: dict[str, Any], seconds: float) -> Table:
    """Lays the result out for a person."""
    table = Table(box=None, show_header=False, padding=(0, 2))
    table.add_column(justify="right", style="bold")
    table.add_row(f"{result['samples_per_s']:,}/s", f"{result['samples']:,} samples learnt, by 2 shards and 2 workers")
    table.add_row(f"{result['auc']:.4f}", f"progressive AUC on the last fifth; {result['oracle_auc']:.4f} is possible")
    table.add_row(
        f"{result['rank_p50_ms']:.1f} ms",
        f"to rank {result['rank_candidates']} candidates over HTTP (p99 {result['rank_p99_ms']:.1f} ms)",
    )
    table.add_row(f"{result['freshness_s']:.2f} s", "from a click on a new item to rankings that know it (median)")
    table.add_row(str(result["published_version"]), "published version")
    table.add_row(f"{seconds:.0f} s", "for all of it")
    return table


def main() -> int:
    """Runs the demo; returns the exit code."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("RAY_worker_niceness", "0")  # 15 by default: starved wherever anything else runs
    interrupts = Interrupts()
    interrupts.install()
    console = Console(stderr=True)
    samples = int(os.environ.get("DEMO_SAMPLES", SAMPLES))
    keep = os.environ.get("KEEP", "") not in ("", "0")
    folder = Path(tempfile.mkdtemp(prefix="kuberec-demo-"))
    cleanup = ExitStack()
    board = Board(console, STAGES[:-1] if keep else STAGES)
    try:
        with board:
            demo = Demo(board, folder, cleanup, samples, interrupts)
            talk = demo.run()
            if not keep:
                _stop(cleanup)
            board.done()
        if picture := os.environ.get("DEMO_PICTURE"):
            board.save_picture(Path(picture))
        console.print(summary(demo.result, board.seconds))
        if keep:
            console.print(talk, markup=False, highlight=False, soft_wrap=True)
            console.print("Ctrl-C stops it")
        missing = demo.result["oracle_auc"] - demo.result["auc"]
        print(json.dumps({name: demo.result[name] for name in FIGURES}), flush=True)
        if keep:
            signal.sigwait({signal.SIGINT, signal.SIGTERM})
        if missing > CLOSE_ENOUGH:
            console.print(
                f"[red]error[/red]: the AUC is {missing:.4f} below the best possible, more than {CLOSE_ENOUGH}"
            )
            return 1
        return 0
    except KeyboardInterrupt:
        console.print("stopping")
        return 130
    except ERRORS as error:
        console.print(f"[red]error[/red]: {error}", highlight=False, soft_wrap=True)
        console.print(f"logs stay in {folder}", highlight=False)
        keep = True
        return 1
    finally:
        _stop(cleanup)
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)


def _stop(cleanup: ExitStack) -> None:
    """Stops everything; another Ctrl-C does not interrupt that."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        cleanup.close()
    finally:
        signal.signal(signal.SIGINT, before)


if __name__ == "__main__":
    sys.exit(main())
