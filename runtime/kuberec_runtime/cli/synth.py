"""`kuberec synth`: writes the synthetic stream to Kafka, and its users, items and behaviour to the feature store."""

import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

if TYPE_CHECKING:
    from kuberec_runtime.synth import Progress, Stream

REPORT_SECONDS = 5.0


class Format(StrEnum):
    """Encoding of messages."""

    JSON = "json"
    ARROW = "arrow"


def synth(
    bootstrap: Annotated[str, typer.Option(help="Kafka brokers, host:port,...")] = "localhost:9092",
    topic: Annotated[str, typer.Option(help="Topic, created if missing")] = "feed-samples",
    partitions: Annotated[int, typer.Option(min=1, help="Partitions of a new topic")] = 4,
    samples: Annotated[int, typer.Option(min=0, help="How many; 0 is endless")] = 0,
    rate: Annotated[float, typer.Option(min=0, help="Samples per second; 0 is as fast as possible")] = 0.0,
    seed: Annotated[int, typer.Option(min=0, help="Equal seeds write equal samples")] = 0,
    users: Annotated[int, typer.Option(min=1)] = 4000,
    items: Annotated[int, typer.Option(min=40)] = 2000,
    start: Annotated[int, typer.Option(min=0, help="Position to go on from: skips this many samples")] = 0,
    start_time: Annotated[
        int, typer.Option(help="Event time of position 0, ms since the epoch")
    ] = 1_767_225_600_000,  # 2026-01-01T00:00:00Z
    gap: Annotated[float, typer.Option(min=0.001, help="Mean event time between samples, ms")] = 576.0,
    live: Annotated[bool, typer.Option("--live", help="Event time is wall-clock time; needs --rate")] = False,
    format: Annotated[Format, typer.Option(help="One JSON object per sample, or Arrow batches")] = Format.JSON,
    files: Annotated[Path | None, typer.Option(help="Write Parquet files into this folder instead of a topic")] = None,
    redis: Annotated[str | None, typer.Option(help="Feature store to fill, redis://host:port/db")] = None,
    redis_password: Annotated[str | None, typer.Option(envvar="KUBEREC_REDIS_PASSWORD", help="Its password")] = None,
    namespace: Annotated[str, typer.Option(help="Kubernetes namespace in the feature store's keys")] = "default",
    oracle: Annotated[Path | None, typer.Option(help="Write the best possible AUC here (bounded runs)")] = None,
) -> None:
    """Write synthetic impressions and clicks, whose best possible AUC is known, to Kafka or to files."""
    from kuberec_runtime.publish.errors import TierError
    from kuberec_runtime.publish.featurestore import FeatureStore
    from kuberec_runtime.synth import (
        KafkaSink,
        Oracle,
        ParquetSink,
        SinkError,
        Size,
        StoreSink,
        Stream,
        make_world,
        run,
    )

    if live and rate <= 0:
        raise typer.BadParameter("--live needs --rate: event time passes as fast as wall time")
    if oracle is not None and samples == 0:
        raise typer.BadParameter("--oracle needs --samples: an endless stream has no last fifth")
    console = Console(stderr=True)
    try:
        world = make_world(seed, Size(users=users, items=items))
        stream = Stream(world, start_time, gap)
        stream.skip(start)
        if live:
            stream.set_clock(int(time.time() * 1000), 1000 / rate)
        sink: KafkaSink | ParquetSink
        if files is not None:
            sink, where = ParquetSink(world, files), f"folder {files}"
        else:
            sink = KafkaSink(world, bootstrap, topic, partitions, arrow=format is Format.ARROW)
            where = f"topic '{topic}'"
        store = None
        if redis is not None:
            store = StoreSink(world, FeatureStore(redis, namespace, redis_password))
            store.put_entities()
        truth = Oracle() if oracle is not None else None
        with _signals() as stopped:
            done = run(
                stream,
                sink,
                samples=samples,
                rate=rate,
                store=store,
                oracle=truth,
                report=_every(REPORT_SECONDS, console, stream),
                stop=lambda: bool(stopped),
            )
    except (SinkError, TierError, ValueError, OSError) as error:
        console.print(f"[red]{type(error).__name__}[/red]: {error}")
        raise typer.Exit(1) from None
    if truth is not None and oracle is not None:
        oracle.write_text(json.dumps(truth.report().as_json(), indent=1) + "\n")
    console.print(
        f"{done.samples:,} samples in {done.seconds:.1f} s ({done.per_second:,.0f}/s) to {where}; "
        f"go on with --start {stream.position}",
        soft_wrap=True,
    )


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Collects Ctrl-C and SIGTERM in a list, so that what was generated is still delivered."""
    received: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda which, _: received.append(which)) for number in numbers]
    try:
        yield received
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _every(seconds: float, console: Console, stream: "Stream") -> Callable[["Progress"], None]:
    last = time.monotonic()

    def report(progress: "Progress") -> None:
        nonlocal last
        if time.monotonic() - last >= seconds:
            last = time.monotonic()
            console.print(f"{progress.samples:,} samples, {progress.per_second:,.0f}/s, position {stream.position:,}")

    return report
