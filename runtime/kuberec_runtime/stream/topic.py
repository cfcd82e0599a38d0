"""What brokers say of a topic, without reading a record: its partitions, where they start and end, offsets by time.

Also where a first start begins, which is the only time that a broker is asked for an offset.
"""

import os
from collections.abc import Sequence
from datetime import datetime

from confluent_kafka import Consumer, KafkaException, TopicPartition

from kuberec_api.source import KafkaSource as KafkaSpec
from kuberec_api.source import StartFrom, StopAt
from kuberec_runtime.stream.security import Refusals, client_security
from kuberec_runtime.stream.source import (
    OffsetOutOfRangeError,
    PartitionStart,
    Position,
    SourceUnavailableError,
    TopicNotFoundError,
)


def configuration(spec: KafkaSpec) -> dict[str, object]:
    """Settings of a consumer that reads by assignment and commits nothing."""
    return {
        "bootstrap.servers": spec.bootstrap_servers,
        "group.id": "kuberec-offsets-live-in-the-checkpoint",
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "error",
        "enable.partition.eof": True,
        "fetch.wait.max.ms": 100,
        "queued.max.messages.kbytes": 65536,
        "socket.keepalive.enable": True,
        "log_level": 3,
        **client_security(spec.security, os.environ),
    }


def discover(spec: KafkaSpec, known: Sequence[PartitionStart], timeout_s: float = 10.0) -> list[PartitionStart]:
    """Lists the topic's partitions with where each one starts and ends.

    Partitions in `known` (from a manifest) keep their position, and their end while `stopAt` is End. A new one starts
    by `startFrom` if nothing is known yet, else at its earliest record: a partition that appeared later has been read
    by nobody.

    Raises:
        SourceUnavailableError: no broker answers at `bootstrapServers`, or none lets us in.
        TopicNotFoundError: the topic does not exist, or lost a partition that is in `known`.
    """
    refusals = Refusals()
    consumer = Consumer({**configuration(spec), "error_cb": refusals})
    try:
        ids = partitions(consumer, spec, timeout_s)
        by_id = {k.partition: k for k in known}
        at = {} if known else first_offsets(consumer, spec, ids, timeout_s)
        if gone := set(by_id) - set(ids):
            raise TopicNotFoundError(
                f"topic '{spec.topic}' has no partition {min(gone)} any more, but the checkpoint has its offset; "
                "was the topic recreated? A fresh topic needs a fresh checkpoint.uri"
            )
        starts = []
        for partition in ids:
            low, high = watermarks(consumer, spec, partition, timeout_s)
            before = by_id.get(partition)
            end = None
            if spec.stop_at is StopAt.END:
                end = before.end if before is not None and before.end is not None else high
            position = before.position if before is not None else Position(at.get(partition, low))
            if before is None and not low <= position.next <= high:
                raise OffsetOutOfRangeError(
                    f"source.kafka.startOffsets: partition {partition} of topic '{spec.topic}' has no offset "
                    f"{position.next}; it holds {low} to {high - 1}, its end is {high}"
                )
            starts.append(PartitionStart(partition, position, end))
        return starts
    except SourceUnavailableError as error:
        raise refusals.explained(error, consumer, spec.bootstrap_servers) from error
    finally:
        consumer.close()


def first_offsets(consumer: Consumer, spec: KafkaSpec, ids: Sequence[int], timeout_s: float) -> dict[int, int]:
    """Returns where a first start begins, for the partitions for which that is not their earliest record.

    Raises:
        OffsetOutOfRangeError: `startOffsets` names a partition that the topic does not have.
        SourceUnavailableError: the brokers do not answer.
    """
    match spec.start_from:
        case StartFrom.LATEST:
            return {p: watermarks(consumer, spec, p, timeout_s)[1] for p in ids}
        case StartFrom.TIMESTAMP:
            moment = datetime.fromisoformat(spec.start_timestamp or "")
            return offsets_by_time(consumer, spec, ids, int(moment.timestamp() * 1000), timeout_s)
        case StartFrom.OFFSETS:
            given = {int(p): offset for p, offset in spec.start_offsets.items()}
            if strange := sorted(set(given) - set(ids)):
                raise OffsetOutOfRangeError(
                    f"source.kafka.startOffsets: topic '{spec.topic}' has no partition {strange[0]}, it has "
                    f"{len(ids)}: 0 to {ids[-1]}"
                )
            return given
    return {}


def offsets_by_time(
    consumer: Consumer, spec: KafkaSpec, ids: Sequence[int], at_ms: int, timeout_s: float
) -> dict[int, int]:
    """Returns for every partition the offset of its first record at or after `at_ms`, its end if there is none.

    Raises:
        SourceUnavailableError: the brokers do not answer.
    """
    try:
        found = consumer.offsets_for_times([TopicPartition(spec.topic, p, at_ms) for p in ids], timeout=timeout_s)
    except KafkaException as error:
        raise SourceUnavailableError(f"topic '{spec.topic}': {error.args[0].str()}") from error
    at = {}
    for answer in found:
        if answer.error is not None:
            raise SourceUnavailableError(f"topic '{spec.topic}' partition {answer.partition}: {answer.error.str()}")
        p = answer.partition
        at[p] = watermarks(consumer, spec, p, timeout_s)[1] if answer.offset < 0 else int(answer.offset)
    return at


def partitions(consumer: Consumer, spec: KafkaSpec, timeout_s: float) -> list[int]:
    """Lists the topic's partitions, ascending.

    Raises:
        SourceUnavailableError: no broker answers.
        TopicNotFoundError: there is no such topic.
    """
    try:
        topic = consumer.list_topics(spec.topic, timeout=timeout_s).topics[spec.topic]
    except KafkaException as error:
        raise SourceUnavailableError(
            f"no Kafka broker answers at bootstrapServers '{spec.bootstrap_servers}': {error.args[0].str()}"
        ) from error
    if topic.error is not None or not topic.partitions:
        raise TopicNotFoundError(
            f"topic '{spec.topic}' does not exist at '{spec.bootstrap_servers}'; create it or mend source.kafka.topic"
        )
    return sorted(topic.partitions)


def watermarks(consumer: Consumer, spec: KafkaSpec, partition: int, timeout_s: float) -> tuple[int, int]:
    """Returns a partition's earliest offset and its end, the offset of the next record to come.

    Raises:
        SourceUnavailableError: its leader does not answer.
    """
    try:
        low, high = consumer.get_watermark_offsets(TopicPartition(spec.topic, partition), timeout=timeout_s)
    except KafkaException as error:
        raise SourceUnavailableError(f"topic '{spec.topic}' partition {partition}: {error.args[0].str()}") from error
    return int(low), int(high)
