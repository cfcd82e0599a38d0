"""Compiles a feature spec to a plan: every mistake that can be found without data is found here, once, by name.

Pure Python, because the operator runs it at `kubectl apply` time and its image has neither NumPy nor numba. The result
is data (`featuregen.plan`): one operation for each output, split into user, item and cross sides.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from featuregen.errors import FeatureError, did_you_mean
from featuregen.options import (
    boundaries,
    check_text_default,
    choose_encoder,
    collect_encoders,
    number_default,
    rescale,
    sequence_output,
    text_default,
)
from featuregen.plan import (
    SEQUENCE_DEFAULT,
    Behavior,
    Encoder,
    Input,
    Operation,
    Output,
    Plan,
    Side,
    explain_difference,
)
from featuregen.spec import (
    ComboMode,
    Feature,
    FeatureSpec,
    FieldType,
    KeyedSource,
    Op,
    duration_ms,
)

__all__ = ["Input", "Output", "Plan", "compile_plan", "explain_difference"]

_TEXT = (FieldType.STRING, FieldType.INT)
_TEXTS = (*_TEXT, FieldType.STRING_LIST, FieldType.INT_LIST)
_NUMBER = (FieldType.INT, FieldType.FLOAT)

# Fields by operator: (required, allowed besides). Names as on the wire.
_FIELDS: dict[Op, tuple[tuple[str, ...], tuple[str, ...]]] = {
    Op.ID: (("in",), ("encode", "like", "default")),
    Op.RAW: (("in",), ("normalizer", "default", "boundaries")),
    Op.COMBO: (("in",), ("encode", "like", "combo", "default")),
    Op.LOOKUP: (("map", "key"), ("combiner", "normalizer", "default", "boundaries")),
    Op.SEQUENCE: (("behavior", "length", "fields"), ("actions", "default")),
    Op.WINDOW: (("behavior", "windows"), ("actions", "by", "agg")),
}


@dataclass(frozen=True)
class _Source:
    column: str
    type: FieldType
    side: Side


@dataclass
class _Compilation:
    """What is known while features are compiled one after the other."""

    spec: FeatureSpec
    columns: dict[str, Input] = field(default_factory=dict)
    behaviors: dict[str, Behavior] = field(default_factory=dict)
    encoders: dict[str, Encoder] = field(default_factory=dict)

    def read(self, column: str, kind: FieldType, is_list: bool = False) -> str:
        self.columns[column] = Input(column, kind, is_list)
        return column


def compile_plan(spec: FeatureSpec) -> Plan:
    """Returns the plan of a spec.

    Raises:
        FeatureError: naming the feature, what is wrong and how to mend it.
    """
    compilation = _Compilation(spec)
    _check_context(spec)
    _check_names(spec)
    for feature in spec.list:
        _check_fields(feature)
    compilation.encoders.update(collect_encoders(spec))
    operations: list[Operation] = []
    for feature in spec.list:
        operations += _COMPILERS[feature.op](compilation, feature)
    taken: dict[str, str] = {}
    for operation in operations:
        name = operation.output.name
        if name in taken:
            raise FeatureError(
                operation.output.feature,
                f"its output '{name}' has the name of an output of '{taken[name]}'",
                "rename one",
            )
        taken[name] = operation.output.feature
    compilation.read("now", FieldType.INT)
    rank = {"user": 0, "item": 1, "context": 2, "behavior": 3, "now": 4}
    inputs = sorted(compilation.columns.values(), key=lambda i: (rank[i.name.split(".")[0]], i.name))
    return Plan(
        hash=spec.hash.value,
        operations=tuple(operations),
        inputs=tuple(inputs),
        behaviors=dict(sorted(compilation.behaviors.items())),
    )


def _check_context(spec: FeatureSpec) -> None:
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


def _check_names(spec: FeatureSpec) -> None:
    seen: set[str] = set()
    for feature in spec.list:
        if feature.name in seen:
            raise FeatureError(feature.name, "two features have this name", "names are unique: rename one of them")
        seen.add(feature.name)


def _wire_name(name: str) -> str:
    info = Feature.model_fields[name]
    return info.alias or name


def _options(feature: Feature) -> str:
    required, allowed = _FIELDS[feature.op]
    return f"op {feature.op.value} has: " + ", ".join(required + allowed)


def _check_fields(feature: Feature) -> None:
    """Refuses what an operator needs and lacks, and what is given but would be ignored."""
    required, allowed = _FIELDS[feature.op]
    given = {
        _wire_name(name)
        for name in Feature.model_fields
        if name not in ("name", "op") and getattr(feature, name) not in (None, [])
    }
    for name in required:
        if name not in given:
            raise FeatureError(
                feature.name,
                f"{feature.op.value} needs '{name}'",
                _options(feature),
            )
    for name in sorted(given):
        if name not in required + allowed:
            raise FeatureError(
                feature.name,
                f"'{name}' has no meaning for {feature.op.value}",
                "remove it; " + _options(feature),
            )


def _field(compilation: _Compilation, feature: str, ref: str) -> _Source:
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
    return _Source(f"{source}.{name}", fields[name], side)


def _read(
    compilation: _Compilation, feature: str, ref: str, allowed: Iterable[FieldType], what: str, hint: str = ""
) -> _Source:
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


def _side(sources: Iterable[_Source]) -> Side:
    sides = {source.side for source in sources}
    return sides.pop() if len(sides) == 1 else "cross"


def _one_input(feature: Feature) -> str:
    if len(feature.in_) != 1:
        hint = "to cross fields use op: combo" if feature.op is Op.ID else "write one feature for each field"
        raise FeatureError(feature.name, f"{feature.op.value} takes one field, 'in' has {len(feature.in_)}", hint)
    return feature.in_[0]


def _choose(compilation: _Compilation, feature: Feature) -> Encoder:
    name = feature.name
    return choose_encoder(compilation.spec, compilation.encoders, name, name, feature.encode, feature.like)


def _id(compilation: _Compilation, feature: Feature) -> list[Operation]:
    source = _read(compilation, feature.name, _one_input(feature), _TEXTS, "id")
    encoder, default = _choose(compilation, feature), text_default(feature)
    check_text_default(feature.name, default, encoder)
    return [Operation(_ids_output(feature, encoder, source.side), "id", (source.column,), encoder, default)]


def _combo(compilation: _Compilation, feature: Feature) -> list[Operation]:
    if len(feature.in_) < 2:
        raise FeatureError(feature.name, "combo takes two to eight fields, 'in' has 1", "for one field use op: id")
    sources = [_read(compilation, feature.name, ref, _TEXTS, "combo") for ref in feature.in_]
    encoder, default = _choose(compilation, feature), text_default(feature)
    if encoder.kind != "hash":
        raise FeatureError(feature.name, f"combo cannot use {encoder.kind} encoding", "give encode: {hashBuckets: n}")
    output = _ids_output(feature, encoder, _side(sources))
    columns = tuple(source.column for source in sources)
    return [Operation(output, "combo", columns, encoder, default, mix=feature.combo is ComboMode.MIX)]


def _ids_output(feature: Feature, encoder: Encoder, side: Side) -> Output:
    return Output(feature.name, feature.name, "sparse", 0, encoder.buckets, encoder.table, side, 0)


def _number(feature: Feature, op: str, sources: list[_Source]) -> Operation:
    """The tail that raw and lookup share: rescale, default, boundaries."""
    limits, side = boundaries(feature), _side(sources)
    if limits is None:
        output = Output(feature.name, feature.name, "dense", 1, 0, None, side, 0)
    else:
        output = Output(feature.name, feature.name, "sparse", 0, len(limits) + 1, feature.name, side, 0)
    default = number_default(feature)
    if default is None and limits is None:
        default = 0.0
    columns = tuple(source.column for source in sources)
    made = Operation(output, "raw", columns, default_number=default, rescale=rescale(feature), boundaries=limits)
    return (
        replace(made, op="lookup", combiner=feature.combiner.value if feature.combiner else "sum")
        if op == "lookup"
        else made
    )


def _raw(compilation: _Compilation, feature: Feature) -> list[Operation]:
    hint = "declare the field as int or float; lists and texts are not numbers here"
    source = _read(compilation, feature.name, _one_input(feature), _NUMBER, "raw", hint)
    return [_number(feature, "raw", [source])]


def _lookup(compilation: _Compilation, feature: Feature) -> list[Operation]:
    table = _read(
        compilation,
        feature.name,
        feature.map or "",
        (FieldType.STRING_FLOAT_MAP,),
        "lookup's map",
        "declare the field as map<string,float>",
    )
    key = _read(compilation, feature.name, feature.key or "", _TEXTS, "lookup's key")
    return [_number(feature, "lookup", [table, key])]


def _behavior(compilation: _Compilation, feature: Feature) -> Behavior:
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
    compilation.read(f"behavior.{name}.ts", FieldType.INT, is_list=True)
    if feature.actions:
        compilation.read(f"behavior.{name}.action", FieldType.STRING, is_list=True)
    return found


def _event_attribute(compilation: _Compilation, feature: Feature, ref: str, what: str) -> tuple[str, _Source]:
    """Returns the behaviour's list column that holds an item field of each event, and the item field."""
    source = _field(compilation, feature.name, ref)
    if not source.column.startswith("item."):
        raise FeatureError(
            feature.name, f"{what} '{ref}' is no item field", "an event knows its item: name an item field"
        )
    if source.type not in _TEXT:
        hint = "use a field with one text or whole number"
        raise FeatureError(feature.name, f"{what} '{ref}' is {source.type.value}, it takes string or int", hint)
    item = compilation.spec.sources.item
    name = ref.split(".", 1)[1]
    if item is not None and name == item.key:
        return compilation.read(f"behavior.{feature.behavior}.item", FieldType.STRING, is_list=True), source
    if name in ("item", "action", "ts"):
        raise FeatureError(
            feature.name,
            f"{what} '{ref}': an event has its own '{name}'",
            "rename the item field so that both can be told apart",
        )
    return compilation.read(f"behavior.{feature.behavior}.{name}", source.type, is_list=True), source


