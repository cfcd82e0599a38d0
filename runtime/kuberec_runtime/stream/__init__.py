"""Where samples come from. `Source` is the seam; only this package knows what an offset is."""

from kuberec_runtime.stream.source import (
    BadRecordError,
    Batch,
    OffsetOutOfRangeError,
    PartitionStart,
    Position,
    Source,
    SourceError,
    SourceUnavailableError,
    TopicNotFoundError,
    shares,
)

__all__ = [
    "BadRecordError",
    "Batch",
    "OffsetOutOfRangeError",
    "PartitionStart",
    "Position",
    "Source",
    "SourceError",
    "SourceUnavailableError",
    "TopicNotFoundError",
    "shares",
]
