"""Compiles sequence: the fields of events, or of lists that a sample already has, element by element."""

import re
from collections.abc import Iterable
from dataclasses import replace

from featuregen.compiler.encoders import check_default, check_prefix, choose_encoder, sequence_output
from featuregen.compiler.inputs import (
    NUMBER,
    NUMBERS,
    Compilation,
    Source,
    common_side,
    read_behavior,
    read_event,
    read_field,
)
from featuregen.compiler.operators import last_names, refuse
from featuregen.compiler.options import boundaries, element_expression, number_default, rescale, text_default
from featuregen.errors import FeatureError
from featuregen.plan import SEQUENCE_DEFAULT, Operation, Output
from featuregen.sources import FieldType
from featuregen.spec import Feature, SequenceField

_ELEMENTS = {
    FieldType.STRING_LIST: FieldType.STRING,
    FieldType.INT_LIST: FieldType.INT,
    FieldType.FLOAT_LIST: FieldType.FLOAT,
    FieldType.STRING_LISTS: FieldType.STRING_LIST,
    FieldType.FLOAT_LISTS: FieldType.FLOAT_LIST,
}
_OF_EVENTS = (*NUMBER, FieldType.STRING, FieldType.STRING_LIST, FieldType.FLOAT_LIST)


def compile_sequence(compilation: Compilation, feature: Feature) -> list[Operation]:
    """One output for each field."""
    length = feature.length or 0
    if feature.behavior is None:
        refuse(feature, ("actions",), "a sequence without behavior", "only events have an action: remove it")
    else:
        behavior = read_behavior(compilation, feature)
        if length > behavior.max_events:
            raise FeatureError(
                feature.name,
                f"length {length} is more than maxEvents of behavior '{behavior.name}'",
                f"a sequence cannot be longer than the {behavior.max_events} events that are kept",
            )
    aligned = _aligned(compilation, feature)
    operations: list[Operation] = []
    refs: dict[str, str | None] = {}
    for field in feature.fields:
        where, name = _check(feature, field), sequence_output(feature, field)
        if name in refs:
            same = field.in_ is not None and refs[name] == field.in_
            problem = (
                f"{where}is listed twice" if same else f"two fields are called '{name.removeprefix(feature.name)[2:]}'"
            )
            raise FeatureError(feature.name, problem, "remove one" if same else "give one of them another name")
        refs[name] = field.in_
        output = Output(name, feature.name, "sequence", 0, 0, None, "user", length)
        base = Operation(
            output,
            "sequence",
            (),
            behavior=feature.behavior or "",
            actions=tuple(feature.actions),
            pad_empty=feature.pad_empty,
            aligned=aligned,
        )
        if field.expr is not None:
            operations.append(_expression(compilation, feature, field, base, where))
        else:
            operations.append(_field(compilation, feature, field, base, where))
    return operations


def _check(feature: Feature, field: SequenceField) -> str:
    """Checks which options a field has; returns how messages name it."""
    if (field.in_ is None) == (field.expr is None):
        problem = (
            "a field has neither in nor expr" if field.in_ is None else f"field '{field.in_}' has both in and expr"
        )
        raise FeatureError(feature.name, problem, "give one of them")
    where = f"field '{field.in_ or field.name}' "
    if field.in_ is not None:
        if field.vars:
            raise FeatureError(feature.name, f"{where}has vars, and no expr", "remove vars: only expr reads them")
        return where
    if field.name is None:
        raise FeatureError(feature.name, f"a field of expr '{field.expr}' has no name", "give it a name")
    for option, value in (
        ("encode", field.encode),
        ("like", field.like),
        ("prefix", field.prefix),
        ("dim", field.dim),
    ):
        if value is not None:
            hint = "an expression is one number: remove it, or put it into boundaries"
            raise FeatureError(feature.name, f"{where}has expr, and {option}", hint)
    return where


def _aligned(compilation: Compilation, feature: Feature) -> str:
    """Returns the list whose length is that of a sequence without behaviour: the first one of `in`, else of `vars`."""
    if feature.behavior is not None:
        return ""
    first = next((field.in_ for field in feature.fields if field.in_ is not None), None)
    if first is not None:
        return _plain(compilation, feature, first).column
    read = [_variable(compilation, feature, ref) for field in feature.fields for ref in field.vars]
    found = next((source.column for source in read if source.type in _ELEMENTS), None)
    if found is None:
        hint = "without behavior the first list, of in or else of vars, says how many elements there are"
        raise FeatureError(feature.name, "no field reads a list", hint)
    return found


def _plain(compilation: Compilation, feature: Feature, ref: str) -> Source:
    """Reads a list field of user or context, or of a feature of their side."""
    what = "a sequence without behavior"
    if ref.split(".")[0] in ("item", "event"):
        hint = "give behavior to read fields of events; without it name list fields of user or context"
        raise FeatureError(feature.name, f"field '{ref}' is no field of user or context", hint)
    source = read_field(compilation, feature.name, ref, _ELEMENTS, what, "declare the field as a list")
    if source.column.startswith(("item.", "feature.")) and source.side != "user":
        hint = "name list fields of user or context, or features of them"
        raise FeatureError(feature.name, f"field '{ref}' depends on the item", hint)
    return source


