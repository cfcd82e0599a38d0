"""A request's body, parsed and checked against the model's sources: what fits is a `RankRequest`, the rest a 400.

Accepted: JSON and msgpack (items as keys, as columns or as rows) and Arrow IPC (a stream of one row a candidate with
columns `item.<field>` and `context.<field>`, everything else as JSON in the schema's metadata under `kuberec`).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pyarrow as pa

from featuregen.errors import did_you_mean
from featuregen.plan import Plan
from featuregen.sources import FieldType, Sources
from kuberec_runtime.serve.errors import BadInput, UnsupportedType
from kuberec_runtime.serve.values import array, arrow_of, one_value, shown

JSON, MSGPACK, ARROW = "application/json", "application/msgpack", "application/vnd.apache.arrow.stream"
_ALIASES = {
    "": JSON,
    "text/json": JSON,
    "application/x-msgpack": MSGPACK,
    "application/vnd.msgpack": MSGPACK,
    "application/octet-stream": ARROW,
}
_MEMBERS = ("user", "items", "context", "behavior", "now")
_EVENT = ("item", "action", "ts")


@dataclass(frozen=True)
class RankRequest:
    """A checked request.

    Attributes:
        user: fields by name, without those left out.
        keys: the candidates' keys, None if the items came without.
        columns: `item.<field>` and per-item `context.<field>` that came with the request, each of length `count`.
        context: context fields that hold for all candidates.
        behavior: parallel lists by behaviour, None if left out.
        now_ms: the request's time, None if left out.
        count: number of candidates.
    """

    user: dict[str, Any]
    keys: list[str] | None
    columns: dict[str, pa.Array]
    context: dict[str, Any]
    behavior: dict[str, dict[str, list[Any]]] | None
    now_ms: int | None
    count: int


@dataclass(frozen=True)
class Sides:
    """What a model's sources allow, by flat name; derived once from sources and plan."""

    sources: Sources
    types: dict[str, FieldType]
    user_key: str | None
    item_key: str | None
    per_item: frozenset[str] = frozenset()
    event_fields: dict[str, dict[str, FieldType]] = field(default_factory=dict)
    required: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, sources: Sources, plan: Plan) -> "Sides":
        """Collects the declared fields of all sources, and the item fields that the plan reads through behaviours.

        `required` are the fields that events must bring: their own that every event has, or that the plan reads.
        """
        types: dict[str, FieldType] = {}
        for name, keyed in (("user", sources.user), ("item", sources.item)):
            if keyed:
                types |= {f"{name}.{keyed.key}": FieldType.STRING}
                types |= {f"{name}.{f}": kind for f, kind in keyed.fields.items()}
        context = sources.context
        if context:
            types |= {f"context.{f}": kind for f, kind in context.fields.items()}
        events: dict[str, dict[str, FieldType]] = {
            name: {"item": FieldType.STRING, "action": FieldType.STRING, "ts": FieldType.INT, **source.fields}
            for name, source in sources.behavior.items()
        }
        required = {name: list(_EVENT) for name in events}
        for column in plan.inputs:
            if column.name.startswith("behavior."):
                _, name, attribute = column.name.split(".", 2)
                if attribute in sources.behavior[name].fields:
                    required[name].append(attribute)
                events[name][attribute] = column.type
        return cls(
            sources,
            types,
            sources.user.key if sources.user else None,
            sources.item.key if sources.item else None,
            frozenset(context.per_item if context else ()),
            events,
            {name: tuple(names) for name, names in required.items()},
        )


def media_type(content_type: str) -> str:
    """Returns the canonical media type of a Content-Type header.

    Raises:
        UnsupportedType: if it is none of the three.
    """
    plain = content_type.split(";")[0].strip().lower()
    found = _ALIASES.get(plain, plain)
    if found not in (JSON, MSGPACK, ARROW):
        raise UnsupportedType(f"Content-Type '{plain}' is not understood: send {JSON}, {MSGPACK} or {ARROW}")
    return found


