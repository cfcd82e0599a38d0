"""The seam between training and its samples: batches that carry the positions after them.

Invariant: a `Batch` and its `positions` belong together. Resuming a source at the positions of the last batch that was
applied yields exactly the samples that were not applied yet: none lost, none twice. A position is the *next* offset to
read plus the samples of that very message which were consumed already (a message may hold many samples).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import pyarrow as pa


class Position(NamedTuple):
    """Where to go on in a partition: next offset to read, and samples of that message to drop first."""

    next: int
    skip: int = 0


@dataclass(frozen=True)
class Unit:
    """A part of a file that one worker reads from front to back; a partition of a files source is one unit.

    Attributes:
        uri: the file, whole.
        size: bytes of the file; version: its etag, or what a local directory has instead.
        first, count: row groups (Parquet), record batches (Arrow), bytes (Csv); a count of 0 means the whole file.
        rows: samples in it, None if only reading it tells; bytes: about how many it takes up in the file.
    """

    uri: str
    size: int
    version: str
    first: int = 0
    count: int = 0
    rows: int | None = None
    bytes: int = 0

    @property
    def name(self) -> str:
        """What people read in tables and errors."""
        return f"{self.uri}#{self.first}+{self.count}" if self.count else self.uri


@dataclass(frozen=True)
class PartitionStart:
    """One partition as a worker gets it: where it resumes, and the offset before which it ends (None: never).

    A `unit` of a file is a partition with one message of many samples: it ends at 1, `position.skip` is the row.
    """

    partition: int
    position: Position
    end: int | None = None
    unit: Unit | None = None

    @property
    def done(self) -> bool:
        """True if nothing is left to read, now and for ever."""
        return self.end is not None and self.position.next >= self.end


def shares(starts: Sequence[PartitionStart], workers: int) -> list[list[PartitionStart]]:
    """Deals what is left to read out to workers, round robin: few partitions spread evenly, files stay in order."""
    left = [s for s in starts if not s.done]
    return [left[i::workers] for i in range(workers)]


@dataclass(frozen=True)
class Batch:
    """Samples in source order.

    Attributes:
        table: n samples in the plan's flat schema; n may be 0 when only bad records were passed over.
        positions: per partition touched, where to go on after this batch.
        samples: per partition, samples in `table`.
        skipped: per partition, bad records passed over (`onBadRecord: Skip`).
        watermark_ms: newest event time (`now`) in the batch, 0 if empty.
    """

    table: pa.Table
    positions: Mapping[int, Position]
    samples: Mapping[int, int]
    skipped: Mapping[int, int] = field(default_factory=dict)
    watermark_ms: int = 0


class Source(Protocol):
    """A worker's share of the samples."""

    def poll(self, timeout_s: float) -> Batch | None:
        """Returns the next batch, or None if nothing came in time. A short batch is returned rather than held back."""

    @property
    def bounded(self) -> bool:
        """True if it will be finished one day: a batch that is not there yet is worth waiting for."""

    @property
    def finished(self) -> bool:
        """True when every bounded partition has been read to its end."""

    def lag(self) -> int | None:
        """Records behind the end of the partitions, None while unknown."""

    def add(self, starts: Sequence[PartitionStart]) -> None:
        """Takes further partitions; called by the thread that polls."""

    def bad_records(self) -> Sequence[str]:
        """The last few bad records that were skipped, as readable text."""

    def close(self) -> None:
        """Releases connections."""


class SourceError(Exception):
    """Something about the source of samples; `reason` is the CamelCase word for conditions."""

    reason = "SourceFailed"
    permanent = False


class SourceUnavailableError(SourceError):
    """The brokers do not answer."""

    reason = "SourceUnavailable"


class TopicNotFoundError(SourceError):
    """The topic does not exist."""

    reason = "TopicNotFound"


class BadRecordError(SourceError):
    """A record that does not parse, with partition and offset."""

    reason = "BadRecord"
    permanent = True


class OffsetOutOfRangeError(SourceError):
    """The broker has deleted records that were not read yet."""

    reason = "OffsetOutOfRange"
    permanent = True


class NoFilesError(SourceError):
    """No file matches the URI (yet)."""

    reason = "NoFiles"


class FileChangedError(SourceError):
    """A file that the training still has to read is not the one that it listed when it first started."""

    reason = "SourceFileChanged"
    permanent = True


class SchemaError(SourceError):
    """A file or message whose columns cannot be those of the model's samples."""

    reason = "SchemaMismatch"
    permanent = True


class ForeignCheckpointError(SourceError):
    """The checkpoint's positions belong to another kind of source."""

    reason = "ForeignCheckpoint"
    permanent = True
