"""Samples as files: one after the other in a folder, as a warehouse would leave a day of them."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from kuberec_runtime.synth.encode import ArrowEncoder
from kuberec_runtime.synth.stream import Samples
from kuberec_runtime.synth.world import World

FILE_ROWS = 50_000
GROUP_ROWS = 10_000


class ParquetSink:
    """Writes samples of one world as `part-00000.parquet`, `part-00001.parquet` ... into a folder.

    A file appears under its name when it is whole, so that nobody lists half of one.

    Args:
        world: whose samples.
        folder: created if it is missing; what it has is not replaced.
        file_rows: samples of a file; group_rows: of a row group.

    Raises:
        FileExistsError: the folder has Parquet files already.
    """

    def __init__(self, world: World, folder: Path, file_rows: int = FILE_ROWS, group_rows: int = GROUP_ROWS) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.glob("*.parquet")):
            raise FileExistsError(f"{folder} holds Parquet files already: choose another folder, or empty it")
        self._encoder, self._folder = ArrowEncoder(world), folder
        self._file_rows, self._group_rows = file_rows, group_rows
        self._waiting: list[pa.Table] = []
        self._rows = self._files = 0

    def send(self, samples: Samples) -> None:
        """Takes samples; writes files that have become full."""
        self._waiting.append(self._encoder.encode(samples))
        self._rows += len(samples)
        while self._rows >= self._file_rows:
            self._write(self._file_rows)

    def flush(self) -> None:
        """Writes what is left."""
        if self._rows:
            self._write(self._rows)

    def _write(self, rows: int) -> None:
        table = pa.concat_tables(self._waiting)
        path = self._folder / f"part-{self._files:05d}.parquet"
        partial = path.with_suffix(".partial")
        pq.write_table(table.slice(0, rows), partial, row_group_size=self._group_rows)
        partial.rename(path)
        self._waiting, self._rows, self._files = [table.slice(rows)], self._rows - rows, self._files + 1
