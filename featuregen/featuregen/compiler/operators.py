"""Which fields each operator needs and which it allows: what is given and would be ignored is refused."""

from collections.abc import Iterable

from featuregen.errors import FeatureError
from featuregen.spec import Feature, Op

_TEXTS = ("encode", "like", "prefix", "default", "stub")
_NUMBERS = ("normalizer", "default", "boundaries", "stub")
_VECTORS = ("dim", "normalizer", "default", "defaults", "boundaries", "stub")

# Fields by operator: (required, allowed besides). Names as on the wire.
_FIELDS: dict[Op, tuple[tuple[str, ...], tuple[str, ...]]] = {
    Op.ID: (("in",), ("weighted", *_TEXTS)),
    Op.RAW: (("in",), _VECTORS),
    Op.COMBO: (("in",), ("combo", *_TEXTS)),
    Op.COMBINE: (("in",), ("valueMap", "combiner", "encode", *_NUMBERS)),
    Op.LOOKUP: (("map", "key"), ("show", "combiner", "encode", "like", "prefix", *_VECTORS)),
    Op.MATCH: (("map",), ("pkey", "skey", "show", "combiner", "encode", "like", "prefix", *_NUMBERS)),
    Op.EXPR: (("in", "expr"), ("fillMissing", *_VECTORS)),
    Op.OVERLAP: (("query", "title", "method"), _NUMBERS),
    Op.KV_DOT: (("query", "document"), _NUMBERS),
    Op.BOOL_MASK: (("in",), _TEXTS),
    Op.TOKENIZE: (("in", "tokenizer"), ("tokens", *_TEXTS)),
    Op.TEXT_NORMALIZER: (("in",), ("steps", "stopChars", "maxLength", *_TEXTS)),
    Op.REGEX_REPLACE: (("in", "pattern"), ("replacement", *_TEXTS)),
    Op.STR_FORMAT: (("in", "format"), _TEXTS),
    Op.STR_SLICE: (("in",), ("start", "stop", *_TEXTS)),
    Op.CUSTOM: (("in", "udf", "type"), ("parameters", "encode", "like", "prefix", *_VECTORS)),
    Op.SEQUENCE: (("length", "fields"), ("behavior", "actions", "padEmpty", "default")),
    Op.WINDOW: (("behavior", "windows"), ("actions", "by", "agg", "value", "default", "stub")),
}
_OF_OUTPUTS = ("encode", "like", "prefix", "boundaries")


def wire_name(name: str) -> str:
    """Returns the name that a field has in YAML."""
    return Feature.model_fields[name].alias or name


def _is_given(value: object) -> bool:
    return value is not None and value is not False and value != [] and value != {}


def given_fields(feature: Feature) -> set[str]:
    """Returns the fields that are set, by their wire names; the empty text, list and map are not, and neither is no."""
    return {wire_name(name) for name in Feature.model_fields if _is_given(getattr(feature, name))} - {"name", "op"}


def options(feature: Feature) -> str:
    """Says which fields the operator has."""
    required, allowed = _FIELDS[feature.op]
    return f"op {feature.op.value} has: " + ", ".join(required + allowed)


def check_fields(feature: Feature) -> None:
    """Refuses what an operator needs and lacks, and what is given but would be ignored."""
    required, allowed = _FIELDS[feature.op]
    given = given_fields(feature)
    for name in required:
        if name not in given:
            raise FeatureError(feature.name, f"{feature.op.value} needs '{name}'", options(feature))
    for name in sorted(given):
        if name not in required + allowed:
            raise FeatureError(
                feature.name, f"'{name}' has no meaning for {feature.op.value}", "remove it; " + options(feature)
            )
    if feature.stub:
        refuse(feature, _OF_OUTPUTS, "a stub", "a stub has no output, only a value that others read: remove it")


def refuse(feature: Feature, names: Iterable[str], what: str, hint: str = "remove it") -> None:
    """Refuses fields that are given and have no meaning for what the feature turned out to be."""
    for name in names:
        if name in given_fields(feature):
            raise FeatureError(feature.name, f"'{name}' has no meaning for {what}", hint)


def one_input(feature: Feature) -> str:
    """Returns the only field that is read."""
    if len(feature.in_) != 1:
        hint = "to cross fields use op: combo" if feature.op is Op.ID else "write one feature for each field"
        raise FeatureError(feature.name, f"{feature.op.value} takes one field, 'in' has {len(feature.in_)}", hint)
    return feature.in_[0]


def last_names(feature: str, refs: Iterable[str], where: str) -> list[str]:
    """Returns the names by which expressions and formats call fields."""
    names: list[str] = []
    for ref in refs:
        name = ref.split(".", 1)[1]
        if name in names:
            raise FeatureError(feature, f"{where} has two fields called '{name}'", "rename one of them in its source")
        names.append(name)
    return names
