"""Messages to flat Arrow tables. A message that does not fit says where and why; it never yields half a sample.

JSON goes through msgspec, which checks types while it parses and names the path of what is wrong; Arrow messages (one
IPC stream, many samples) are only cast. Both end in the flat schema of `featuregen.schema.sample_schema`.
"""

from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from kuberec_api.training import KafkaFormat

REQUIRED_PREFIXES = ("label.", "now")


class DecodeError(ValueError):
    """One message that does not fit the schema."""


class Decoder:
    """Decodes messages of one format into tables of one flat schema."""

    def __init__(self, schema: pa.Schema, message_format: KafkaFormat) -> None:
        self.schema = schema
        self.format = message_format
        self._lists = _parallel_lists(schema)
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
        tables = [self._from_ipc(value) for value in values]
        return pa.concat_tables(tables), [t.num_rows for t in tables]

    def one(self, value: bytes) -> pa.Table:
        """Decodes one message.

        Raises:
            DecodeError: says what was expected where.
        """
        if self.format is KafkaFormat.JSON:
            return self._from_structs([_checked(self._one.decode, value)])
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
        return self._valid(pa.Table.from_arrays(columns, schema=self.schema))

    def _from_ipc(self, value: bytes) -> pa.Table:
        try:
            table = pa.ipc.open_stream(value).read_all()
            table.validate(full=True)  # kernels read raw buffers: offsets of a stranger are not to be trusted
        except (pa.ArrowInvalid, OSError) as error:
            raise DecodeError(f"not an Arrow IPC stream: {error}") from error
        columns = []
        for field in self.schema:
            at = table.schema.get_field_index(field.name)
            if at < 0:
                if field.name.startswith(REQUIRED_PREFIXES):
                    raise DecodeError(f"column '{field.name}' is missing")
                columns.append(pa.nulls(table.num_rows, field.type))
                continue
            try:
                columns.append(table.column(at).cast(field.type))
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
                raise DecodeError(f"column '{field.name}': {error}") from error
        return self._valid(pa.Table.from_arrays(columns, schema=self.schema).combine_chunks())

    def _valid(self, table: pa.Table) -> pa.Table:
        for name in self.schema.names:
            if name.startswith(REQUIRED_PREFIXES) and table.column(name).null_count:
                raise DecodeError(f"'{name}' is null")
        for behavior, names in self._lists.items():
            lengths = [pc.fill_null(pc.list_value_length(table.column(n)), 0) for n in names]
            for name, other in zip(names[1:], lengths[1:], strict=True):
                if not lengths[0].equals(other):
                    raise DecodeError(f"'{behavior}': the lists '{names[0]}' and '{name}' differ in length")
        return table


def _checked(decode: Callable[[bytes], Any], value: bytes) -> Any:
    try:
        return decode(value)
    except (msgspec.ValidationError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DecodeError(str(error)) from error


def _parallel_lists(schema: pa.Schema) -> dict[str, list[str]]:
    lists: dict[str, list[str]] = {}
    for name in schema.names:
        if name.startswith("behavior."):
            lists.setdefault(name.rsplit(".", 1)[0], []).append(name)
    return {behavior: names for behavior, names in lists.items() if len(names) > 1}


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
