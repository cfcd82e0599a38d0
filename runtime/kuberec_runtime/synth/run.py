"""Generate, encode, send: one loop for a bounded backfill, for an endless live stream, and for one after the other."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from kuberec_runtime.synth.filesink import ParquetSink
from kuberec_runtime.synth.oracle import Oracle
from kuberec_runtime.synth.sink import KafkaSink, StoreSink
from kuberec_runtime.synth.stream import Samples, Stream

BATCH = 10_000
LIVE_BATCH_SECONDS = 0.1


@dataclass(frozen=True)
class Progress:
    """What has been sent so far."""

    samples: int
    seconds: float

    @property
    def per_second(self) -> float:
        """Mean rate since the start."""
        return self.samples / self.seconds if self.seconds else 0.0


def paced(stream: Stream, samples: int, rate: float, stop: Callable[[], bool] = lambda: False) -> Iterator[Samples]:
    """Yields batches of the stream.

    Args:
        stream: what to read.
        samples: how many in total; 0 is endless.
        rate: samples per second of wall time; 0 is as fast as they are taken.
        stop: asked before each batch.
    """
    size = BATCH if rate <= 0 else max(1, min(BATCH, round(rate * LIVE_BATCH_SECONDS)))
    started = time.monotonic()
    sent = 0
    while not stop() and (samples == 0 or sent < samples):
        count = size if samples == 0 else min(size, samples - sent)
        if rate > 0 and (early := started + (sent + count) / rate - time.monotonic()) > 0:
            time.sleep(early)
        yield stream.batch(count)
        sent += count


def run(
    stream: Stream,
    sink: KafkaSink | ParquetSink,
    *,
    samples: int,
    rate: float = 0.0,
    store: StoreSink | None = None,
    oracle: Oracle | None = None,
    report: Callable[[Progress], None] = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
) -> Progress:
    """Sends samples until there are enough, or `stop` says so; returns once the sink has all of them.

    Args:
        stream: what to send, from its present position.
        sink: where to.
        samples: how many; 0 is endless.
        rate: samples per second of wall time; 0 is as fast as possible.
        store: keeps the users' behaviour up to date as well.
        oracle: collects the truth.
        report: called after every batch.
        stop: asked before every batch.

    Raises:
        SinkError: Kafka does not take the samples.
    """
    started = time.monotonic()
    sent = 0
    for batch in paced(stream, samples, rate, stop):
        sink.send(batch)
        if store is not None:
            store.append(batch)
        if oracle is not None:
            oracle.add(batch)
        sent += len(batch)
        report(Progress(sent, time.monotonic() - started))
    sink.flush()
    return Progress(sent, time.monotonic() - started)
