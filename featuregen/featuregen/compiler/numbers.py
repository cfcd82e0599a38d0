"""Compiles the operators that make numbers of fields: raw, combine, expr, overlap, kv_dot."""

from featuregen.compiler.inputs import NUMBER, NUMBERS, WORDS, Compilation, common_side, read_field
from featuregen.compiler.operators import last_names, one_input
from featuregen.compiler.options import expression
from featuregen.compiler.tails import number_outputs, value_output
from featuregen.errors import FeatureError
from featuregen.plan import Operation
from featuregen.sources import FieldType
from featuregen.spec import Combiner, Feature


def compile_raw(compilation: Compilation, feature: Feature) -> list[Operation]:
    """A number, or a vector of `dim` numbers."""
    ref = one_input(feature)
    hint = "declare the field as int or float, or as list<float> with dim"
    source = read_field(compilation, feature.name, ref, NUMBERS, "raw", hint)
    if source.type in NUMBER:
        if (feature.dim or 1) != 1:
            hint = "remove dim, or declare the field as list<float>"
            raise FeatureError(feature.name, f"dim is {feature.dim}, '{ref}' is a single {source.type.value}", hint)
    elif feature.dim is None:
        hint = "say how many numbers it has: dim: n; to make one number of them use op: combine"
        raise FeatureError(feature.name, f"'{ref}' is {source.type.value}, and there is no dim", hint)
    value = Operation(value_output(feature, source.side), "raw", (source.column,))
    return number_outputs(compilation, feature, value, feature.dim or 1)


def compile_combine(compilation: Compilation, feature: Feature) -> list[Operation]:
    """One number of several: of texts by a value map, or of a list of numbers."""
    if feature.combiner is Combiner.NONE:
        hint = "choose sum, mean, min, max or count; to keep numbers apart use op: raw with dim"
        raise FeatureError(feature.name, "combine makes one number, combiner none keeps several", hint)
    texts = bool(feature.value_map)
    hint = "numbers need no valueMap: remove it" if texts else ""
    source = read_field(
        compilation,
        feature.name,
        one_input(feature),
        WORDS if texts else NUMBERS,
        "combine with valueMap" if texts else "combine without valueMap",
        hint,
    )
    for word in feature.value_map or {}:
        if not word:
            hint = "an empty text is a missing value: use default"
            raise FeatureError(feature.name, "valueMap has an empty word", hint)
    value = Operation(
        value_output(feature, source.side),
        "combine",
        (source.column,),
        combiner=(feature.combiner or Combiner.SUM).value,
        value_map=tuple(sorted((feature.value_map or {}).items())),
    )
    return number_outputs(compilation, feature, value)


def compile_expr(compilation: Compilation, feature: Feature) -> list[Operation]:
    """An expression over the fields of `in`, which it calls by their last name."""
    names = last_names(feature.name, feature.in_, "in")
    hint = "expressions compute with int, float, list<int> and list<float>"
    sources = [read_field(compilation, feature.name, ref, NUMBERS, "expr", hint) for ref in feature.in_]
    program = expression(feature.name, feature.expr or "", names)
    value = Operation(
        value_output(feature, common_side(sources)),
        "expr",
        tuple(source.column for source in sources),
        program=program,
        fill_missing=feature.fill_missing,
    )
    return number_outputs(compilation, feature, value, feature.dim or 1)


def compile_overlap(compilation: Compilation, feature: Feature) -> list[Operation]:
    """A measure of two lists of words."""
    hint = "declare the field as list<string>"
    query = read_field(compilation, feature.name, feature.query or "", WORDS, "overlap's query", hint)
    title = read_field(compilation, feature.name, feature.title or "", WORDS, "overlap's title", hint)
    assert feature.method is not None, feature.name
    value = Operation(
        value_output(feature, common_side((query, title))),
        "overlap",
        (query.column, title.column),
        method=feature.method.value,
    )
    return number_outputs(compilation, feature, value)


def compile_kv_dot(compilation: Compilation, feature: Feature) -> list[Operation]:
    """The dot product of two maps, or lists of keys that count 1."""
    allowed = (FieldType.STRING_FLOAT_MAP, FieldType.STRING_LIST)
    hint = "declare the field as map<string,float>, or as list<string> of keys"
    query = read_field(compilation, feature.name, feature.query or "", allowed, "kv_dot's query", hint)
    document = read_field(compilation, feature.name, feature.document or "", allowed, "kv_dot's document", hint)
    side = common_side((query, document))
    return number_outputs(
        compilation, feature, Operation(value_output(feature, side), "kv_dot", (query.column, document.column))
    )
