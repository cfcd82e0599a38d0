"""Compiles the operators that make texts: bool_mask, tokenize, text_normalizer, regex_replace, str_format, str_slice.

They exist as derived columns only, computed by one implementation for every engine; ids are made of the column. Their
options go into the plan as texts, so that a plan stays plain data.
"""

from string import Formatter

from featuregen.compiler.inputs import TEXT, TEXTS, WORDS, Compilation, Source, common_side, find_file, read_field
from featuregen.compiler.operators import last_names, one_input, options, refuse
from featuregen.compiler.regex import RegexError, parse_regex, parse_replacement
from featuregen.compiler.tails import number_outputs, text_outputs, value_output
from featuregen.errors import FeatureError, did_you_mean
from featuregen.plan import Operation
from featuregen.sources import FieldType
from featuregen.spec import CustomType, Feature, TextStep, TokenForm

DEFAULT_STEPS = (TextStep.UPPER, TextStep.HALF_WIDTH, TextStep.SIMPLIFIED, TextStep.FILTER)
_TEXT_ONLY = ("encode", "like", "prefix")
_NUMBER_ONLY = ("dim", "normalizer", "boundaries", "defaults")
_STRING_HINT = "declare the field as string"


def _parameters(**given: object) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((name, str(value)) for name, value in given.items() if value is not None))


def _of_one(feature: Feature, source: Source, parameters: tuple[tuple[str, str], ...]) -> Operation:
    return Operation(
        value_output(feature, source.side),
        feature.op.value,
        (source.column,),
        parameters=parameters,
    )


def compile_bool_mask(compilation: Compilation, feature: Feature) -> list[Operation]:
    """The elements that a mask allows."""
    if len(feature.in_) != 2:
        hint = "the first field has the values, the second the mask"
        raise FeatureError(feature.name, f"bool_mask takes two fields, 'in' has {len(feature.in_)}", hint)
    value, mask = (
        read_field(compilation, feature.name, ref, TEXTS, f"bool_mask's {what}")
        for ref, what in zip(feature.in_, ("value", "mask"), strict=True)
    )
    whole = value.type in (FieldType.INT, FieldType.INT_LIST)
    made = Operation(value_output(feature, common_side((value, mask))), "bool_mask", (value.column, mask.column))
    kind = FieldType.INT_LIST if whole else FieldType.STRING_LIST
    return text_outputs(compilation, feature, made, kind, apart=True)


def compile_tokenize(compilation: Compilation, feature: Feature) -> list[Operation]:
    """A text's tokens."""
    source = read_field(compilation, feature.name, one_input(feature), (FieldType.STRING,), "tokenize", _STRING_HINT)
    form = feature.tokens or TokenForm.ID
    value = Operation(
        value_output(feature, source.side),
        "tokenize",
        (source.column,),
        file=find_file(compilation, feature.name, feature.tokenizer or ""),
        parameters=_parameters(tokens=form.value),
    )
    kind = FieldType.INT_LIST if form is TokenForm.ID else FieldType.STRING_LIST
    return text_outputs(compilation, feature, value, kind, apart=True)


def compile_text_normalizer(compilation: Compilation, feature: Feature) -> list[Operation]:
    """One spelling of a text, or its characters."""
    name, steps = feature.name, tuple(feature.steps) or DEFAULT_STEPS
    source = read_field(compilation, name, one_input(feature), (FieldType.STRING,), "text_normalizer", _STRING_HINT)
    twice = next((step for index, step in enumerate(steps) if step in steps[:index]), None)
    if twice is not None:
        raise FeatureError(name, f"steps has '{twice.value}' twice", "remove one: steps run once, in their own order")
    if TextStep.LOWER in steps and TextStep.UPPER in steps:
        raise FeatureError(name, "steps has both lower and upper", "remove one of them")
    if feature.stop_chars is not None and (TextStep.FILTER not in steps or not feature.stop_chars):
        problem = "stopChars is empty" if not feature.stop_chars else "stopChars is given, and steps has no filter"
        raise FeatureError(name, problem, "filter drops stopChars: list both, or neither")
    ordered = ",".join(step.value for step in TextStep if step in steps)
    parameters = _parameters(steps=ordered, stop_chars=feature.stop_chars, max_length=feature.max_length)
    kind = FieldType.STRING_LIST if TextStep.SPLIT_CHARS in steps else FieldType.STRING
    return text_outputs(compilation, feature, _of_one(feature, source, parameters), kind, apart=True)


