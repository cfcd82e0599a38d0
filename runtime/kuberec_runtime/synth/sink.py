"""Where samples go: a Kafka topic, and the feature store that replicas read users, items and behaviour from.

Messages are keyed by user and all of one user's go to one partition (index modulo partitions, so that they spread
evenly and the order of a user's impressions is kept). The producer is idempotent: a retry neither repeats nor reorders.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from confluent_kafka import KafkaError, KafkaException, Message, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from kuberec_runtime.publish.featurestore import Event, FeatureStore
from kuberec_runtime.synth.encode import ArrowEncoder, JsonEncoder, arrow_message
from kuberec_runtime.synth.stream import ACTIONS, BUY, CLICK, MAX_EVENTS, Samples
from kuberec_runtime.synth.world import World

BEHAVIOR = "clicks"
IN_FLIGHT = 100_000
ARROW_ROWS = 400  # keeps a message below the megabyte that topics allow by default
TIMEOUT_SECONDS = 60.0


class SinkError(Exception):
    """Kafka did not take the samples; the text names the brokers and the topic."""


class KafkaSink:
    """Writes samples of one world to a topic, creating it if it is missing.

    Args:
        world: whose samples.
        bootstrap: `host:port,...` of the brokers.
        topic: its name.
        partitions: how many a new topic gets; an existing topic keeps its own number.
        arrow: Arrow IPC messages (up to 400 samples each) instead of JSON (one per sample).

    Raises:
        SinkError: the brokers cannot be reached, or refuse the topic.
    """

    def __init__(self, world: World, bootstrap: str, topic: str, partitions: int = 4, arrow: bool = False) -> None:
        self._where = f"topic '{topic}' on {bootstrap}"
        self._topic = topic
        self.partitions = self._ensure_topic(bootstrap, topic, partitions)
        self._keys = [key.encode() for key in world.user_keys]
        self._json = None if arrow else JsonEncoder(world)
        self._arrow = ArrowEncoder(world) if arrow else None
        self._failure: KafkaError | None = None
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "enable.idempotence": True,
                "linger.ms": 20,
                "batch.size": 1 << 20,
                "compression.type": "lz4",
                "delivery.report.only.error": True,
                "on_delivery": self._delivered,
                "queue.buffering.max.messages": 2 * IN_FLIGHT,
                "queue.buffering.max.kbytes": 512 << 10,
                "message.timeout.ms": int(TIMEOUT_SECONDS * 1000),
                "log_level": 2,  # what matters arrives as a delivery error
            }
        )

    def send(self, samples: Samples) -> None:
        """Hands samples to the producer, waiting while too many are on their way.

        Raises:
            SinkError: earlier ones could not be delivered.
        """
        messages = self._as_json(samples) if self._json is not None else self._as_arrow(samples)
        while len(self._producer) > IN_FLIGHT:
            self._producer.poll(0.05)
            self._check()
        self._producer.produce_batch(self._topic, messages)
        if failed := next((message["_error"] for message in messages if "_error" in message), None):
            raise SinkError(f"{self._where}: cannot queue samples: {failed}")
        self._producer.poll(0)
        self._check()

    def flush(self) -> None:
        """Returns once the brokers have everything.

        Raises:
            SinkError: they do not take it.
        """
        left = self._producer.flush(TIMEOUT_SECONDS)
        self._check()
        if left:
            raise SinkError(f"{self._where}: {left} messages were not acknowledged within {TIMEOUT_SECONDS:.0f} s")

    def _as_json(self, samples: Samples) -> list[dict[str, Any]]:
        assert self._json is not None
        body, offsets = self._json.encode(samples)
        ends = offsets.tolist()
        partitions = (samples.user % self.partitions).tolist()
        keys = self._keys
        return [
            {"value": body[ends[k] : ends[k + 1]], "key": keys[user], "partition": partitions[k]}
            for k, user in enumerate(samples.user.tolist())
        ]

    def _as_arrow(self, samples: Samples) -> list[dict[str, Any]]:
        assert self._arrow is not None
        table = self._arrow.encode(samples)
        partition_of = samples.user % self.partitions
        messages = []
        for partition in range(self.partitions):
            rows = np.flatnonzero(partition_of == partition)
            for first in range(0, len(rows), ARROW_ROWS):
                body = arrow_message(table.take(rows[first : first + ARROW_ROWS]))
                messages.append({"value": body, "partition": partition})
        return messages

    def _delivered(self, error: KafkaError | None, _: Message) -> None:
        if error is not None and self._failure is None:
            self._failure = error

    def _check(self) -> None:
        if self._failure is not None:
            raise SinkError(f"{self._where}: samples were not delivered: {self._failure.str()}")

    def _ensure_topic(self, bootstrap: str, topic: str, partitions: int) -> int:
        admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 2})
        wanted = NewTopic(topic, num_partitions=partitions, replication_factor=-1)
        try:
            admin.create_topics([wanted], request_timeout=TIMEOUT_SECONDS)[topic].result()  # bounded by the request
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise SinkError(f"{self._where}: cannot create the topic: {error.args[0].str()}") from error
            return self._partitions_of(admin, topic)
        return partitions

    def _partitions_of(self, admin: AdminClient, topic: str) -> int:
        try:
            return len(admin.list_topics(topic, timeout=TIMEOUT_SECONDS).topics[topic].partitions)
        except KafkaException as error:
            raise SinkError(f"{self._where}: cannot look the topic up: {error.args[0].str()}") from error


class StoreSink:
    """Writes entities once, and behaviour as it happens, into the feature store."""

    def __init__(self, world: World, store: FeatureStore) -> None:
        self._world = world
        self._store = store

    def put_entities(self) -> None:
        """Writes the fields of all users and items."""
        world = self._world
        self._store.put_users({key: world.user_fields(index) for index, key in enumerate(world.user_keys)})
        self._store.put_items({key: world.item_fields(index) for index, key in enumerate(world.item_keys)})

    def append(self, samples: Samples) -> None:
        """Appends what the users of these samples did to their behaviour."""
        keys, items = self._world.user_keys, self._world.item_keys

        def events() -> Iterator[Event]:
            for k in np.flatnonzero(samples.click).tolist():
                user, item, now = keys[samples.user[k]], items[samples.item[k]], int(samples.now[k])
                yield Event(user, item, ACTIONS[CLICK], now)
                if samples.buy[k]:
                    yield Event(user, item, ACTIONS[BUY], now)

        self._store.append_behavior(BEHAVIOR, events(), cap=MAX_EVENTS)
