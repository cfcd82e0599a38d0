"""What a topic holds, without reading a record: each partition's earliest offset and end, and offsets by time."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from confluent_kafka import Consumer
from pydantic import ValidationError

from kuberec_api.source import KafkaSource as KafkaSpec
from kuberec_runtime.stream.kafka import configuration, offsets_by_time, partitions, watermarks
from kuberec_runtime.stream.source import SourceUnavailableError

TIMEOUT_S = 10.0


class Ends(NamedTuple):
    """A partition's oldest record that is still there, and the offset of the next record to come."""

    earliest: int
    latest: int


def read_ends(bootstrap_servers: str, topic: str, timeout_s: float = TIMEOUT_S) -> dict[int, Ends]:
    """Returns the ends of every partition of a topic.

    Raises:
        SourceUnavailableError: no broker answers at `bootstrap_servers`.
        TopicNotFoundError: there is no such topic.
    """
    with _consumer(bootstrap_servers, topic) as (consumer, spec):
        return {p: Ends(*watermarks(consumer, spec, p, timeout_s)) for p in partitions(consumer, spec, timeout_s)}


def offsets_at(bootstrap_servers: str, topic: str, at_ms: int, timeout_s: float = TIMEOUT_S) -> dict[int, int]:
    """Returns for every partition the offset of its first record whose Kafka timestamp is at or after `at_ms`.

    A time behind the newest record means the partition's end.

    Args:
        bootstrap_servers: host:port,...
        topic: its name.
        at_ms: milliseconds since the epoch.
        timeout_s: for each question to the brokers.

    Raises:
        SourceUnavailableError, TopicNotFoundError: as `read_ends`.
    """
    with _consumer(bootstrap_servers, topic) as (consumer, spec):
        return offsets_by_time(consumer, spec, partitions(consumer, spec, timeout_s), at_ms, timeout_s)


@contextmanager
def _consumer(bootstrap_servers: str, topic: str) -> Iterator[tuple[Consumer, KafkaSpec]]:
    try:
        spec = KafkaSpec(bootstrap_servers=bootstrap_servers, topic=topic)
    except ValidationError as error:
        raise SourceUnavailableError(f"brokers '{bootstrap_servers}', topic '{topic}': {error}") from error
    # A broker that does not answer is told once, by the error; librdkafka would log every try.
    consumer = Consumer({**configuration(spec), "log_level": 0})
    try:
        yield consumer, spec
    finally:
        consumer.close()