def compile_regex_replace(compilation: Compilation, feature: Feature) -> list[Operation]:
    """A text, or each text of a list, in which matches are replaced."""
    source = read_field(compilation, feature.name, one_input(feature), WORDS, "regex_replace", _STRING_HINT)
    replacement = feature.replacement or ""
    try:
        parse_replacement(replacement, parse_regex(feature.pattern or "").groups)
    except RegexError as error:
        raise FeatureError(feature.name, error.problem, error.hint) from None
    parameters = _parameters(pattern=feature.pattern, replacement=replacement)
    return text_outputs(compilation, feature, _of_one(feature, source, parameters), source.type, apart=True)


def compile_str_slice(compilation: Compilation, feature: Feature) -> list[Operation]:
    """A part of a text, or of each text of a list."""
    source = read_field(compilation, feature.name, one_input(feature), WORDS, "str_slice", _STRING_HINT)
    if feature.start is None and feature.stop is None:
        raise FeatureError(feature.name, "str_slice has neither start nor stop", options(feature))
    parameters = _parameters(start=feature.start, stop=feature.stop)
    return text_outputs(compilation, feature, _of_one(feature, source, parameters), source.type, apart=True)


def compile_str_format(compilation: Compilation, feature: Feature) -> list[Operation]:
    """One text of several fields."""
    names = last_names(feature.name, feature.in_, "in")
    hint = "a format takes single texts and whole numbers"
    sources = [read_field(compilation, feature.name, ref, TEXT, "str_format", hint) for ref in feature.in_]
    value = Operation(
        value_output(feature, common_side(sources)),
        "str_format",
        tuple(source.column for source in sources),
        parameters=_parameters(format=_positional(feature, names)),
    )
    return text_outputs(compilation, feature, value, FieldType.STRING, apart=True)


def _positional(feature: Feature, names: list[str]) -> str:
    """Returns the format with positions instead of names: columns have other names than the spec's fields."""
    text, used = "", set()
    try:
        parts = list(Formatter().parse(feature.format or ""))
    except ValueError as error:
        hint = "write {{ and }} for the characters"
        raise FeatureError(feature.name, f"format '{feature.format}': {error}", hint) from None
    for literal, name, spec, conversion in parts:
        text += literal.replace("{", "{{").replace("}", "}}")
        if name is None:
            continue
        if spec or conversion:
            hint = "a format has {field} only"
            raise FeatureError(feature.name, f"format '{feature.format}': '{name}' has a conversion", hint)
        if name not in names:
            problem = f"format '{feature.format}' names '{name}'"
            raise FeatureError(feature.name, problem, did_you_mean(name, names, "fields of in"))
        used.add(name)
        text += f"{{{names.index(name)}}}"
    unused = [name for name in names if name not in used]
    if unused:
        hint = "use it, or remove it from in"
        raise FeatureError(feature.name, f"format '{feature.format}' does not use '{unused[0]}'", hint)
    return text


def compile_custom(compilation: Compilation, feature: Feature) -> list[Operation]:
    """What a function of the user returns: texts or numbers, by its declared type."""
    sources = [read_field(compilation, feature.name, ref, tuple(FieldType), "custom") for ref in feature.in_]
    assert feature.type is not None, feature.name
    value = Operation(
        value_output(feature, common_side(sources)),
        "custom",
        tuple(source.column for source in sources),
        method=feature.udf or "",
        parameters=_parameters(**feature.parameters),
    )
    if feature.type in (CustomType.STRING, CustomType.STRING_LIST):
        refuse(feature, _NUMBER_ONLY, f"a custom function of type {feature.type.value}", "texts become ids by encode")
        return text_outputs(compilation, feature, value, FieldType(feature.type.value), apart=True)
    hint = "numbers become ids by boundaries"
    refuse(feature, _TEXT_ONLY, f"a custom function of type {feature.type.value}", hint)
    if feature.type is CustomType.FLOAT:
        refuse(feature, ("dim", "defaults"), "a custom function of type float", "a vector has type: list<float>")
    elif feature.dim is None:
        hint = "say how many numbers it returns: dim: n"
        raise FeatureError(feature.name, "type is list<float>, and there is no dim", hint)
    return number_outputs(compilation, feature, value, feature.dim or 1, apart=FieldType(feature.type.value))
