"""What features read: resolves `source.field`, checks types, and notes which flat columns and behaviours are needed.

The only place that knows how a spec's sources become the columns of a sample.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from featuregen.errors import FeatureError, did_you_mean
from featuregen.plan import Behavior, Encoder, Input, Side
from featuregen.sources import KeyedSource
from featuregen.spec import Feature, FeatureSpec, FieldType, duration_ms

TEXT = (FieldType.STRING, FieldType.INT)
TEXTS = (*TEXT, FieldType.STRING_LIST, FieldType.INT_LIST)
NUMBER = (FieldType.INT, FieldType.FLOAT)


@dataclass(frozen=True)
class Source:
    """A resolved field: its flat column, its type, and the side it belongs to."""

    column: str
    type: FieldType
    side: Side


@dataclass
class Compilation:
    """What is known while features are compiled one after the other."""

    spec: FeatureSpec
    columns: dict[str, Input] = field(default_factory=dict)
    behaviors: dict[str, Behavior] = field(default_factory=dict)
    encoders: dict[str, Encoder] = field(default_factory=dict)

    def note(self, column: str, kind: FieldType, is_list: bool = False) -> str:
        """Notes that a flat column is read and returns its name."""
        self.columns[column] = Input(column, kind, is_list)
        return column


def check_sources(spec: FeatureSpec) -> None:
    """Refuses declarations that contradict themselves."""
    context = spec.sources.context
    for name in context.per_item if context else []:
        if context and name not in context.fields:
            raise FeatureError(None, f"context.perItem names '{name}'", did_you_mean(name, context.fields))
    for source, keyed in (("user", spec.sources.user), ("item", spec.sources.item)):
        if keyed and keyed.fields.get(keyed.key, FieldType.STRING) is not FieldType.STRING:
            raise FeatureError(
                None,
                f"the key '{source}.{keyed.key}' is declared as {keyed.fields[keyed.key].value}",
                "a key is a string",
            )
    for name, behavior in spec.sources.behavior.items():
        if duration_ms(behavior.max_age) <= 0:
            raise FeatureError(
                None, f"behavior '{name}': maxAge is {behavior.max_age}", "give a positive duration such as 24h"
            )


def _field(compilation: Compilation, feature: str, ref: str) -> Source:
    """Resolves `source.field`."""
    sources = compilation.spec.sources
    source, name = ref.split(".", 1)
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


def read_field(
    compilation: Compilation, feature: str, ref: str, allowed: Iterable[FieldType], what: str, hint: str = ""
) -> Source:
    """Resolves a field of one of the allowed types and notes that its column is read."""
    source = _field(compilation, feature, ref)
    allowed = tuple(allowed)
    if source.type not in allowed:
        if source.type is FieldType.FLOAT and FieldType.STRING in allowed:
            hint = "a float has no exact text: use raw with boundaries, or declare the field as int or string"
        if source.type is FieldType.STRING_FLOAT_MAP:
            hint = "a map is read by op: lookup, with a key"
        if source.type is FieldType.FLOAT_LIST:
            hint = "no operator of this release reads list<float>: declare single float fields"
        wanted = " or ".join(t.value for t in allowed)
        raise FeatureError(feature, f"'{ref}' is {source.type.value}, {what} takes {wanted}", hint)
    compilation.columns[source.column] = Input(source.column, source.type, per_item=source.side == "cross")
    return source


def common_side(sources: Iterable[Source]) -> Side:
    """Returns the side that all inputs share, `cross` if they differ."""
    sides = {source.side for source in sources}
    return sides.pop() if len(sides) == 1 else "cross"


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


def read_event_attribute(compilation: Compilation, feature: Feature, ref: str, what: str) -> tuple[str, Source]:
    """Returns the behaviour's list column that holds an item field of each event, and the item field."""
    source = _field(compilation, feature.name, ref)
    if not source.column.startswith("item."):
        raise FeatureError(
            feature.name, f"{what} '{ref}' is no item field", "an event knows its item: name an item field"
        )
    if source.type not in TEXT:
        hint = "use a field with one text or whole number"
        raise FeatureError(feature.name, f"{what} '{ref}' is {source.type.value}, it takes string or int", hint)
    item = compilation.spec.sources.item
    name = ref.split(".", 1)[1]
    if item is not None and name == item.key:
        return compilation.note(f"behavior.{feature.behavior}.item", FieldType.STRING, is_list=True), source
    if name in ("item", "action", "ts"):
        raise FeatureError(
            feature.name,
            f"{what} '{ref}': an event has its own '{name}'",
            "rename the item field so that both can be told apart",
        )
    return compilation.note(f"behavior.{feature.behavior}.{name}", source.type, is_list=True), source
