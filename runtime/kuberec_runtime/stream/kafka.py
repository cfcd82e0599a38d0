"""Kafka as a source: manual assignment, no consumer group, no auto-commit; offsets belong to the checkpoint.

The broker is never asked where to go on. `auto.offset.reset=error` makes an expired offset an error instead of a jump.
"""

import logging
from collections import Counter, deque
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from numpy.typing import NDArray

from kuberec_api.source import KafkaSource as KafkaSpec
from kuberec_api.source import OnBadRecord, OnOffsetOutOfRange, StopAt
from kuberec_runtime.spans import span
from kuberec_runtime.stream.chunk import Chunk, Taken
from kuberec_runtime.stream.decode import Decoder
from kuberec_runtime.stream.order import ByWhatIsLeft
from kuberec_runtime.stream.source import (
    BadRecordError,
    Batch,
    OffsetOutOfRangeError,
    PartitionStart,
    Position,
    SourceUnavailableError,
    TopicNotFoundError,
)
from kuberec_runtime.stream.tabular import DecodeError
from kuberec_runtime.stream.topic import configuration, watermarks

_OUT_OF_RANGE = {KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE}
_NO_TOPIC = {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION}
_BAD_RECORDS_KEPT = 5
_MOST_REFUSALS = 5
TIMEOUT_S = 10.0
MOST_WAITING = 16 << 20
"""Bytes of one partition's messages that wait for their turn in Sync mode."""

logger = logging.getLogger(__name__)


