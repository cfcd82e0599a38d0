"""Files to units, and units to rows: one way for each format. The only module that knows how a format is laid out."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from kuberec_api.source import Csv, FilesFormat
from kuberec_api.source import FilesSource as FilesSpec
from kuberec_runtime.stream import csvrows
from kuberec_runtime.stream.listing import Found, Listing, blocks, bundles, matching, split_uri
from kuberec_runtime.stream.samplefiles import list_files, open_file
from kuberec_runtime.stream.source import NoFilesError, SchemaError, Unit

UNIT_BYTES = 8 << 20
CSV_BLOCK_BYTES = 16 << 20
READ_ROWS = 8192
LOOK_AHEAD = 64 << 10
FOOTERS_AT_ONCE = 16


def list_units(spec: FilesSpec, but: Sequence[Listing] = ()) -> Listing:
    """Lists the files of a source and cuts them into units; files of earlier listings are left out.

    Raises:
        NoFilesError: there is none at all.
        SchemaError: a file is not of the format.
        SourceUnavailableError: the store does not answer.
    """
    found = matching(list_files(split_uri(spec.uri)[0]), spec.uri)
    if not found:
        raise NoFilesError(f"no file matches '{spec.uri}' (yet); write some, or mend source.files.uri")
    listed = {unit.uri for listing in but for unit in listing.units}
    with ThreadPoolExecutor(FOOTERS_AT_ONCE) as threads:
        cut = threads.map(lambda file: _units(file, spec.format), [f for f in found if f.uri not in listed])
        return Listing(spec.uri, tuple(unit for units in cut for unit in units))


def read_unit(unit: Unit, file: Any, format: FilesFormat, names: Sequence[str], skip: int) -> Iterator[tuple[int, Any]]:
    """Reads a unit of Parquet or Arrow in pieces of some thousand rows, from the piece that holds row `skip` on.

    Yields:
        The row of the unit at which the piece starts, and the piece as a table of the file's own schema.
    """
    if format is FilesFormat.PARQUET:
        return _parquet(unit, file, names, skip)
    return _arrow(unit, file)


def _units(file: Found, format: FilesFormat) -> list[Unit]:
    parts: list[Part]
    if format is FilesFormat.CSV:
        parts = [(first, count, None, count) for first, count in blocks(file.size, CSV_BLOCK_BYTES)]
    else:
        try:
            parts = _parquet_parts(file) if format is FilesFormat.PARQUET else _arrow_parts(file)
        except (pa.ArrowException, OSError) as error:
            raise SchemaError(f"{file.uri} is not a {format.value} file: {error}") from error
    return [Unit(file.uri, file.size, file.version, *part) for part in parts]


Part = tuple[int, int, int | None, int]


def _parquet_parts(file: Found) -> list[Part]:
    with open_file(file) as opened:
        metadata = pq.read_metadata(opened)
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    sizes = [sum(g.column(c).total_compressed_size for c in range(g.num_columns)) for g in groups]
    return [*bundles(sizes, [g.num_rows for g in groups], UNIT_BYTES)]


def _arrow_parts(file: Found) -> list[Part]:
    with open_file(file) as opened:
        try:
            batches = pa.ipc.open_file(opened).num_record_batches
        except pa.ArrowInvalid:
            opened.seek(0)
            pa.ipc.open_stream(opened)  # raises if it is no stream either
            return [(0, 0, None, file.size)]
    each = max(1, file.size // max(1, batches))
    made = bundles([each] * batches, [0] * batches, UNIT_BYTES)
    return [(first, count, None, size) for first, count, _, size in made]


def _parquet(unit: Unit, file: Any, names: Sequence[str], skip: int) -> Iterator[tuple[int, pa.Table]]:
    reader = pq.ParquetFile(file, pre_buffer=True)
    group, at = unit.first, 0
    while group < unit.first + unit.count and at + reader.metadata.row_group(group).num_rows <= skip:
        at += reader.metadata.row_group(group).num_rows
        group += 1
    groups = list(range(group, unit.first + unit.count))
    for batch in reader.iter_batches(READ_ROWS, groups, columns=list(names)) if groups else ():
        yield at, pa.Table.from_batches([batch])
        at += batch.num_rows


def _arrow(unit: Unit, file: Any) -> Iterator[tuple[int, pa.Table]]:
    at = 0
    for batch in _batches(unit, file):
        yield at, pa.Table.from_batches([batch])
        at += batch.num_rows


def _batches(unit: Unit, file: Any) -> Iterator[pa.RecordBatch]:
    if not unit.count:
        yield from pa.ipc.open_stream(file)
        return
    reader = pa.ipc.open_file(file)
    for index in range(unit.first, unit.first + unit.count):
        yield reader.get_batch(index)


def csv_columns(file: Any, options: Csv) -> list[str]:
    """The columns of a CSV file: what the spec says, else what its first line says."""
    return list(options.columns) or csvrows.header(_line(file, 0, file.size()), options)


def csv_lines(unit: Unit, file: Any, options: Csv) -> bytes:
    """The lines that begin in a unit's range of bytes, without the header."""
    size = file.size()
    first, stop = unit.first, min(unit.first + unit.count, size)
    if first == 0:
        begin = 0 if options.columns else len(_line(file, 0, size))
    else:
        line = _line(file, first - 1, size)  # of the line before, at least its end
        begin = first - 1 + len(line)
    if begin >= stop:
        return b""
    file.seek(begin)
    data = bytes(file.read(stop - begin))
    return data if data.endswith(b"\n") else data + _line(file, stop, size)


def _line(file: Any, at: int, size: int) -> bytes:
    """From a byte to the end of its line, line end included."""
    file.seek(at)
    line = b""
    while at + len(line) < size:
        more = bytes(file.read(LOOK_AHEAD))
        end = more.find(b"\n")
        if end >= 0:
            return line + more[: end + 1]
        line += more
    return line
