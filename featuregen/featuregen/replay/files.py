"""Folders of Parquet files of snapshots: written in turn, each whole or absent, and read a few requests at a time."""

import secrets
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import pyarrow as pa
import pyarrow.parquet as pq

from featuregen.replay.snapshot import SnapshotError, check_schema

READ_ROWS = 64
"""Requests in memory at once: one has up to some MB of candidates."""


class SnapshotFiles:
    """Writes batches of snapshots into files of about `file_bytes`; a file has its name only when it is complete.

    Args:
        folder: made if it is absent.
        schema: of all batches, such as `SnapshotFormat.schema`.
        file_bytes: size in memory after which the next file begins.
    """

    def __init__(self, folder: Path, schema: pa.Schema, file_bytes: int = 256 << 20) -> None:
        self._folder, self._schema, self._limit = folder, schema, file_bytes
        self._writer: pq.ParquetWriter | None = None
        self._path = folder
        self._size = 0
        self.written: list[Path] = []
        folder.mkdir(parents=True, exist_ok=True)

    def write(self, batch: pa.RecordBatch) -> None:
        """Appends a batch."""
        if self._writer is None:
            self._path = self._folder / f"requests-{len(self.written):05d}-{secrets.token_hex(4)}.parquet"
            self._writer = pq.ParquetWriter(self._path.with_suffix(".part"), self._schema, compression="zstd")
        self._writer.write_batch(batch)
        self._size += batch.nbytes
        if self._size >= self._limit:
            self._finish()

    def close(self) -> None:
        """Completes the last file."""
        self._finish()

    def _finish(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._path.with_suffix(".part").rename(self._path)
            self.written.append(self._path)
            self._writer, self._size = None, 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()


def open_file(source: str | IO[bytes] | pa.NativeFile) -> pq.ParquetFile:
    """Opens a Parquet file of snapshots.

    Raises:
        SnapshotError: it is none.
    """
    try:
        file = pq.ParquetFile(source)
    except (pa.ArrowInvalid, OSError) as error:
        raise SnapshotError(f"not a Parquet file: {error}") from None
    check_schema(file.schema_arrow)
    return file


def read_batches(file: pq.ParquetFile, row_groups: list[int] | None = None) -> Iterator[pa.RecordBatch]:
    """Yields the requests of a file, some at a time.

    Raises:
        SnapshotError: the file is damaged.
    """
    try:
        yield from file.iter_batches(READ_ROWS, row_groups=row_groups)
    except (pa.ArrowInvalid, OSError) as error:
        raise SnapshotError(f"a damaged Parquet file: {error}") from None