class KafkaSource:
    """A worker's partitions of one topic. Implements `Source`; used by one thread.

    With `in_order`, batches of bounded partitions are a function of positions alone: they follow `stream.order`, and
    all but the last are full. A partition of which `most_waiting` bytes wait for others is paused until half of them
    are taken, so one that stalls does not let the others fill the memory.
    """

    def __init__(
        self,
        spec: KafkaSpec,
        schema: pa.Schema,
        starts: Sequence[PartitionStart],
        batch_size: int,
        in_order: bool = False,
        settings: Mapping[str, object] | None = None,
        most_waiting: int = MOST_WAITING,
    ) -> None:
        self._spec, self._batch_size = spec, batch_size
        self._decoder = Decoder(schema, spec.format, spec.csv)
        self._starts = {s.partition: s for s in starts}
        self._position = {s.partition: s.position.next for s in starts}
        self._resumed = {s.partition: s.position for s in starts if s.position.skip}  # inside a message, not read yet
        self._open = {s.partition for s in starts if s.end is not None and s.position.next < s.end}
        ends = {s.partition: s.end for s in starts if s.end is not None}
        # Without any partition there is nothing to end, unless nothing will ever come: growth may bring some.
        self._bounded = len(ends) == len(starts) and (bool(starts) or spec.stop_at is StopAt.END)
        self._refused: dict[int, str] = {}
        self._refusals: Counter[tuple[int, int]] = Counter()
        self._order = ByWhatIsLeft(ends) if in_order and self._bounded else None
        self._most_waiting, self._paused = most_waiting, set[int]()
        self._chunks: deque[Chunk] = deque()
        self._bad: deque[str] = deque(maxlen=_BAD_RECORDS_KEPT)
        self._consumer = Consumer({**configuration(spec), **(settings or {})})
        self._assign()

    def poll(self, timeout_s: float) -> Batch | None:
        """See `Source.poll`. Raises the errors of `kuberec_runtime.stream.source`."""
        if sum(c.left for c in self._chunks) < self._batch_size:
            self._fetch(self._batch_size, timeout_s)
        if self._order is not None and self._open and sum(c.left for c in self._chunks) < self._batch_size:
            return None
        pieces: list[Taken] = []
        need = self._batch_size
        while self._chunks and need > 0:
            pieces.append(self._chunks[0].take(need))
            need -= pieces[-1].table.num_rows
            if not self._chunks[0].empty:
                break
            self._chunks.popleft()
        return _join(pieces) if pieces else None

    @property
    def bounded(self) -> bool:
        """See `Source.bounded`."""
        return self._bounded

    @property
    def finished(self) -> bool:
        """See `Source.finished`."""
        return self._bounded and not self._open and not self._chunks

    def lag(self) -> int | None:
        """See `Source.lag`."""
        total = 0
        for partition, position in self._position.items():
            try:
                _, high = self._consumer.get_watermark_offsets(TopicPartition(self._spec.topic, partition), cached=True)
            except KafkaException:
                return None
            if high < 0:
                return None
            total += max(0, high - position)
        return total

    def add(self, starts: Sequence[PartitionStart]) -> None:
        """See `Source.add`."""
        for start in starts:
            self._starts[start.partition] = start
            self._position[start.partition] = start.position.next
        self._assign()

    def bad_records(self) -> list[str]:
        """See `Source.bad_records`."""
        return list(self._bad)

    def close(self) -> None:
        """See `Source.close`."""
        self._consumer.close()

    def _fetch(self, count: int, timeout_s: float) -> None:
        if self._bounded and not self._open:
            return
        messages = [m for m in self._consumer.consume(count, timeout=timeout_s) if self._is_record(m)]
        if self._order is not None:
            messages = self._order.release(messages, self._position, self._open)
            self._hold_back(self._order.waiting)
        if messages:
            with span("decode"):
                self._chunks.append(self._decode(messages))
        if self._refused:
            self._settle_refused()

    def _hold_back(self, waiting: Mapping[int, int]) -> None:
        """Pauses partitions that are too far ahead, and lets those go on that are not any more."""
        full = {p for p in self._open - self._paused if waiting[p] >= self._most_waiting}
        free = {p for p in self._paused if waiting[p] <= self._most_waiting // 2}
        if full:
            self._consumer.pause([TopicPartition(self._spec.topic, p) for p in full])
        if free:
            self._consumer.resume([TopicPartition(self._spec.topic, p) for p in free])
        self._paused = (self._paused | full) - free

    def _assign(self) -> None:
        """Reads every partition from the offset behind the last message that was taken from it."""
        if self._paused:
            self._consumer.resume([TopicPartition(self._spec.topic, p) for p in self._paused])
            self._paused.clear()
        self._consumer.assign([TopicPartition(self._spec.topic, p, at) for p, at in self._position.items()])

    def _settle_refused(self) -> None:
        """Goes on at the earliest record where the broker has deleted what was to be read, and counts what it was.

        The broker is asked what it has: the client also reports an offset as missing when it only got lost between a
        pause and the resume after it. Such an offset is asked for again.
        """
        for partition, why in sorted(self._refused.items()):
            was = self._position[partition]
            low, high = watermarks(self._consumer, self._spec, partition, TIMEOUT_S)
            self._refusals[partition, was] += 1
            if low <= was <= high and self._refusals[partition, was] < _MOST_REFUSALS:
                logger.warning(
                    "topic '%s' partition %d: offset %d was refused (%s) and is there (%d to %d); asking again",
                    *(self._spec.topic, partition, was, why, low, high),
                )
            elif low <= was or self._spec.on_offset_out_of_range is OnOffsetOutOfRange.FAIL:
                raise self._out_of_range(partition)
            else:
                self._pass_over(partition, low)
        self._refused.clear()
        self._assign()

    def _pass_over(self, partition: int, low: int) -> None:
        start, was = self._starts[partition], self._position[partition]
        to = low if start.end is None else min(low, start.end)
        text = f"topic '{self._spec.topic}' partition {partition}: {to - was} records expired before they were read"
        logger.error("%s (offsets %d to %d); going on at %d", text, was, to - 1, to)
        self._bad.append(f"{text} (offsets {was} to {to - 1})")
        message = np.array([[partition], [to - 1], [0], [0], [to - was]], np.int64)
        p, offset, rows, before, lost = message
        self._chunks.append(Chunk(self._decoder.empty(), p, offset, rows, before, lost))
        self._position[partition] = to
        self._resumed.pop(partition, None)
        if start.end is not None and to >= start.end:
            self._open.discard(partition)

    def _out_of_range(self, partition: int) -> OffsetOutOfRangeError:
        door = f" --kafka-security {self._spec.security.protocol.value}" if self._spec.security is not None else ""
        return OffsetOutOfRangeError(
            f"topic '{self._spec.topic}' partition {partition}: offset {self._position[partition]} is not on the "
            "broker any more (retention was shorter than the pause); nothing was skipped: to go on from the "
            f"earliest record, run `kuberec offsets reset <checkpoint.uri> --to offsets:{partition}=earliest "
            f"--kafka <bootstrapServers>{door}`, then start the training again; or set "
            "source.kafka.onOffsetOutOfRange: Earliest, which counts what it passes over"
        )

    def _is_record(self, message: Message) -> bool:
        partition, error = message.partition(), message.error()
        if error is None:
            end = self._starts[partition].end
            if end is not None and message.offset() >= end:
                self._open.discard(partition)
                return False
            self._position[partition] = message.offset() + 1
            if end is not None and message.offset() + 1 >= end:
                self._open.discard(partition)
            return True
        code = error.code()
        if code == KafkaError._PARTITION_EOF:
            end = self._starts[partition].end
            if end is not None and message.offset() >= end:
                self._open.discard(partition)
        elif code in _OUT_OF_RANGE:
            self._refused[partition] = error.str()
        elif code in _NO_TOPIC:
            raise TopicNotFoundError(f"topic '{self._spec.topic}' does not exist any more: {error.str()}")
        elif error.fatal():
            raise SourceUnavailableError(f"topic '{self._spec.topic}': {error.str()}")
        return False

    def _decode(self, messages: Sequence[Message]) -> Chunk:
        partition = np.array([m.partition() for m in messages], np.int64)
        offset = np.array([m.offset() for m in messages], np.int64)
        before = np.zeros(len(messages), np.int64)
        bad = np.zeros(len(messages), np.bool_)
        try:
            table, rows = self._decoder.many([m.value() or b"" for m in messages])
        except DecodeError:
            table, rows = self._one_by_one(messages, bad)
        counts = np.array(rows, np.int64)
        for partition_id, position in list(self._resumed.items()):
            first = np.flatnonzero((partition == partition_id) & (offset == position.next))
            if first.size:
                m = int(first[0])
                table = _without(table, int(counts[:m].sum()), position.skip)
                before[m] = position.skip
                counts[m] -= position.skip
                del self._resumed[partition_id]
        return Chunk(table, partition, offset, counts, before, bad)

    def _one_by_one(self, messages: Sequence[Message], bad: NDArray[np.bool_]) -> tuple[pa.Table, list[int]]:
        tables, rows = [self._decoder.empty()], []
        for i, message in enumerate(messages):
            try:
                table = self._decoder.one(message.value() or b"")
            except DecodeError as error:
                where = f"topic '{self._spec.topic}' partition {message.partition()} offset {message.offset()}"
                if self._spec.on_bad_record is OnBadRecord.FAIL:
                    raise BadRecordError(
                        f"{where}: {error}\n  to pass over such records (counted in status) set "
                        "spec.source.kafka.onBadRecord: Skip"
                    ) from error
                self._bad.append(f"{where}: {error}")
                bad[i] = True
                table = self._decoder.empty()
            tables.append(table)
            rows.append(table.num_rows)
        return pa.concat_tables(tables), rows


def _without(table: pa.Table, start: int, count: int) -> pa.Table:
    return pa.concat_tables([table.slice(0, start), table.slice(start + count)])


def _join(pieces: Sequence[Taken]) -> Batch:
    positions: dict[int, Position] = {}
    samples: dict[int, int] = {}
    skipped: dict[int, int] = {}
    for piece in pieces:
        positions.update(piece.positions)
        for partition, n in piece.samples.items():
            samples[partition] = samples.get(partition, 0) + n
        for partition, n in piece.skipped.items():
            skipped[partition] = skipped.get(partition, 0) + n
    table = pa.concat_tables([p.table for p in pieces]).combine_chunks()
    newest = pc.max(table.column("now")).as_py() if table.num_rows else None
    return Batch(table, positions, samples, skipped, newest or 0)
