"""Compiles the operators that look into maps: lookup and match. What the map holds decides what they make."""

from featuregen.compiler.inputs import TEXTS, Compilation, Source, common_side, read_field
from featuregen.compiler.operators import refuse
from featuregen.compiler.tails import number_outputs, text_outputs, value_output
from featuregen.errors import FeatureError
from featuregen.plan import Operation, Side
from featuregen.sources import FieldType
from featuregen.spec import Combiner, Feature

_TEXT_ONLY = ("encode", "like", "prefix", "show")
_NUMBER_ONLY = ("combiner", "dim", "normalizer", "boundaries", "defaults")


def compile_lookup(compilation: Compilation, feature: Feature) -> list[Operation]:
    """What a map has under one or several keys: numbers, texts or vectors."""
    allowed = (FieldType.STRING_FLOAT_MAP, FieldType.STRING_STRING_MAP, FieldType.STRING_FLOATS_MAP)
    hint = "declare the field as map<string,float>; a map of maps is read by op: match"
    table = read_field(compilation, feature.name, feature.map or "", allowed, "lookup's map", hint)
    key = read_field(compilation, feature.name, feature.key or "", TEXTS, "lookup's key")
    side, columns = common_side((table, key)), (table.column, key.column)
    if table.type is FieldType.STRING_STRING_MAP:
        value = Operation(value_output(feature, side), "lookup", columns, show=_shown(feature, ("key",)))
        return _texts(compilation, feature, value, table)
    refuse(feature, _TEXT_ONLY, f"a lookup of numbers ({table.type.value})", "numbers become ids by boundaries")
    combiner = _combiner(feature)
    value = Operation(value_output(feature, side), "lookup", columns, combiner=combiner)
    if table.type is FieldType.STRING_FLOAT_MAP:
        refuse(feature, ("dim", "defaults"), "a map of single numbers", "declare the map as map<string,list<float>>")
        return number_outputs(compilation, feature, value)
    if feature.dim is None:
        hint = "say how many numbers each vector has: dim: n"
        raise FeatureError(feature.name, f"'{feature.map}' is {table.type.value}, and there is no dim", hint)
    if combiner in ("count", "none"):
        hint = "choose sum, mean, min or max"
        raise FeatureError(feature.name, f"combiner {combiner} does not go with vectors", hint)
    return number_outputs(compilation, feature, value, feature.dim)


def compile_match(compilation: Compilation, feature: Feature) -> list[Operation]:
    """What a map of maps has under two keys: numbers or texts."""
    allowed = (FieldType.NESTED_FLOAT_MAP, FieldType.NESTED_STRING_MAP)
    hint = "declare the field as map<string,map<string,float>>; a plain map is read by op: lookup"
    table = read_field(compilation, feature.name, feature.map or "", allowed, "match's map", hint)
    keys = [
        read_field(compilation, feature.name, ref, TEXTS, f"match's {name}") if ref else None
        for name, ref in (("pkey", feature.pkey), ("skey", feature.skey))
    ]
    side: Side = common_side((table, *(key for key in keys if key)))
    columns = (table.column, *(key.column if key else "" for key in keys))
    if table.type is FieldType.NESTED_STRING_MAP:
        value = Operation(value_output(feature, side), "match", columns, show=_shown(feature, ("pkey", "skey")))
        return _texts(compilation, feature, value, table)
    refuse(feature, _TEXT_ONLY, f"a match of numbers ({table.type.value})", "numbers become ids by boundaries")
    value = Operation(value_output(feature, side), "match", columns, combiner=_combiner(feature))
    return number_outputs(compilation, feature, value)


def _shown(feature: Feature, keys: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the keys that are shown, in the order of the text."""
    wrong = next((key for key in feature.show if key not in keys), None)
    if wrong is not None:
        hint = f"a text of {feature.op.value} shows {' and '.join(keys)}"
        raise FeatureError(feature.name, f"show has '{wrong}', {feature.op.value} has no such key", hint)
    if len(set(feature.show)) < len(feature.show):
        raise FeatureError(feature.name, f"show has '{feature.show[0]}' twice", "remove one")
    return tuple(key for key in keys if key in feature.show)


def _combiner(feature: Feature) -> str:
    if feature.combiner is Combiner.NONE and feature.stub:
        raise FeatureError(feature.name, "combiner none has no meaning for a stub", "others read one number: use sum")
    return (feature.combiner or Combiner.SUM).value


def _texts(compilation: Compilation, feature: Feature, value: Operation, table: Source) -> list[Operation]:
    hint = "texts become ids by encode: remove it, or declare the map with numbers"
    refuse(feature, _NUMBER_ONLY, f"a {feature.op.value} of texts ({table.type.value})", hint)
    return text_outputs(compilation, feature, value, FieldType.STRING_LIST)
