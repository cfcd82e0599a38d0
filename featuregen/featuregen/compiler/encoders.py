"""Encoders: text to id, and the embedding table of the ids. Who owns one, who shares it with `like`."""

from collections import Counter
from collections.abc import Iterable

from featuregen.compiler.inputs import Compilation, find_file
from featuregen.compiler.options import text_default
from featuregen.errors import FeatureError, did_you_mean
from featuregen.plan import Encoder
from featuregen.spec import Encode, Feature, Op, SequenceField

KINDS = "hashBuckets, identityBuckets, vocab, vocabDict, vocabFile"
UNKNOWN = 1
"""Id of any other word of a vocabulary that does not say it; 0 is the default, listed words count from 2 (as pyFG)."""


def sequence_output(feature: Feature, field: SequenceField) -> str:
    """Returns the output name of a field of a sequence: `<feature>__<field>`."""
    return f"{feature.name}__{field.name or (field.in_ or '').rpartition('.')[2]}"


def collect_encoders(compilation: Compilation) -> None:
    """Builds the encoder of every table, so that `like` may name a feature further down."""
    for feature in compilation.spec.list:
        if feature.encode is not None:
            number = feature.op is Op.COMBINE  # its default is a number, not a text
            default = None if number else text_default(feature.name, feature.default)
            compilation.encoders[feature.name] = _build(
                compilation, feature.name, feature.name, feature.encode, default
            )
        for field in feature.fields:
            if field.encode is not None:
                name = sequence_output(feature, field)
                default = text_default(feature.name, field.default if field.default is not None else feature.default)
                compilation.encoders[name] = _build(compilation, feature.name, name, field.encode, default)


def _build(compilation: Compilation, feature: str, table: str, encode: Encode, default: str | None) -> Encoder:
    """Builds the encoder of a table from the one option that is set."""
    given = {
        "hashBuckets": encode.hash_buckets,
        "identityBuckets": encode.identity_buckets,
        "vocab": encode.vocab,
        "vocabDict": encode.vocab_dict,
        "vocabFile": encode.vocab_file,
    }
    kinds = [name for name, value in given.items() if value is not None]
    if len(kinds) != 1:
        problem = "encode is empty" if not kinds else f"encode has both {kinds[0]} and {kinds[1]}"
        raise FeatureError(feature, problem, f"give exactly one of {KINDS}")
    kind = kinds[0]
    if encode.unknown is not None and kind in ("hashBuckets", "identityBuckets"):
        raise FeatureError(feature, f"unknown has no meaning for {kind}", "remove it")
    if encode.vocab_size is not None and kind != "vocabFile":
        raise FeatureError(feature, f"vocabSize has no meaning for {kind}", "remove it: the words are counted")
    if encode.hash_buckets is not None:
        return Encoder("hash", encode.hash_buckets, table)
    if encode.identity_buckets is not None:
        return Encoder("identity", encode.identity_buckets, table)
    if encode.vocab_file is not None:
        return _vocab_file(compilation, feature, table, encode, encode.vocab_file)
    if encode.vocab is not None:
        return _vocab(feature, table, encode.vocab, encode.unknown, default)
    return _vocab_dict(feature, table, encode.vocab_dict or {}, encode.unknown, default)


def _check_words(feature: str, kind: str, words: Iterable[str]) -> None:
    words = tuple(words)
    if not words or "" in words:
        problem = f"{kind} has no words" if not words else f"{kind} has an empty word"
        raise FeatureError(feature, problem, "list the words; an empty text is a missing value")


def _vocab(feature: str, table: str, words: list[str], unknown: int | None, default: str | None) -> Encoder:
    _check_words(feature, "vocab", words)
    twice = [word for word, count in Counter(words).items() if count > 1]
    if twice:
        raise FeatureError(feature, f"vocab has '{twice[0]}' twice", "a word has one id: remove one")
    if unknown is not None:
        ids = {word: index for index, word in enumerate(words)}
        return Encoder("vocab", max(len(words), unknown + 1), table, _sorted(ids), unknown)
    ids = {word: index for index, word in enumerate(words, UNKNOWN + 1)}
    if default is not None:
        ids.setdefault(default, 0)
    return Encoder("vocab", len(words) + UNKNOWN + 1, table, _sorted(ids), UNKNOWN)


def _vocab_dict(feature: str, table: str, given: dict[str, int], unknown: int | None, default: str | None) -> Encoder:
    _check_words(feature, "vocabDict", given)
    ids, other = dict(given), UNKNOWN if unknown is None else unknown
    if unknown is None and default is not None:
        ids[default] = 0
    return Encoder("vocab", max(*ids.values(), other) + 1, table, _sorted(ids), other)


def _vocab_file(compilation: Compilation, feature: str, table: str, encode: Encode, name: str) -> Encoder:
    for option, value in (("unknown", encode.unknown), ("vocabSize", encode.vocab_size)):
        if value is None:
            hint = "vocabFile needs unknown (the id of any other word) and vocabSize (the number of ids)"
            raise FeatureError(feature, f"vocabFile lacks {option}", hint)
    size, unknown = encode.vocab_size or 0, encode.unknown or 0
    if unknown >= size:
        raise FeatureError(feature, f"unknown {unknown} is not below vocabSize {size}", "raise vocabSize")
    return Encoder("vocab", size, table, (), unknown, find_file(compilation, feature, name))


def _sorted(ids: dict[str, int]) -> tuple[tuple[str, int], ...]:
    """Words by their id: the order in which a map was written says nothing, and does not change a plan."""
    return tuple(sorted(ids.items(), key=lambda entry: (entry[1], entry[0])))


def choose_encoder(
    compilation: Compilation, feature: str, table: str, encode: Encode | None, like: str | None, where: str = ""
) -> Encoder:
    """Returns a table's own encoder or the one it is `like`; `where` names the field of a sequence."""
    encoders = compilation.encoders
    if (encode is None) == (like is None):
        problem = f"{where}has both encode and like" if encode else f"{where}has no encoder"
        raise FeatureError(
            feature, problem, "give encode (its own table) or like: <feature> (shares that feature's table)"
        )
    if like is None:
        return encoders[table]
    if like not in encoders:
        other = next((f for f in compilation.spec.list if f.name == like), None)
        if other is not None and other.like:
            raise FeatureError(
                feature, f"{where}like: '{like}' is itself like '{other.like}'", f"write like: {other.like}"
            )
        what = f"'{like}' has no encoder to share" if other else f"there is no feature '{like}'"
        raise FeatureError(feature, f"{where}like: {what}", did_you_mean(like, encoders, "features with an encoder"))
    return encoders[like]


def check_prefix(feature: str, prefix: str | None, encoder: Encoder, where: str = "") -> None:
    """Refuses a prefix of texts that are not hashed."""
    if prefix and encoder.kind != "hash":
        hint = "a prefix tells texts of one hash table apart: remove it, or give encode: {hashBuckets: n}"
        raise FeatureError(feature, f"{where}prefix does not go with {encoder.kind} encoding", hint)


def check_default(feature: str, default: str | None, encoder: Encoder, where: str = "") -> None:
    """Refuses a default that an identity encoder would not take."""
    if default is not None and encoder.kind == "identity":
        if not (default.isascii() and default.isdigit() and len(default) <= 18 and int(default) < encoder.buckets):
            raise FeatureError(
                feature,
                f"{where}default '{default}' is not in 0..{encoder.buckets - 1}",
                "choose a default inside identityBuckets",
            )
