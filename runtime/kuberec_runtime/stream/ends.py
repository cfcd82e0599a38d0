"""What a topic holds, without reading a record: each partition's earliest offset and end, and offsets by time."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

from confluent_kafka import Consumer, KafkaException
from pydantic import ValidationError

from kuberec_api.source import KafkaSource as KafkaSpec
from kuberec_runtime.stream.security import KafkaPropertiesError, Refusals
from kuberec_runtime.stream.source import SourceUnavailableError
from kuberec_runtime.stream.topic import configuration, offsets_by_time, partitions, watermarks

TIMEOUT_S = 10.0
Settings = Mapping[str, object]
PLAIN: Settings = {}


class Ends(NamedTuple):
    """A partition's oldest record that is still there, and the offset of the next record to come."""

    earliest: int
    latest: int


def read_ends(
    bootstrap_servers: str, topic: str, timeout_s: float = TIMEOUT_S, settings: Settings = PLAIN
) -> dict[int, Ends]:
    """Returns the ends of every partition of a topic.

    Args:
        bootstrap_servers: host:port,...
        topic: its name.
        timeout_s: for each question to the brokers.
        settings: of librdkafka, by which the brokers let us in.

    Raises:
        SourceUnavailableError: no broker answers at `bootstrap_servers`, or none lets us in.
        TopicNotFoundError: there is no such topic.
        KafkaPropertiesError: librdkafka knows no such setting.
    """
    with _consumer(bootstrap_servers, topic, settings) as (consumer, spec):
        return {p: Ends(*watermarks(consumer, spec, p, timeout_s)) for p in partitions(consumer, spec, timeout_s)}


def offsets_at(
    bootstrap_servers: str, topic: str, at_ms: int, timeout_s: float = TIMEOUT_S, settings: Settings = PLAIN
) -> dict[int, int]:
    """Returns for every partition the offset of its first record whose Kafka timestamp is at or after `at_ms`.

    A time behind the newest record means the partition's end.

    Args:
        bootstrap_servers: host:port,...
        topic: its name.
        at_ms: milliseconds since the epoch.
        timeout_s: for each question to the brokers.
        settings: as of `read_ends`, as are the errors.
    """
    with _consumer(bootstrap_servers, topic, settings) as (consumer, spec):
        return offsets_by_time(consumer, spec, partitions(consumer, spec, timeout_s), at_ms, timeout_s)


@contextmanager
def _consumer(bootstrap_servers: str, topic: str, settings: Settings) -> Iterator[tuple[Consumer, KafkaSpec]]:
    try:
        spec = KafkaSpec(bootstrap_servers=bootstrap_servers, topic=topic)
    except ValidationError as error:
        raise SourceUnavailableError(f"brokers '{bootstrap_servers}', topic '{topic}': {error}") from error
    # A broker that does not answer is told once, by the error; librdkafka would log every try.
    refusals = Refusals()
    try:
        consumer = Consumer({**configuration(spec), "log_level": 0, "error_cb": refusals, **settings})
    except KafkaException as error:
        raise KafkaPropertiesError(f"settings for brokers '{bootstrap_servers}': {error.args[0].str()}") from error
    try:
        yield consumer, spec
    except SourceUnavailableError as error:
        raise refusals.explained(error, consumer, bootstrap_servers) from error
    finally:
        consumer.close()