def _window(compilation: _Compilation, feature: Feature) -> list[Operation]:
    behavior = _behavior(compilation, feature)
    windows = tuple(duration_ms(text) for text in feature.windows)
    for index, (text, window) in enumerate(zip(feature.windows, windows, strict=True)):
        if window <= 0:
            raise FeatureError(feature.name, f"window {text} is empty", "give a positive duration such as 1h")
        if window > behavior.max_age_ms:
            known = compilation.spec.sources.behavior[behavior.name].max_age
            hint = f"older events are not kept: raise sources.behavior.{behavior.name}.maxAge or drop the window"
            raise FeatureError(
                feature.name, f"window {text} is longer than maxAge {known} of behavior '{behavior.name}'", hint
            )
        if index and window <= windows[index - 1]:
            raise FeatureError(
                feature.name,
                f"windows do not increase: {feature.windows[index - 1]}, {text}",
                "sort them and remove doubles",
            )
    side: Side = "user"
    columns: tuple[str, ...] = ()
    if feature.by is not None:
        column, source = _event_attribute(compilation, feature, feature.by, "by")
        compilation.read(source.column, source.type)
        columns, side = (column, source.column), "cross"
    output = Output(feature.name, feature.name, "dense", len(windows), 0, None, side, 0)
    made = Operation(
        output, "window", columns, behavior=behavior.name, actions=tuple(feature.actions), windows_ms=windows
    )
    return [made]


