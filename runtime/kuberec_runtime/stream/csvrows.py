"""CSV lines to samples: every field is read as text, then converted column by column with Arrow's kernels.

Lists and maps are texts with separators inside a field, as EasyRec writes them (`a|b`, `k:0.5|q:1`). Nothing between
two separators is null. A line is a line: quoted fields may hold separators, not line ends.
"""

from collections.abc import Sequence
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pcsv

from kuberec_api.source import Csv
from kuberec_runtime.stream.tabular import ColumnError, DecodeError, conform


class Lines(NamedTuple):
    """Fields of lines as texts, one row for each line with as many fields as there are columns; and the other lines."""

    table: pa.Table
    malformed: list[tuple[int, str]]
    """Which line (from 0, empty ones not counted) and what is wrong with it."""


class CsvDecoder:
    """Reads CSV into one flat schema.

    Raises:
        ColumnError: the schema has a type that CSV has no form for, or its label is not among the columns.
    """

    def __init__(self, schema: pa.Schema, options: Csv, columns: Sequence[str]) -> None:
        self._schema, self._options = schema, options
        self._columns = list(columns)
        self._read = [name for name in schema.names if name in set(self._columns)]
        for field in schema:
            if _depth(field.type) > 2:
                raise ColumnError(f"'{field.name}' is {field.type}: CSV has no form for it, use Parquet or Arrow")

    def lines(self, data: bytes) -> Lines:
        """Splits lines into fields.

        Raises:
            DecodeError: not UTF-8.
        """
        malformed: list[tuple[int, str]] = []

        def odd(row: pcsv.InvalidRow) -> str:
            text = f"{row.actual_columns} fields, expected {row.expected_columns}: {row.text[:80]!r}"
            malformed.append((row.number - 1, text))
            return "skip"

        if not data.strip():
            return Lines(pa.table({name: pa.array([], pa.string()) for name in self._read}), [])
        o = self._options
        try:
            table = pcsv.read_csv(
                pa.BufferReader(data),
                pcsv.ReadOptions(column_names=self._columns, use_threads=False, block_size=len(data) + 1),
                pcsv.ParseOptions(delimiter=o.separator, invalid_row_handler=odd),
                pcsv.ConvertOptions(
                    include_columns=self._read or self._columns[:1],
                    column_types=dict.fromkeys(self._read or self._columns[:1], pa.string()),
                    null_values=[""],
                    strings_can_be_null=True,
                    quoted_strings_can_be_null=False,
                ),
            )
        except pa.ArrowInvalid as error:
            raise DecodeError(str(error)) from error
        return Lines(table, malformed)

    def samples(self, texts: pa.Table) -> pa.Table:
        """Converts fields to the schema's types.

        Raises:
            DecodeError: a field does not fit; ColumnError: a label or the time is not among the columns.
        """
        columns = {}
        for field in self._schema:
            if field.name in self._read:
                try:
                    columns[field.name] = self._convert(_whole(texts.column(field.name)), field.type, outer=True)
                except (pa.ArrowInvalid, DecodeError) as error:
                    raise DecodeError(f"'{field.name}': {error}") from error
        return conform(pa.table(columns) if columns else texts, self._schema)

    def _convert(self, texts: pa.Array, kind: pa.DataType, outer: bool) -> pa.Array:
        if pa.types.is_string(kind):
            return texts
        if pa.types.is_map(kind):
            return self._map(texts, kind)
        if pa.types.is_list(kind):
            lists = pc.split_pattern(texts, self._options.list_separator if outer else self._options.inner_separator)
            values = self._convert(lists.values, kind.value_type, outer=False)
            return pa.ListArray.from_arrays(lists.offsets, values, mask=lists.is_null())
        return pc.if_else(pc.equal(texts, ""), None, texts).cast(kind)

    def _map(self, texts: pa.Array, kind: pa.MapType) -> pa.Array:
        entries = pc.split_pattern(texts, self._options.list_separator)
        pairs = pc.split_pattern(entries.values, self._options.key_separator, max_splits=1)
        if len(pairs) and not pc.all(pc.equal(pc.list_value_length(pairs), 2)).as_py():
            raise DecodeError(f"an entry of a map is not `key{self._options.key_separator}value`")
        keys, items = pc.list_element(pairs, 0), pc.list_element(pairs, 1)
        return pa.MapArray.from_arrays(
            entries.offsets, keys, self._convert(items, kind.item_type, outer=False), mask=entries.is_null()
        )


def header(line: bytes, options: Csv) -> list[str]:
    """The names in a header line."""
    read = pcsv.read_csv(
        pa.BufferReader(line.rstrip(b"\r\n") + b"\n"), parse_options=pcsv.ParseOptions(delimiter=options.separator)
    )
    return list(read.column_names)


def _whole(column: pa.ChunkedArray) -> pa.Array:
    """One array that starts at 0, as lists are built from offsets."""
    array = column.combine_chunks()
    array = array if isinstance(array, pa.Array) else pa.concat_arrays(array.chunks)
    return pa.concat_arrays([array, array[:0]]) if array.offset else array


def _depth(kind: pa.DataType) -> int:
    if pa.types.is_list(kind):
        return 1 + _depth(kind.value_type)
    if pa.types.is_map(kind):
        return (1 if not pa.types.is_map(kind.item_type) else 2) + _depth(kind.item_type)
    return 0
