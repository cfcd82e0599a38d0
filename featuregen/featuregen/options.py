"""The values of a feature's options: encoders, defaults, normalizers, boundaries; each checked on its own.

Apart from `featuregen.compiler` because nothing here looks at sources or sides: an option is right or wrong by itself.
"""

import math
from collections.abc import Mapping
from itertools import pairwise

from featuregen.errors import FeatureError, did_you_mean
from featuregen.plan import Encoder, Rescale
from featuregen.spec import Encode, Feature, FeatureSpec, NormalizerKind, Op


def build_encoder(feature: str, table: str, encode: Encode, default: str | None) -> Encoder:
    """Builds the encoder of a table from the one option that is set."""
    options = {"hashBuckets": encode.hash_buckets, "identityBuckets": encode.identity_buckets, "vocab": encode.vocab}
    given = [name for name, value in options.items() if value is not None]
    if len(given) != 1:
        problem = "encode is empty" if not given else f"encode has both {given[0]} and {given[1]}"
        raise FeatureError(feature, problem, "give exactly one of hashBuckets, identityBuckets, vocab")
    if encode.hash_buckets is not None:
        return Encoder("hash", encode.hash_buckets, table)
    if encode.identity_buckets is not None:
        return Encoder("identity", encode.identity_buckets, table)
    words = tuple(encode.vocab or ())
    if not words or "" in words:
        raise FeatureError(
            feature,
            "vocab has no words" if not words else "vocab has an empty word",
            "list the words; an empty text is a missing value",
        )
    twice = next((word for index, word in enumerate(words) if word in words[:index]), None)
    if twice is not None:
        raise FeatureError(feature, f"vocab has '{twice}' twice", "a word has one id: remove one")
    ids = [(word, index + 2) for index, word in enumerate(words)]
    if default is not None and default not in words:
        ids.append((default, 0))
    return Encoder("vocab", len(words) + 2, table, tuple(ids))


def sequence_output(feature: Feature, ref: str | None) -> str:
    """Returns the output name of a field of a sequence: `<feature>__<field>`."""
    return f"{feature.name}__{(ref or '').split('.', 1)[1]}"


def collect_encoders(spec: FeatureSpec) -> dict[str, Encoder]:
    """Returns the encoder of every table by its owner's name, so that `like` may name a feature further down."""
    found: dict[str, Encoder] = {}
    for feature in spec.list:
        if feature.op in (Op.ID, Op.COMBO) and feature.encode is not None:
            found[feature.name] = build_encoder(feature.name, feature.name, feature.encode, text_default(feature))
        for entry in feature.fields if feature.op is Op.SEQUENCE else []:
            if entry.encode is not None:
                name = sequence_output(feature, entry.in_)
                found[name] = build_encoder(feature.name, name, entry.encode, text_default(feature))
    return found


def choose_encoder(
    spec: FeatureSpec,
    encoders: Mapping[str, Encoder],
    feature: str,
    table: str,
    encode: Encode | None,
    like: str | None,
    where: str = "",
) -> Encoder:
    """Returns a table's own encoder or the one it is `like`; `where` names the field of a sequence."""
    if (encode is None) == (like is None):
        problem = f"{where}has both encode and like" if encode else f"{where}has no encoder"
        raise FeatureError(
            feature, problem, "give encode (its own table) or like: <feature> (shares that feature's table)"
        )
    if like is None:
        return encoders[table]
    if like not in encoders:
        other = next((f for f in spec.list if f.name == like), None)
        if other is not None and other.like:
            raise FeatureError(
                feature, f"{where}like: '{like}' is itself like '{other.like}'", f"write like: {other.like}"
            )
        what = f"'{like}' has no encoder to share" if other else f"there is no feature '{like}'"
        raise FeatureError(feature, f"{where}like: {what}", did_you_mean(like, encoders, "features with an encoder"))
    return encoders[like]


def text_default(feature: Feature) -> str | None:
    """Returns the text that stands for a missing value; numbers are taken as their decimal text."""
    default = feature.default
    if isinstance(default, float):
        if not default.is_integer() or abs(default) >= 2**53:
            raise FeatureError(feature.name, f"default {default!r} is no id", "write a text, or a whole number")
        return str(int(default))
    return default or None


def check_text_default(feature: str, default: str | None, encoder: Encoder, where: str = "") -> None:
    """Refuses a default that an identity encoder would not take."""
    if default is not None and encoder.kind == "identity":
        if not (default.isascii() and default.isdigit() and len(default) <= 18 and int(default) < encoder.buckets):
            raise FeatureError(
                feature,
                f"{where}default '{default}' is not in 0..{encoder.buckets - 1}",
                "choose a default inside identityBuckets",
            )


def number_default(feature: Feature) -> float | None:
    """Returns the number that stands for a missing value, None if it is not given."""
    default = feature.default
    if isinstance(default, str):
        raise FeatureError(
            feature.name, f"default '{default}' is a text", "write a number without quotes, e.g. default: 0"
        )
    if default is not None and not math.isfinite(default):
        raise FeatureError(feature.name, f"default is {default}", "write a finite number")
    return default


def rescale(feature: Feature) -> Rescale | None:
    """Returns the normalizer with the two parameters of its kind; others are refused."""
    normalizer = feature.normalizer
    if normalizer is None:
        return None
    parameters = {
        NormalizerKind.LOG10: ("threshold", "default"),
        NormalizerKind.ZSCORE: ("mean", "stddev"),
        NormalizerKind.MINMAX: ("min", "max"),
    }[normalizer.kind]
    defaults = {name: field.default for name, field in type(normalizer).model_fields.items()}
    given = {name for name in normalizer.model_fields_set if getattr(normalizer, name) != defaults[name]}
    for name in sorted(given - {"kind", *parameters}):  # the API server fills defaults in: they say nothing
        raise FeatureError(
            feature.name,
            f"normalizer {normalizer.kind.value} has no '{name}'",
            f"it has {parameters[0]} and {parameters[1]}",
        )
    a, b = (float(getattr(normalizer, name)) for name in parameters)
    if not (math.isfinite(a) and math.isfinite(b)):
        raise FeatureError(
            feature.name,
            f"normalizer {normalizer.kind.value} has a parameter that is not finite",
            "write finite numbers",
        )
    if normalizer.kind is NormalizerKind.LOG10 and a < 0:
        raise FeatureError(feature.name, f"normalizer log10: threshold {a!r} is negative", "log10 needs threshold >= 0")
    if normalizer.kind is NormalizerKind.ZSCORE and b <= 0:
        raise FeatureError(feature.name, f"normalizer zscore: stddev is {b!r}", "zscore needs stddev > 0")
    if normalizer.kind is NormalizerKind.MINMAX and a >= b:
        raise FeatureError(
            feature.name, f"normalizer minmax: min {a!r} is not below max {b!r}", "minmax needs min < max"
        )
    return Rescale(normalizer.kind.value, a, b)


def boundaries(feature: Feature) -> tuple[float, ...] | None:
    """Returns finite, strictly increasing boundaries, or None."""
    if feature.boundaries is None:
        return None
    values = tuple(float(value) for value in feature.boundaries)
    if not all(math.isfinite(value) for value in values):
        raise FeatureError(feature.name, "boundaries have a value that is not finite", "write finite numbers")
    for low, high in pairwise(values):
        if low >= high:
            raise FeatureError(
                feature.name, f"boundaries do not increase: {low!r}, {high!r}", "sort them and remove doubles"
            )
    return values