def _sequence(compilation: _Compilation, feature: Feature) -> list[Operation]:
    behavior, length = _behavior(compilation, feature), feature.length or 0
    if length > behavior.max_events:
        hint = f"a sequence cannot be longer than the {behavior.max_events} events that are kept"
        raise FeatureError(feature.name, f"length {length} is more than maxEvents of behavior '{behavior.name}'", hint)
    default = text_default(feature) or SEQUENCE_DEFAULT
    operations: list[Operation] = []
    for entry in feature.fields:
        name, where = sequence_output(feature, entry.in_), f"field '{entry.in_}' "
        if any(operation.output.name == name for operation in operations):
            raise FeatureError(feature.name, f"{where}is listed twice", "remove one")
        column, _ = _event_attribute(compilation, feature, entry.in_, "field")
        encoder = choose_encoder(
            compilation.spec, compilation.encoders, feature.name, name, entry.encode, entry.like, where
        )
        check_text_default(feature.name, default, encoder, where)
        output = Output(name, feature.name, "sequence", 0, encoder.buckets, encoder.table, "user", length)
        made = Operation(
            output, "sequence", (column,), encoder, default, behavior=behavior.name, actions=tuple(feature.actions)
        )
        operations.append(made)
    return operations


_COMPILERS = {
    Op.ID: _id,
    Op.RAW: _raw,
    Op.COMBO: _combo,
    Op.LOOKUP: _lookup,
    Op.SEQUENCE: _sequence,
    Op.WINDOW: _window,
}
