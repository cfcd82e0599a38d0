"""What features read: resolves `source.field`, checks types, and notes which flat columns and behaviours are needed.

The only place that knows how a spec's sources, its events and the values of its features become columns.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from featuregen.errors import FeatureError, did_you_mean
from featuregen.plan import Behavior, Derivation, Encoder, File, Input, Operation, Side
from featuregen.sources import FieldType, KeyedSource, duration_ms
from featuregen.spec import Feature, FeatureSpec

TEXT = (FieldType.STRING, FieldType.INT)
TEXTS = (*TEXT, FieldType.STRING_LIST, FieldType.INT_LIST)
WORDS = (FieldType.STRING, FieldType.STRING_LIST)
NUMBER = (FieldType.INT, FieldType.FLOAT)
NUMBERS = (*NUMBER, FieldType.INT_LIST, FieldType.FLOAT_LIST)
EVENT = {"item": FieldType.STRING, "action": FieldType.STRING, "ts": FieldType.INT}
"""Fields that every event has."""

_READERS = {
    FieldType.FLOAT_LIST: "a list of numbers is read by raw with dim, combine, expr and sequence",
    FieldType.INT_LIST: "a list of whole numbers is read by id, combo, combine, expr, sequence, and by raw with dim",
    FieldType.STRING_LIST: "a list of texts is read by id, combo, overlap and sequence, or by combine with a valueMap",
    FieldType.STRING_LISTS: "a list of lists is read by sequence",
    FieldType.FLOAT_LISTS: "a list of lists is read by sequence",
    FieldType.STRING_FLOAT_MAP: "a map is read by lookup with a key, by kv_dot, and by id with weighted: true",
    FieldType.STRING_STRING_MAP: "a map is read by lookup, with a key",
    FieldType.STRING_FLOATS_MAP: "a map is read by lookup, with a key",
    FieldType.NESTED_FLOAT_MAP: "a map of maps is read by match",
    FieldType.NESTED_STRING_MAP: "a map of maps is read by match",
}


@dataclass(frozen=True)
class Source:
    """A resolved field: its flat column, its type, and the side it belongs to."""

    column: str
    type: FieldType
    side: Side


@dataclass
class Compilation:
    """What is known while features are compiled one after the other.

    `read_features` are those that others read; `values` says where the value of each compiled one of them is.
    """

    spec: FeatureSpec
    read_features: frozenset[str] = frozenset()
    columns: dict[str, Input] = field(default_factory=dict)
    behaviors: dict[str, Behavior] = field(default_factory=dict)
    encoders: dict[str, Encoder] = field(default_factory=dict)
    values: dict[str, Source] = field(default_factory=dict)
    derivations: list[Derivation] = field(default_factory=list)

    def note(self, column: str, kind: FieldType, is_list: bool = False, per_item: bool = False) -> str:
        """Notes that a flat column is read and returns its name."""
        self.columns[column] = Input(column, kind, is_list, per_item)
        return column

    def derive(self, value: Operation, kind: FieldType) -> Source:
        """Makes the value of a feature a column that others read, `feature.<name>`."""
        side, name = value.output.side, value.output.feature
        source = Source(f"feature.{name}", kind, side)
        self.derivations.append(Derivation(Input(source.column, kind, per_item=side != "user"), side, value))
        self.values[name] = source
        return source


def check_sources(spec: FeatureSpec) -> None:
    """Refuses declarations that contradict themselves."""
    context = spec.sources.context
    for name in context.per_item if context else []:
        if context and name not in context.fields:
            raise FeatureError(None, f"context.perItem names '{name}'", did_you_mean(name, context.fields))
    for source, keyed in (("user", spec.sources.user), ("item", spec.sources.item)):
        if keyed and keyed.fields.get(keyed.key, FieldType.STRING) is not FieldType.STRING:
            declared = keyed.fields[keyed.key].value
            raise FeatureError(None, f"the key '{source}.{keyed.key}' is declared as {declared}", "a key is a string")
    for name, behavior in spec.sources.behavior.items():
        if duration_ms(behavior.max_age) <= 0:
            raise FeatureError(
                None, f"behavior '{name}': maxAge is {behavior.max_age}", "give a positive duration such as 24h"
            )
        for own, kind in behavior.fields.items():
            if own in EVENT:
                raise FeatureError(None, f"behavior '{name}' declares '{own}'", "every event has it: remove it")
            if kind not in (*TEXT, FieldType.FLOAT):
                raise FeatureError(
                    None, f"behavior '{name}': '{own}' is {kind.value}", "a field of an event is string, int or float"
                )


def _value(compilation: Compilation, feature: str, ref: str) -> Source:
    """Resolves `feature.<name>`; references.py has ordered the features so that it is compiled already."""
    name = ref.split(".", 1)[1]
    if name in compilation.values:
        return compilation.values[name]
    other = next(one for one in compilation.spec.list if one.name == name)
    raise FeatureError(
        feature,
        f"'{ref}' has no single value: '{name}' is {_many(other)}",
        "read the fields that it reads instead",
    )


def _many(feature: Feature) -> str:
    if feature.fields:
        return "a sequence"
    return "weighted" if feature.weighted else "combined with none"


def _field(compilation: Compilation, feature: str, ref: str) -> Source:
    """Resolves `source.field`."""
    source, name = ref.split(".", 1)
    if source == "feature":
        return _value(compilation, feature, ref)
    if source == "event":
        raise FeatureError(feature, f"'{ref}' is a field of events", "events are read by sequence and window")
    sources = compilation.spec.sources
    declared = {s: getattr(sources, s) for s in ("user", "item", "context") if getattr(sources, s) is not None}
    if source not in declared:
        raise FeatureError(feature, f"'{ref}' names the source '{source}'", did_you_mean(source, declared))
    entry = declared[source]
    fields: dict[str, FieldType] = dict(entry.fields)
    side: Side = "user"
    if isinstance(entry, KeyedSource):
        fields[entry.key] = FieldType.STRING
        side = "user" if source == "user" else "item"
    elif name in entry.per_item:
        side = "cross"
    if name not in fields:
        hint = did_you_mean(name, fields)
        others = [s for s, e in declared.items() if s != source and name in e.fields]
        raise FeatureError(
            feature,
            f"'{ref}': the source {source} has no field '{name}'",
            hint + (f"; {others[0]}.{name} exists" if others else ""),
        )
    return Source(f"{source}.{name}", fields[name], side)


def check_type(feature: str, ref: str, found: FieldType, allowed: Iterable[FieldType], what: str, hint: str) -> None:
    """Refuses a field of a type that is not allowed; without a hint it says what reads such a field."""
    allowed = tuple(allowed)
    if found in allowed:
        return
    if not hint and found is FieldType.FLOAT and FieldType.STRING in allowed:
        hint = "a float has no exact text: use raw with boundaries, or declare the field as int or string"
    wanted = " or ".join(kind.value for kind in allowed)
    raise FeatureError(
        feature,
        f"'{ref}' is {found.value}, {what} takes {wanted}",
        hint or _READERS.get(found, f"declare the field as {wanted}"),
    )


def read_field(
    compilation: Compilation, feature: str, ref: str, allowed: Iterable[FieldType], what: str, hint: str = ""
) -> Source:
    """Resolves a field, or the value of a feature, of one of the allowed types; notes that its column is read."""
    source = _field(compilation, feature, ref)
    check_type(feature, ref, source.type, allowed, what, hint)
    if not source.column.startswith("feature."):
        compilation.note(source.column, source.type, per_item=source.side == "cross")
    return source


def common_side(sources: Iterable[Source]) -> Side:
    """Returns the side that all inputs share, `cross` if they differ."""
    sides = {source.side for source in sources}
    return sides.pop() if len(sides) == 1 else "cross"


def find_file(compilation: Compilation, feature: str, name: str) -> File:
    """Returns a declared file."""
    files = compilation.spec.files
    if name not in files:
        raise FeatureError(feature, f"there is no file '{name}'", did_you_mean(name, files))
    return File(name, files[name].sha256)


def read_behavior(compilation: Compilation, feature: Feature) -> Behavior:
    """Resolves the behaviour of a feature; notes its `ts`, and `action` if actions are filtered."""
    declared = compilation.spec.sources.behavior
    name = feature.behavior or ""
    if name not in declared:
        raise FeatureError(feature.name, f"there is no behavior '{name}'", did_you_mean(name, declared))
    twice = next((action for i, action in enumerate(feature.actions) if action in feature.actions[:i]), None)
    if twice is not None or "" in feature.actions:
        raise FeatureError(
            feature.name, "actions has an empty text" if twice is None else f"actions has '{twice}' twice", "remove it"
        )
    found = Behavior(name, declared[name].max_events, duration_ms(declared[name].max_age))
    compilation.behaviors[name] = found
    compilation.note(f"behavior.{name}.ts", FieldType.INT, is_list=True)
    if feature.actions:
        compilation.note(f"behavior.{name}.action", FieldType.STRING, is_list=True)
    return found


def read_event(
    compilation: Compilation, feature: Feature, ref: str, allowed: Iterable[FieldType], what: str, hint: str = ""
) -> Source:
    """Returns the behaviour's list column of `event.<field>`, or of `item.<field>` of each event's item."""
    log, (origin, name) = feature.behavior or "", ref.split(".", 1)
    declared = compilation.spec.sources.behavior[log].fields
    own = {**EVENT, **declared}
    if origin == "event":
        if name not in own:
            raise FeatureError(
                feature.name, f"'{ref}': events of behavior '{log}' have no field '{name}'", did_you_mean(name, own)
            )
        column, kind = name, own[name]
    elif origin == "item":
        kind, item = _field(compilation, feature.name, ref).type, compilation.spec.sources.item
        column = "item" if item is not None and name == item.key else name
        if column == name and name in own:
            raise FeatureError(
                feature.name,
                f"{what} '{ref}': an event has its own '{name}'",
                "rename the item field so that both can be told apart",
            )
    else:
        raise FeatureError(
            feature.name,
            f"{what} '{ref}' is no field of an event or its item",
            "an event has its own fields and an item: name an event or item field",
        )
    check_type(feature.name, ref, kind, allowed, what, hint)
    return Source(compilation.note(f"behavior.{log}.{column}", kind, is_list=True), kind, "user")
