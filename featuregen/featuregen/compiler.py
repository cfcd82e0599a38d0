"""Compiles a feature spec to a plan: every mistake that can be found without data is found here, once, by name.

Pure Python, because the operator runs it at `kubectl apply` time and its image has neither NumPy nor numba. The result
is data (`featuregen.plan`): one operation for each output, split into user, item and cross sides.
"""

from dataclasses import replace

from featuregen.errors import FeatureError
from featuregen.inputs import (
    NUMBER,
    TEXTS,
    Compilation,
    Source,
    check_sources,
    common_side,
    read_behavior,
    read_event_attribute,
    read_field,
)
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
    Op,
    duration_ms,
)

__all__ = ["Input", "Output", "Plan", "compile_plan", "explain_difference"]


# Fields by operator: (required, allowed besides). Names as on the wire.
_FIELDS: dict[Op, tuple[tuple[str, ...], tuple[str, ...]]] = {
    Op.ID: (("in",), ("encode", "like", "default")),
    Op.RAW: (("in",), ("normalizer", "default", "boundaries")),
    Op.COMBO: (("in",), ("encode", "like", "combo", "default")),
    Op.LOOKUP: (("map", "key"), ("combiner", "normalizer", "default", "boundaries")),
    Op.SEQUENCE: (("behavior", "length", "fields"), ("actions", "default")),
    Op.WINDOW: (("behavior", "windows"), ("actions", "by", "agg")),
}


def compile_plan(spec: FeatureSpec) -> Plan:
    """Returns the plan of a spec.

    Raises:
        FeatureError: naming the feature, what is wrong and how to mend it.
    """
    compilation = Compilation(spec)
    check_sources(spec)
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
    compilation.note("now", FieldType.INT)
    rank = {"user": 0, "item": 1, "context": 2, "behavior": 3, "now": 4}
    inputs = sorted(compilation.columns.values(), key=lambda i: (rank[i.name.split(".")[0]], i.name))
    return Plan(
        hash=spec.hash.value,
        operations=tuple(operations),
        inputs=tuple(inputs),
        behaviors=dict(sorted(compilation.behaviors.items())),
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
        if name not in ("name", "op") and getattr(feature, name) not in (None, [], {}, False)
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


def _one_input(feature: Feature) -> str:
    if len(feature.in_) != 1:
        hint = "to cross fields use op: combo" if feature.op is Op.ID else "write one feature for each field"
        raise FeatureError(feature.name, f"{feature.op.value} takes one field, 'in' has {len(feature.in_)}", hint)
    return feature.in_[0]


def _choose(compilation: Compilation, feature: Feature) -> Encoder:
    name = feature.name
    return choose_encoder(compilation.spec, compilation.encoders, name, name, feature.encode, feature.like)


def _id(compilation: Compilation, feature: Feature) -> list[Operation]:
    source = read_field(compilation, feature.name, _one_input(feature), TEXTS, "id")
    encoder, default = _choose(compilation, feature), text_default(feature)
    check_text_default(feature.name, default, encoder)
    return [Operation(_ids_output(feature, encoder, source.side), "id", (source.column,), encoder, default_text=default)]


def _combo(compilation: Compilation, feature: Feature) -> list[Operation]:
    if len(feature.in_) < 2:
        raise FeatureError(feature.name, "combo takes two to eight fields, 'in' has 1", "for one field use op: id")
    sources = [read_field(compilation, feature.name, ref, TEXTS, "combo") for ref in feature.in_]
    encoder, default = _choose(compilation, feature), text_default(feature)
    if encoder.kind != "hash":
        raise FeatureError(feature.name, f"combo cannot use {encoder.kind} encoding", "give encode: {hashBuckets: n}")
    output = _ids_output(feature, encoder, common_side(sources))
    columns = tuple(source.column for source in sources)
    return [Operation(output, "combo", columns, encoder, default_text=default, mix=feature.combo is ComboMode.MIX)]


def _ids_output(feature: Feature, encoder: Encoder, side: Side) -> Output:
    return Output(feature.name, feature.name, "sparse", 0, encoder.buckets, encoder.table, side, 0)


def _number(feature: Feature, op: str, sources: list[Source]) -> Operation:
    """The tail that raw and lookup share: rescale, default, boundaries."""
    limits, side = boundaries(feature), common_side(sources)
    if limits is None:
        output = Output(feature.name, feature.name, "dense", 1, 0, None, side, 0)
    else:
        output = Output(feature.name, feature.name, "sparse", 0, len(limits) + 1, feature.name, side, 0)
    default = number_default(feature)
    if default is None and limits is None:
        default = 0.0
    columns = tuple(source.column for source in sources)
    defaults = None if default is None else (default,)
    made = Operation(output, "raw", columns, default_numbers=defaults, rescale=rescale(feature), boundaries=limits)
    return (
        replace(made, op="lookup", combiner=feature.combiner.value if feature.combiner else "sum")
        if op == "lookup"
        else made
    )


def _raw(compilation: Compilation, feature: Feature) -> list[Operation]:
    hint = "declare the field as int or float; lists and texts are not numbers here"
    source = read_field(compilation, feature.name, _one_input(feature), NUMBER, "raw", hint)
    return [_number(feature, "raw", [source])]


def _lookup(compilation: Compilation, feature: Feature) -> list[Operation]:
    table = read_field(
        compilation,
        feature.name,
        feature.map or "",
        (FieldType.STRING_FLOAT_MAP,),
        "lookup's map",
        "declare the field as map<string,float>",
    )
    key = read_field(compilation, feature.name, feature.key or "", TEXTS, "lookup's key")
    return [_number(feature, "lookup", [table, key])]


def _window(compilation: Compilation, feature: Feature) -> list[Operation]:
    behavior = read_behavior(compilation, feature)
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
        column, source = read_event_attribute(compilation, feature, feature.by, "by")
        compilation.note(source.column, source.type)
        columns, side = (column, source.column), "cross"
    output = Output(feature.name, feature.name, "dense", len(windows), 0, None, side, 0)
    made = Operation(
        output, "window", columns, behavior=behavior.name, actions=tuple(feature.actions), windows_ms=windows
    )
    return [made]


def _sequence(compilation: Compilation, feature: Feature) -> list[Operation]:
    behavior, length = read_behavior(compilation, feature), feature.length or 0
    if length > behavior.max_events:
        hint = f"a sequence cannot be longer than the {behavior.max_events} events that are kept"
        raise FeatureError(feature.name, f"length {length} is more than maxEvents of behavior '{behavior.name}'", hint)
    default = text_default(feature) or SEQUENCE_DEFAULT
    operations: list[Operation] = []
    for entry in feature.fields:
        name, where = sequence_output(feature, entry.in_), f"field '{entry.in_}' "
        if any(operation.output.name == name for operation in operations):
            raise FeatureError(feature.name, f"{where}is listed twice", "remove one")
        column, _ = read_event_attribute(compilation, feature, entry.in_ or "", "field")
        encoder = choose_encoder(
            compilation.spec, compilation.encoders, feature.name, name, entry.encode, entry.like, where
        )
        check_text_default(feature.name, default, encoder, where)
        output = Output(name, feature.name, "sequence", 0, encoder.buckets, encoder.table, "user", length)
        made = Operation(
            output, "sequence", (column,), encoder, default_text=default, behavior=behavior.name, actions=tuple(feature.actions)
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
