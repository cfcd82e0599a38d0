"""The values of a feature's options: defaults, normalizers, boundaries, expressions; each checked on its own.

Nothing here looks at sources, sides or other features: an option is right or wrong by itself.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

from featuregen.errors import FeatureError
from featuregen.expression import Code, ExpressionError, Program, parse_expression
from featuregen.plan import Rescale
from featuregen.spec import Feature, Normalizer, NormalizerKind

_PARAMETERS: dict[NormalizerKind, tuple[str, ...]] = {
    NormalizerKind.LOG10: ("threshold", "default"),
    NormalizerKind.ZSCORE: ("mean", "stddev"),
    NormalizerKind.MINMAX: ("min", "max"),
    NormalizerKind.EXPRESSION: ("expr",),
}


def text_default(feature: str, default: str | float | None, where: str = "") -> str | None:
    """Returns the text that stands for a missing value; numbers are taken as their decimal text."""
    if isinstance(default, float):
        if not default.is_integer() or abs(default) >= 2**53:
            raise FeatureError(feature, f"{where}default {default!r} is no id", "write a text, or a whole number")
        return str(int(default))
    return default or None


def number_default(feature: str, default: str | float | None, where: str = "") -> float | None:
    """Returns the number that stands for a missing value, None if it is not given."""
    if isinstance(default, str):
        raise FeatureError(
            feature, f"{where}default '{default}' is a text", "write a number without quotes, e.g. default: 0"
        )
    if default is not None and not math.isfinite(default):
        raise FeatureError(feature, f"{where}default is {default}", "write a finite number")
    return default


def number_defaults(feature: Feature, width: int) -> tuple[float, ...] | None:
    """Returns a number for each value of a vector, from `default` or `defaults`; None if neither is given."""
    if feature.defaults is None:
        default = number_default(feature.name, feature.default)
        return None if default is None else (default,) * width
    if feature.default is not None:
        raise FeatureError(feature.name, "has both default and defaults", "remove one of them")
    if len(feature.defaults) != width:
        problem = f"defaults has {len(feature.defaults)} numbers, the value has {width}"
        raise FeatureError(feature.name, problem, "write one for each, or a single default")
    if not all(math.isfinite(value) for value in feature.defaults):
        raise FeatureError(feature.name, "defaults has a value that is not finite", "write finite numbers")
    return tuple(feature.defaults)


def rescale(feature: str, normalizer: Normalizer | None, where: str = "") -> Rescale | None:
    """Returns the normalizer with the parameters of its kind; others are refused."""
    if normalizer is None:
        return None
    kind = normalizer.kind
    parameters = _PARAMETERS[kind]
    name = f"{where}normalizer {kind.value}"
    defaults = {key: field.default for key, field in type(normalizer).model_fields.items()}
    given = {key for key in normalizer.model_fields_set if getattr(normalizer, key) != defaults[key]}
    for key in sorted(given - {"kind", *parameters}):  # the API server fills defaults in: they say nothing
        raise FeatureError(feature, f"{name} has no '{key}'", "it has " + " and ".join(parameters))
    if kind is NormalizerKind.EXPRESSION:
        if normalizer.expr is None:
            raise FeatureError(feature, f"{name} has no expr", "write an expression of x, e.g. expr: sqrt(x)")
        return Rescale("expression", program=element_expression(feature, normalizer.expr, ["x"], f"{where}normalizer "))
    a, b = (float(getattr(normalizer, key)) for key in parameters)
    if not (math.isfinite(a) and math.isfinite(b)):
        raise FeatureError(feature, f"{name} has a parameter that is not finite", "write finite numbers")
    if kind is NormalizerKind.LOG10:
        if a < 0:
            raise FeatureError(feature, f"{name}: threshold {a!r} is negative", "log10 needs threshold >= 0")
        return Rescale("log10", a, b)
    if kind is NormalizerKind.ZSCORE:
        if b <= 0:
            raise FeatureError(feature, f"{name}: stddev is {b!r}", "zscore needs stddev > 0")
        return Rescale("zscore", a, b)
    if a >= b:
        raise FeatureError(feature, f"{name}: min {a!r} is not below max {b!r}", "minmax needs min < max")
    return Rescale("minmax", a, b)


def boundaries(feature: str, given: Sequence[float] | None, where: str = "") -> tuple[float, ...] | None:
    """Returns finite, strictly increasing boundaries, or None."""
    if given is None:
        return None
    values = tuple(float(value) for value in given)
    if not all(math.isfinite(value) for value in values):
        raise FeatureError(feature, f"{where}boundaries have a value that is not finite", "write finite numbers")
    for low, high in pairwise(values):
        if low >= high:
            problem = f"{where}boundaries do not increase: {low!r}, {high!r}"
            raise FeatureError(feature, problem, "sort them and remove doubles")
    return values


def expression(feature: str, text: str, variables: Sequence[str], where: str = "") -> Program:
    """Parses an expression over variables."""
    try:
        return parse_expression(text, variables)
    except ExpressionError as error:
        raise FeatureError(feature, where + error.problem, error.hint) from None


def element_expression(feature: str, text: str, variables: Sequence[str], where: str = "") -> Program:
    """Parses an expression that is computed for each number by itself: functions of whole vectors are refused."""
    program = expression(feature, text, variables, where)
    if any(code >= Code.LENGTH for code, _ in program.code):
        raise FeatureError(
            feature,
            f"{where}expression '{text}' has a function of whole vectors",
            "here it is computed number by number: use op: expr for vectors",
        )
    return program