def parse(body: bytes, media: str, sides: Sides) -> RankRequest:
    """Parses and checks a body.

    Raises:
        BadInput: names the field, what was expected and what came.
    """
    if media == ARROW:
        return _parse_arrow(body, sides)
    decoder = msgspec.json.decode if media == JSON else msgspec.msgpack.decode
    try:
        raw = decoder(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadInput("body", "JSON" if media == JSON else "msgpack", str(error)) from None
    if not isinstance(raw, dict):
        raise BadInput("body", "an object", shown(raw))
    for name in raw:
        if name not in _MEMBERS:
            raise _unknown(str(name), "a member of a request", _MEMBERS)
    if "items" not in raw:
        raise BadInput("items", "keys, columns or rows of candidates", "nothing")
    columns = _item_columns(raw["items"], sides)
    return _checked(raw, columns, sides)


def _parse_arrow(body: bytes, sides: Sides) -> RankRequest:
    try:
        table = pa.ipc.open_stream(body).read_all().combine_chunks()
        metadata = (table.schema.metadata or {}).get(b"kuberec", b"{}")
        raw = msgspec.json.decode(metadata)
    except (pa.ArrowInvalid, OSError, EOFError, msgspec.DecodeError) as error:
        raise BadInput("body", "an Arrow IPC stream with JSON under the metadata key 'kuberec'", str(error)) from None
    if not isinstance(raw, dict):
        raise BadInput("metadata.kuberec", "an object", shown(raw))
    columns: dict[str, pa.Array] = {}
    for name in table.column_names:
        kind = _declared(name, sides, ("item", "context"))
        try:
            columns[name] = table.column(name).cast(arrow_of(kind)).combine_chunks()
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise BadInput(name, kind.value, f"{table.schema.field(name).type} ({error})") from None
        if isinstance(columns[name], pa.ChunkedArray):
            columns[name] = pa.concat_arrays(columns[name].chunks) if table.num_rows else pa.array([], arrow_of(kind))
    return _checked(raw, (columns, table.num_rows), sides)


def _checked(raw: Mapping[str, Any], items: tuple[dict[str, pa.Array], int], sides: Sides) -> RankRequest:
    columns, count = items
    user = _mapping(raw.get("user"), "user", sides)
    context: dict[str, Any] = {}
    for name, value in _fields(raw.get("context"), "context"):
        flat = f"context.{name}"
        kind = _declared(flat, sides, ("context",))
        if name in sides.per_item and isinstance(value, list):
            if len(value) != count:
                raise BadInput(flat, f"{count} values, one for each candidate", f"{len(value)}")
            columns[flat] = array(value, flat, kind)
        else:
            context[name] = one_value(value, flat, kind)
    key = f"item.{sides.item_key}"
    given = raw.get("items")
    keys: list[Any] | None
    if key in columns and isinstance(given, list) and given and isinstance(given[0], str):
        keys = given
    else:
        keys = columns[key].to_pylist() if key in columns else None
    if keys is not None and None in keys:
        raise BadInput(key, "a string for each candidate", f"null at position {keys.index(None)}")
    now = raw.get("now")
    if now is not None and (not isinstance(now, int) or isinstance(now, bool) or now < 0):
        raise BadInput("now", "milliseconds since the epoch", shown(now))
    return RankRequest(user, keys, columns, context, _behavior(raw.get("behavior"), sides), now, count)


def _item_columns(items: Any, sides: Sides) -> tuple[dict[str, pa.Array], int]:
    if isinstance(items, list):
        if not items:
            return {}, 0
        if isinstance(items[0], dict):
            return _rows(items, sides)
        if sides.item_key is None:
            raise BadInput("items", "columns, because this model declares no item source", "a list")
        return {f"item.{sides.item_key}": array(items, "items", FieldType.STRING)}, len(items)
    if not isinstance(items, dict):
        raise BadInput("items", "a list of keys, a list of rows, or an object of columns", shown(items))
    columns: dict[str, pa.Array] = {}
    count = -1
    for name, values in items.items():
        flat = f"item.{name}"
        kind = _declared(flat, sides, ("item",))
        if not isinstance(values, list):
            raise BadInput(f"items.{name}", "a list, one value for each candidate", shown(values))
        if count >= 0 and len(values) != count:
            raise BadInput(f"items.{name}", f"{count} values, as many as the other columns", f"{len(values)}")
        count = len(values)
        columns[flat] = array(values, f"items.{name}", kind)
    if count < 0:
        raise BadInput("items", "at least one column", "none")
    return columns, count


def _rows(items: Sequence[Any], sides: Sides) -> tuple[dict[str, pa.Array], int]:
    names: dict[str, None] = {}
    for i, row in enumerate(items):
        if not isinstance(row, dict):
            raise BadInput(f"items[{i}]", "an object as the rows before it", shown(row))
        names.update(dict.fromkeys(row))
    columns = {}
    for name in names:
        kind = _declared(f"item.{name}", sides, ("item",))
        columns[f"item.{name}"] = array([row.get(name) for row in items], f"items[].{name}", kind)
    return columns, len(items)


def _behavior(raw: Any, sides: Sides) -> dict[str, dict[str, list[Any]]] | None:
    if raw is None:
        return None
    out = {}
    for name, events in _fields(raw, "behavior"):
        fields = sides.event_fields.get(name)
        if fields is None:
            raise _unknown(f"behavior.{name}", "a declared behaviour", [f"behavior.{n}" for n in sides.event_fields])
        out[name] = _events(events, f"behavior.{name}", fields, sides.required[name])
    return out


def _events(raw: Any, path: str, fields: Mapping[str, FieldType], required: Sequence[str]) -> dict[str, list[Any]]:
    if isinstance(raw, list):
        for i, event in enumerate(raw):
            if not isinstance(event, dict):
                raise BadInput(f"{path}[{i}]", f"an object with {', '.join(required)}", shown(event))
        names = {name for event in raw for name in event} | set(required)
        raw = {name: [event.get(name) for event in raw] for name in names}
    if not isinstance(raw, dict):
        raise BadInput(path, f"parallel lists {', '.join(required)}, or a list of events", shown(raw))
    out: dict[str, list[Any]] = {}
    for name in (*required, *(n for n in raw if n not in required)):
        if name not in raw:
            raise BadInput(f"{path}.{name}", "a list, oldest event first", "nothing")
        if name not in fields:
            raise _unknown(f"{path}.{name}", "a field of its events", [f"{path}.{n}" for n in fields])
        values = raw[name]
        if not isinstance(values, list):
            raise BadInput(f"{path}.{name}", "a list, oldest event first", shown(values))
        if out and len(values) != len(out["item"]):
            raise BadInput(f"{path}.{name}", f"{len(out['item'])} values, as many as item", f"{len(values)}")
        array(values, f"{path}.{name}", fields[name])
        out[name] = values
    if None in out["ts"]:
        raise BadInput(f"{path}.ts", "milliseconds since the epoch for each event", "null")
    return out


def _fields(raw: Any, path: str) -> list[tuple[str, Any]]:
    if raw is None:
        return []
    if not isinstance(raw, dict):
        raise BadInput(path, "an object", shown(raw))
    return list(raw.items())


def _mapping(raw: Any, source: str, sides: Sides) -> dict[str, Any]:
    out = {}
    for name, value in _fields(raw, source):
        flat = f"{source}.{name}"
        out[name] = one_value(value, flat, _declared(flat, sides, (source,)))
    return out


def _declared(flat: str, sides: Sides, sources: Sequence[str]) -> FieldType:
    kind = sides.types.get(flat)
    if kind is None or flat.split(".")[0] not in sources:
        allowed = [name for name in sides.types if name.split(".")[0] in sources]
        raise _unknown(flat, "a declared field", allowed)
    return kind


def _unknown(name: str, expected: str, declared: Iterable[str]) -> BadInput:
    return BadInput(name, f"{expected} ({did_you_mean(name, declared)})", "an unknown name")
