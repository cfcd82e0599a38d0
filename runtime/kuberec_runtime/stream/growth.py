"""Watches a topic for partitions that it gets while a training runs, in a thread: asking brokers may take its time.

A new partition has been read by nobody, so it starts at its earliest record. The driver commits that start before any
worker reads from it, and so no restart can begin anywhere else.
"""

import logging
import threading
from collections.abc import Iterable

from confluent_kafka import Consumer

from kuberec_api.source import KafkaSource as KafkaSpec
from kuberec_runtime.stream.source import PartitionStart, Position, SourceError
from kuberec_runtime.stream.topic import configuration, partitions, watermarks

EVERY_S = 30.0
TIMEOUT_S = 10.0
CLOSE_S = 1.0

logger = logging.getLogger(__name__)


class PartitionWatch:
    """Looks at a topic every `every_s` seconds until it is closed.

    Args:
        spec: the topic; one that ends gets no further partitions and needs no watch.
        known: partitions that are read already.
        every_s: seconds between two looks.
    """

    def __init__(self, spec: KafkaSpec, known: Iterable[int], every_s: float = EVERY_S) -> None:
        self._spec, self._every = spec, every_s
        self._known = set(known)
        self._new: list[PartitionStart] = []
        self._lock, self._closing = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._watch, name="partitions", daemon=True)
        self._thread.start()

    def take(self) -> list[PartitionStart]:
        """Returns the partitions that appeared since the last call, ascending."""
        with self._lock:
            new, self._new = self._new, []
        return new

    def close(self) -> None:
        """Stops looking; a look that waits for brokers ends by itself, nobody waits for it."""
        self._closing.set()
        self._thread.join(timeout=CLOSE_S)

    def _watch(self) -> None:
        consumer = Consumer(configuration(self._spec))
        try:
            while not self._closing.wait(self._every):
                try:
                    self._look(consumer)
                except SourceError as error:  # the workers notice it too; here it can wait
                    logger.warning("looking for new partitions: %s", error)
        finally:
            consumer.close()

    def _look(self, consumer: Consumer) -> None:
        for partition in partitions(consumer, self._spec, TIMEOUT_S):
            if partition in self._known:
                continue
            low, _ = watermarks(consumer, self._spec, partition, TIMEOUT_S)
            self._known.add(partition)
            with self._lock:
                self._new.append(PartitionStart(partition, Position(low)))
