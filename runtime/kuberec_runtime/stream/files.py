"""A worker's share of files: units one after the other, read ahead by a thread into a bounded queue.

A unit that is cut in the middle is read again from the piece that holds the row; what a manifest says was applied is
dropped before anybody sees it. A file that is not the listed one any more ends the attempt before a row of it counts.
"""

import queue
import threading
from collections import deque
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from kuberec_api.source import Csv, FilesFormat, OnBadRecord
from kuberec_api.source import FilesSource as FilesSpec
from kuberec_runtime.stream.csvrows import CsvDecoder
from kuberec_runtime.stream.pieces import Piece, PieceBuffer
from kuberec_runtime.stream.samplefiles import open_unit
from kuberec_runtime.stream.source import BadRecordError, Batch, PartitionStart, Position, SchemaError, Unit
from kuberec_runtime.stream.tabular import ColumnError, DecodeError, Fitting, conform, fitting
from kuberec_runtime.stream.units import READ_ROWS, csv_columns, csv_lines, read_unit

QUEUED_PIECES = 4
_BAD_RECORDS_KEPT = 5
_WAIT_S = 0.2


class FileSource:
    """Units of files. Implements `Source`; `poll` and the counters are for one thread, a second one reads ahead.

    Batches are pieces of the same rows in the same order every time; with `in_order` all but the last are full, too.
    """

    def __init__(
        self,
        spec: FilesSpec,
        schema: pa.Schema,
        starts: Sequence[PartitionStart],
        batch_size: int,
        in_order: bool = False,
    ) -> None:
        self._spec, self._schema, self._batch_size, self._in_order = spec, schema, batch_size, in_order
        self._starts = [s for s in starts if not s.done]
        self._buffer = PieceBuffer()
        self._queue: queue.Queue[Piece | BaseException | None] = queue.Queue(QUEUED_PIECES)
        self._closing = threading.Event()
        self._ended = not self._starts
        self._bad: deque[str] = deque(maxlen=_BAD_RECORDS_KEPT)
        self._left = {s.partition: s.unit for s in self._starts if s.unit is not None}
        self._rows = {s.partition: s.position.skip for s in self._starts}
        self._read_rows = self._read_bytes = 0
        self._thread = threading.Thread(target=self._read_ahead, name="files", daemon=True)
        self._thread.start()

    def poll(self, timeout_s: float) -> Batch | None:
        """See `Source.poll`. Raises the errors of `kuberec_runtime.stream.source`."""
        wait = timeout_s
        while not self._ended and self._buffer.samples < self._batch_size:
            try:
                item = self._queue.get(timeout=wait) if wait else self._queue.get_nowait()
            except queue.Empty:
                break
            if isinstance(item, BaseException):
                raise item
            if item is None:
                self._ended = True
            else:
                self._buffer.add(item)
                wait = timeout_s if self._buffer.samples < self._batch_size else 0.0
        if self._in_order and not self._ended and self._buffer.samples < self._batch_size:
            return None
        batch = self._buffer.take(self._batch_size)
        if batch is not None:
            for partition, position in batch.positions.items():
                self._moved(partition, position, batch)
        return batch

    @property
    def bounded(self) -> bool:
        """See `Source.bounded`."""
        return True

    @property
    def finished(self) -> bool:
        """See `Source.finished`."""
        return self._ended and self._buffer.empty

    def lag(self) -> int | None:
        """Rows left; where only reading tells how many a unit has, by its bytes and the rows a byte so far."""
        left, unknown = 0, 0
        for partition, unit in self._left.items():
            if unit.rows is not None:
                left += max(0, unit.rows - self._rows[partition])
            else:
                unknown += unit.bytes
        if not unknown:
            return left
        return left + int(unknown * self._read_rows / self._read_bytes) if self._read_bytes else None

    def bad_records(self) -> Sequence[str]:
        """See `Source.bad_records`."""
        return list(self._bad)

    def add(self, starts: Sequence[PartitionStart]) -> None:
        """See `Source.add`."""
        raise NotImplementedError("the list of files is fixed at the first start")

    def close(self) -> None:
        """See `Source.close`."""
        self._closing.set()
        self._thread.join(timeout=5)

    def _moved(self, partition: int, position: Position, batch: Batch) -> None:
        unit = self._left.get(partition)
        before = self._rows[partition]
        self._rows[partition] = position.skip
        if position.next and unit is not None:
            del self._left[partition]
            self._read_rows += before + batch.samples.get(partition, 0) + batch.skipped.get(partition, 0)
            self._read_bytes += unit.bytes

    def _read_ahead(self) -> None:
        try:
            for start in self._starts:
                assert start.unit is not None
                for piece in _marked(self._pieces(start.partition, start.unit, start.position.skip)):
                    if not self._hand_over(piece.after(start.position.skip)):
                        return
            self._hand_over(None)
        except BaseException as error:
            self._hand_over(error)

    def _hand_over(self, item: Piece | BaseException | None) -> bool:
        while not self._closing.is_set():
            try:
                self._queue.put(item, timeout=_WAIT_S)
                return True
            except queue.Full:
                continue
        return False

    def _pieces(self, partition: int, unit: Unit, skip: int) -> Iterator[Piece]:
        """Pieces of a unit, at least one."""
        with open_unit(unit) as file:
            try:
                if self._spec.format is FilesFormat.CSV:
                    yield from self._csv_pieces(partition, unit, file)
                    return
                empty = True
                for first, table in read_unit(unit, file, self._spec.format, self._schema.names, skip):
                    empty = False
                    found = fitting(table, lambda t: conform(t, self._schema))
                    yield self._piece(partition, unit, first, table.num_rows, found)
                if empty:
                    yield self._nothing(partition)
            except (ColumnError, pa.ArrowException) as error:
                raise SchemaError(f"{unit.name}: {error}") from error

    def _csv_pieces(self, partition: int, unit: Unit, file: pa.NativeFile) -> Iterator[Piece]:
        options = self._spec.csv or Csv()
        decoder = CsvDecoder(self._schema, options, csv_columns(file, options))
        try:
            lines = decoder.lines(csv_lines(unit, file, options))
        except DecodeError as error:
            raise SchemaError(f"{unit.name}: {error}") from error
        texts, at = lines.table, np.arange(lines.table.num_rows + len(lines.malformed))
        wrong = np.array([row for row, _ in lines.malformed], np.int64)
        at = np.delete(at, wrong)  # where in the unit each well-formed line stands
        total = lines.table.num_rows + len(wrong)
        if total == 0:
            yield self._nothing(partition)
        for first in range(0, total, READ_ROWS):
            stop = min(first + READ_ROWS, total)
            low, high = (int(x) for x in np.searchsorted(at, (first, stop)))
            found = fitting(texts.slice(low, high - low), decoder.samples)
            where = at[low:high] - first
            bad = [(int(where[row]), why) for row, why in found.bad]
            bad += [(row - first, why) for row, why in lines.malformed if first <= row < stop]
            moved = Fitting(found.table, where[found.at], sorted(bad))
            yield self._piece(partition, unit, first, stop - first, moved)

    def _piece(self, partition: int, unit: Unit, first: int, rows: int, found: Fitting) -> Piece:
        for row, why in found.bad:
            where = f"{unit.name} row {first + row}: {why}"
            if self._spec.on_bad_record is OnBadRecord.FAIL:
                raise BadRecordError(
                    f"{where}\n  to pass over such records (counted in status) set spec.source.files.onBadRecord: Skip"
                )
            self._bad.append(where)
        bad = np.array([row for row, _ in found.bad], np.int64)
        return Piece(partition, first, rows, found.table, found.at, bad)

    def _nothing(self, partition: int) -> Piece:
        return Piece(partition, 0, 0, self._schema.empty_table(), np.empty(0, np.int64))


def _marked(pieces: Iterator[Piece]) -> Iterator[Piece]:
    """Marks the last one, which takes knowing that none follows."""
    held: Piece | None = None
    for piece in pieces:
        if held is not None:
            yield held
        held = piece
    if held is not None:
        held.last = True
        yield held
