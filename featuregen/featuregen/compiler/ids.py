"""Compiles the operators that make ids of fields as they are: id and combo."""

from dataclasses import replace

from featuregen.compiler.inputs import TEXTS, Compilation, common_side, read_field
from featuregen.compiler.operators import one_input
from featuregen.compiler.tails import text_outputs, value_output
from featuregen.errors import FeatureError
from featuregen.plan import Operation
from featuregen.sources import FieldType
from featuregen.spec import ComboMode, Feature


def compile_id(compilation: Compilation, feature: Feature) -> list[Operation]:
    """Ids of a text, a whole number or a list of them; weighted: of the keys of a map."""
    if feature.weighted:
        hint = "weights come with their ids: declare the field as map<string,float>"
        allowed: tuple[FieldType, ...] = (FieldType.STRING_FLOAT_MAP,)
        source = read_field(compilation, feature.name, one_input(feature), allowed, "weighted id", hint)
        if feature.stub:
            raise FeatureError(
                feature.name, "'weighted' has no meaning for a stub", "remove stub: weights are an output"
            )
    else:
        source = read_field(compilation, feature.name, one_input(feature), TEXTS, "id")
        compilation.values[feature.name] = source  # feature.x is another name of the field
    value = Operation(value_output(feature, source.side), "id", (source.column,))
    made = text_outputs(compilation, feature, value, None)
    return [replace(one, output=replace(one.output, weighted=feature.weighted)) for one in made]


def compile_combo(compilation: Compilation, feature: Feature) -> list[Operation]:
    """Every combination of two to eight fields."""
    if len(feature.in_) < 2:
        raise FeatureError(feature.name, "combo takes two to eight fields, 'in' has 1", "for one field use op: id")
    sources = [read_field(compilation, feature.name, ref, TEXTS, "combo") for ref in feature.in_]
    mix = feature.combo is ComboMode.MIX
    if mix and feature.prefix:
        raise FeatureError(feature.name, "prefix does not go with combo: mix", "mix hashes no joined text: remove it")
    if mix and feature.name in compilation.read_features:
        hint = "mix joins no text that others could read: use combo: concat"
        raise FeatureError(feature.name, "combo: mix is read by another feature", hint)
    columns = tuple(source.column for source in sources)
    value = Operation(value_output(feature, common_side(sources)), "combo", columns, mix=mix)
    return text_outputs(compilation, feature, value, FieldType.STRING_LIST, only=("hash",))
