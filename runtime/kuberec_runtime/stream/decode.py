"""Messages to flat Arrow tables. A message that does not fit says where and why; it never yields half a sample.

JSON goes through msgspec, which checks types while it parses and names the path of what is wrong; Arrow messages (one
IPC stream, many samples) are only cast; CSV messages are lines (`csvrows`). All end in the flat schema of
`featuregen.schema.sample_schema`.
"""

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import msgspec
import pyarrow as pa

from kuberec_api.source import Csv, KafkaFormat
from kuberec_runtime.stream.csvrows import CsvDecoder
from kuberec_runtime.stream.tabular import REQUIRED_PREFIXES, DecodeError, checked, conform


class Decoder:
    """Decodes messages of one format into tables of one flat schema."""

    def __init__(self, schema: pa.Schema, message_format: KafkaFormat, csv: Csv | None = None) -> None:
        self.schema = schema
        self.format = message_format
        options = csv or Csv()
        self._csv = CsvDecoder(schema, options, options.columns) if message_format is KafkaFormat.CSV else None
        if message_format is KafkaFormat.JSON:
            struct = _struct("Sample", _tree(schema))
            self._one: msgspec.json.Decoder[Any] = msgspec.json.Decoder(struct)
            self._many = msgspec.json.Decoder(list[struct])  # type: ignore[valid-type]
            self._getters = [_getter(name) for name in schema.names]

    def many(self, values: Sequence[bytes]) -> tuple[pa.Table, list[int]]:
        """Decodes messages at once.

        Returns:
            The samples of all messages in order, and the number of samples of each message.

        Raises:
            DecodeError: if any message does not fit; call `one` to find out which.
        """
        if self.format is KafkaFormat.JSON:
            table = self._from_structs(_checked(self._many.decode, b"[" + b",".join(values) + b"]"))
            if table.num_rows != len(values):
                raise DecodeError("a message holds more than one JSON value")
            return table, [1] * len(values)
        if self._csv is not None:
            return self._from_lines(values)
        tables = [self._from_ipc(value) for value in values]
        return pa.concat_tables(tables), [t.num_rows for t in tables]

    def one(self, value: bytes) -> pa.Table:
        """Decodes one message.

        Raises:
            DecodeError: says what was expected where.
        """
        if self.format is KafkaFormat.JSON:
            return self._from_structs([_checked(self._one.decode, value)])
        if self._csv is not None:
            return self._from_lines([value])[0]
        return self._from_ipc(value)

    def empty(self) -> pa.Table:
        """A table of the schema without rows."""
        return self.schema.empty_table()

    def _from_structs(self, rows: Sequence[Any]) -> pa.Table:
        try:
            columns = [
                pa.array([get(row) for row in rows], type=field.type)
                for field, get in zip(self.schema, self._getters, strict=True)
            ]
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
            raise DecodeError(str(error)) from error
        return checked(pa.Table.from_arrays(columns, schema=self.schema))

    def _from_ipc(self, value: bytes) -> pa.Table:
        try:
            table = pa.ipc.open_stream(value).read_all()
            table.validate(full=True)
        except (pa.ArrowInvalid, OSError) as error:
            raise DecodeError(f"not an Arrow IPC stream: {error}") from error
        return conform(table, self.schema)

    def _from_lines(self, values: Sequence[bytes]) -> tuple[pa.Table, list[int]]:
        assert self._csv is not None
        bodies = [value.rstrip(b"\r\n") for value in values]
        lines = self._csv.lines(b"\n".join(bodies) + b"\n")
        if lines.malformed:
            raise DecodeError(lines.malformed[0][1])
        counts = [body.count(b"\n") + 1 if body else 0 for body in bodies]
        if lines.table.num_rows != sum(counts) or 0 in counts:
            raise DecodeError("an empty message, or an empty line in it")
        return self._csv.samples(lines.table), counts


def _checked(decode: Callable[[bytes], Any], value: bytes) -> Any:
    try:
        return decode(value)
    except (msgspec.ValidationError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DecodeError(str(error)) from error


def _tree(schema: pa.Schema) -> dict[str, Any]:
    """Nests flat names: {'user.age': int64} becomes {'user': {'age': (int64, required)}}."""
    tree: dict[str, Any] = {}
    for field in schema:
        *path, leaf = field.name.split(".")
        node = reduce(lambda n, key: n.setdefault(key, {}), path, tree)
        node[leaf] = (field.type, field.name.startswith(REQUIRED_PREFIXES))
    return tree


def _struct(name: str, tree: dict[str, Any]) -> type:
    required: list[tuple[str, Any]] = []
    optional: list[tuple[str, Any]] = []
    for key, node in tree.items():
        if isinstance(node, dict):
            kind: Any = _struct(key, node)
            (required if key == "label" else optional).append((key, kind if key == "label" else kind | None))
        else:
            arrow, needed = node
            (required if needed else optional).append(
                (key, _python_type(arrow) if needed else _python_type(arrow) | None)
            )
    fields: list[Any] = [*required, *((key, kind, None) for key, kind in optional)]
    return msgspec.defstruct(name, fields, gc=False)


def _python_type(arrow: pa.DataType) -> Any:
    if pa.types.is_list(arrow):
        return list[_python_type(arrow.value_type) | None]  # type: ignore[misc]
    if pa.types.is_map(arrow):
        return dict[str, _python_type(arrow.item_type) | None]  # type: ignore[misc]
    if pa.types.is_string(arrow):
        return str
    return int if pa.types.is_integer(arrow) else float


def _getter(name: str) -> Callable[[Any], Any]:
    """Attribute path that stops at None, e.g. a sample without behaviour."""
    path = name.split(".")
    if len(path) == 1:
        return lambda row: getattr(row, name)
    if len(path) == 2:
        first, second = path
        return lambda row: None if (a := getattr(row, first)) is None else getattr(a, second)
    first, second, third = path
    return lambda row: (
        None if (a := getattr(row, first)) is None or (b := getattr(a, second)) is None else getattr(b, third)
    )