def _field(compilation: Compilation, feature: Feature, field: SequenceField, base: Operation, where: str) -> Operation:
    """Decides what the elements of a field are: ids or numbers."""
    ref = field.in_ or ""
    if feature.behavior is not None:
        hint = "use a field with one text, whole number or float, or with a list of texts"
        source = read_event(compilation, feature, ref, _OF_EVENTS, "field", hint)
        kind = source.type
    else:
        source = _plain(compilation, feature, ref)
        kind = _ELEMENTS[source.type]
    base = replace(base, columns=(source.column,), output=replace(base.output, side=source.side))
    encoded, numeric = field.encode or field.like, field.boundaries is not None or field.normalizer is not None
    if kind is FieldType.INT and not encoded and not numeric:
        hint = "give encode or like to make ids of it, or boundaries or a normalizer to take it as a number"
        raise FeatureError(feature.name, f"{where}is int: is it an id or a number?", hint)
    texts = kind in (FieldType.STRING, FieldType.STRING_LIST) or (kind is FieldType.INT and encoded)
    if texts and (numeric or field.dim):
        hint = "remove it: texts become ids by encode or like"
        given = "boundaries" if field.boundaries is not None else "a normalizer" if numeric else "dim"
        raise FeatureError(feature.name, f"{where}makes ids of texts, and has {given}", hint)
    if texts:
        return _ids(compilation, feature, field, base, where, multi=kind is FieldType.STRING_LIST)
    if field.prefix:
        hint = "a prefix is put before texts that are hashed: remove it"
        raise FeatureError(feature.name, f"{where}is a number, and has a prefix", hint)
    if encoded:
        hint = "a float has no exact text: use boundaries, or declare the field as int or string"
        raise FeatureError(feature.name, f"{where}is float, and has an encoder", hint)
    if kind is FieldType.FLOAT_LIST and field.dim is None:
        hint = "say how many numbers each element has: dim: n"
        raise FeatureError(feature.name, f"{where}has lists of numbers, and no dim", hint)
    if kind is not FieldType.FLOAT_LIST and (field.dim or 1) != 1:
        raise FeatureError(feature.name, f"{where}has dim {field.dim}, and single numbers", "remove dim")
    return _numbers(feature, field, base, where)


def _ids(
    compilation: Compilation, feature: Feature, field: SequenceField, base: Operation, where: str, multi: bool
) -> Operation:
    name = base.output.name
    encoder = choose_encoder(compilation, feature.name, name, field.encode, field.like, where)
    check_prefix(feature.name, field.prefix, encoder, where)
    default = text_default(feature.name, field.default if field.default is not None else feature.default, where)
    check_default(feature.name, default or SEQUENCE_DEFAULT, encoder, where)
    output = replace(base.output, buckets=encoder.buckets, table=encoder.table, multi=multi)
    default = default or SEQUENCE_DEFAULT
    return replace(base, output=output, encoder=encoder, prefix=field.prefix or "", default_text=default)


def _numbers(feature: Feature, field: SequenceField, base: Operation, where: str) -> Operation:
    """Numbers: a missing one is the default, 0 unless it is given, so that elements stay aligned."""
    given = field.default if field.default is not None else feature.default
    default, width = number_default(feature.name, given, where), field.dim or 1
    made = replace(
        base,
        dim=width,
        rescale=rescale(feature.name, field.normalizer, where),
        default_numbers=(default or 0.0,) * width,
        boundaries=boundaries(feature.name, field.boundaries, where),
    )
    if made.boundaries is None:
        return replace(made, output=replace(base.output, width=width))
    if width > 1:
        hint = "remove boundaries: an element has one id, or many of texts"
        raise FeatureError(feature.name, f"{where}has boundaries, and vectors of {width} numbers", hint)
    return replace(made, output=replace(base.output, buckets=len(made.boundaries) + 1, table=base.output.name))


def _expression(
    compilation: Compilation, feature: Feature, field: SequenceField, base: Operation, where: str
) -> Operation:
    """Numbers of an expression over fields, `now` and the events' `ts`, element by element."""
    text = field.expr or ""
    names = last_names(feature.name, field.vars, f"{where}vars")
    columns = []
    sides = []
    for ref in field.vars:
        source = _variable(compilation, feature, ref)
        columns.append(source.column)
        sides.append(source)
    times = {"now": "now"} | ({"ts": f"behavior.{feature.behavior}.ts"} if feature.behavior else {})
    for name, column in times.items():
        if name in names:
            hint = "rename the field: now and ts are the request's and the event's time"
            raise FeatureError(feature.name, f"{where}vars has a field called '{name}'", hint)
        if re.search(rf"\b{name}\b", text):
            names.append(name)
            columns.append(column)
    program = element_expression(feature.name, text, names, where)
    side = common_side(sides) if sides else "user"
    made = replace(base, columns=tuple(columns), program=program, output=replace(base.output, side=side))
    return _numbers(feature, field, made, where)


def _variable(compilation: Compilation, feature: Feature, ref: str) -> Source:
    """Reads a number of each element, or a single number that holds for all of them."""
    origin = ref.split(".")[0]
    hint = "expressions compute with numbers"
    if feature.behavior is not None and origin in ("item", "event"):
        return read_event(compilation, feature, ref, NUMBER, "vars", hint)
    if origin in ("item", "event"):
        return _plain(compilation, feature, ref)
    allowed: Iterable[FieldType] = NUMBER if feature.behavior is not None else NUMBERS
    source = read_field(compilation, feature.name, ref, allowed, "vars", hint)
    if source.column.startswith(("item.", "feature.")) and source.side != "user":
        problem = f"vars: '{ref}' depends on the item"
        raise FeatureError(feature.name, problem, "name fields of user, context or events")
    return source
