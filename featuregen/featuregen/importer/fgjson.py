"""Reads fg.json: every key of every feature is known, under one name, and of the right type, or it is an error.

Upstream drops what it does not know without a word; here nothing passes unread. A key has a meaning for an operator
(the tables below), is refused with the reason why, or describes the training and is reported as left out.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from featuregen.errors import FeatureError, did_you_mean
from featuregen.importer.dialect import Dialect

T = TypeVar("T")
_INTEGERS = frozenset({"int", "int32", "int64", "uint32", "uint64", "integer", "long", "bigint"})
_FLOATS = frozenset({"float", "float32", "float64", "double", "number"})
_TEXTS = frozenset({"string", "str", "text"})
_NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9_]{0,62}")

ENCODERS = ("hash_bucket_size", "num_buckets", "vocab_list", "vocab_dict", "vocab_file")
_TEXT = (*ENCODERS, "default_bucketize_value")
_NUMBER = ("normalizer", "boundaries")
_COMMON = ("feature_type", "feature_name", "default_value", "value_type", "value_dim", "separator", "stub_type")
_SEQUENCE = ("is_sequence", "sequence_length", "sequence_delim", "sequence_fields")
MODEL_KEYS = ("embedding_dim", "share", "group", "combiner", "is_multi")
"""Keys of the model that EasyRec keeps beside the feature's; `combiner` is one where an operator has no combiner."""
LEFT_OUT = ("max_partitions", "is_cache", "filter_freq", "steps_to_live", "use_embedding_variable")
"""How EasyRec stores a table, which says nothing about a feature's value."""

OPERATORS: dict[str, tuple[str, ...]] = {
    "id_feature": ("expression", "need_prefix", "force_prefix_name", "weighted", "kv_separator", *_TEXT),
    "raw_feature": ("expression", *_NUMBER),
    "combo_feature": ("expression", "need_prefix", *_TEXT),
    "combine_feature": ("expression", "value_map", "need_prefix", "num_buckets", *_NUMBER),
    "lookup_feature": (
        *("map", "key", "needDiscrete", "needKey", "needWeighting", "need_prefix"),
        *("kv_delimiter", "value_separator", *_TEXT, *_NUMBER),
    ),
    "match_feature": (
        *("user", "category", "item", "matchType", "needDiscrete", "needWeighting", "need_prefix"),
        *("show_category", "show_item", *_TEXT, *_NUMBER),
    ),
    "expr_feature": ("expression", "variables", "fill_missing", *_NUMBER),
    "overlap_feature": ("query", "title", "method", "needDiscrete", *_NUMBER),
    "kv_dot_product": ("query", "document", "kv_delimiter", *_NUMBER),
    "bool_mask_feature": ("expression", *_TEXT),
    "tokenize_feature": ("expression", "tokenizer_type", "output_type", "vocab_file"),
    "text_normalizer": (
        *("expression", "parameter", "remove_space", "max_length", "stop_char_file", "is_gbk_input", "is_gbk_output"),
        *_TEXT,
    ),
    "regex_replace_feature": ("expression", "regex_pattern", "replacement", "replace_all", "icase", *_TEXT),
    "custom_feature": (
        *("expression", "operator_name", "operator_lib_file", "is_op_thread_safe"),
        *("encoding", "regex_pattern", "replacement", "formula", *_TEXT, *_NUMBER),
    ),
}
"""Feature types and the keys that have a meaning for them, besides the common ones."""

_ALIASES = {
    "value_dimension": "value_dim",
    "need_discrete": "needDiscrete",
    "need_key": "needKey",
    "match_type": "matchType",
    "bucketize_boundaries": "boundaries",
    "embedding_dimension": "embedding_dim",
    "embedding_name": "share",
    "shared_name": "share",
    "shared_embedding_name": "share",
    "regex_patten": "regex_pattern",
}
_REFUSED = {
    "extra_combo_info": "write a combo_feature of the fields: fields are crossed here, not what features made of them",
    "prune_to": "cut the list where it is written: KubeRec reads all of its values",
    "invalid_values": "write null for these values: they are missing ones",
    "normalizer_fn": "write it as normalizer: method=expression,expr=...",
    "sequence_feature_name": "write the feature into a sequence's `features`",
}
_TOP = ("features", "embedding_dim", "label_fields", "model_type", "separator", "multi_val_sep")
_TOP_LEFT_OUT = (
    *("model_dir", "model_path", "num_steps", "edit_config_json", "train_input_path", "eval_input_path", "batch_size"),
    *("reserves", "kv_separator"),
)
_GROUP = ("sequence_name", "sequence_length", "sequence_delim", "sequence_pk", "features")
_GROUP_LEFT_OUT = ("default_value", "sequence_column", "attribute_delim", "sequence_table")


@dataclass(frozen=True)
class FgFeature:
    """One feature of a file.

    Attributes:
        name: as errors and pipelines call it; `<sequence><joiner><feature>` inside a grouped sequence.
        kind: its feature type, without `sequence_`.
        keys: its keys under their present names.
        plain_sequence: it is a sequence by itself (`sequence_id_feature`, or `is_sequence: true`).
    """

    name: str
    kind: str
    keys: Mapping[str, object]
    plain_sequence: bool = False

    @property
    def own_name(self) -> str:
        """Its name without that of a sequence it is in."""
        return str(self.keys["feature_name"])

    def error(self, problem: str, hint: str) -> FeatureError:
        """An error about this feature."""
        return FeatureError(self.name, problem, hint)

    def has(self, key: str) -> bool:
        """Whether the key is given, and not null."""
        return self.keys.get(key) is not None

    def flag(self, key: str, default: bool = False) -> bool:
        """A key that is true or false."""
        return self._typed(key, bool, "true or false", default)

    def text(self, key: str) -> str:
        """A key that must be given as a text that is not empty."""
        value = self._typed(key, str, "a text", "")
        if not value:
            raise self.error(f"{self.kind} needs '{key}'", f"add {key}")
        return value

    def text_or(self, key: str, default: str) -> str:
        """A key that is a text."""
        return self._typed(key, str, "a text", default)

    def whole(self, key: str, default: int) -> int:
        """A key that is a whole number."""
        value = self._typed(key, int, "a whole number", default)
        if isinstance(value, bool) or value < 0:
            raise self.error(f"{key} is {json.dumps(value)}", f"write {key} as a whole number")
        return value

    def several(self, default: bool) -> bool:
        """Whether ids may be several: `value_dim` 0 or 1, no other number cuts them."""
        dim = self.whole("value_dim", 0 if default else 1)
        if dim > 1:
            raise self.error(f"value_dim is {dim}", "write 0 for any number of ids, 1 for one")
        return dim == 0

    def texts(self, key: str) -> list[str]:
        """A key that is a list of texts, or one text."""
        value = self.keys.get(key)
        found = [value] if isinstance(value, str) else value
        if not isinstance(found, list) or not found or not all(isinstance(one, str) and one for one in found):
            problem = f"{self.kind} needs '{key}'" if value is None else f"{key} is {_short(value)}"
            raise self.error(problem, f"write {key} as a list of texts")
        return list(found)

    def texts_in_order(self, key: str) -> list[str]:
        """A key that is a list of words, the empty one among them."""
        value = self.keys.get(key)
        if not isinstance(value, list) or not value or not all(isinstance(one, str) for one in value):
            raise self.error(f"{key} is {_short(value)}", f"write {key} as a list of texts")
        return list(value)

    def table(self, key: str) -> dict[str, float]:
        """A key that is an object of numbers."""
        value = self.keys.get(key)
        if not isinstance(value, dict) or not all(_is_number(one) for one in value.values()):
            raise self.error(f"{key} is {_short(value)}", f"write {key} as an object of numbers")
        return dict(value)

    def default(self) -> str | None:
        """`default_value` as a text; None if it is not given."""
        value = self.keys.get("default_value")
        if value is None or isinstance(value, str):
            return value
        if not _is_number(value):
            raise self.error(f"default_value is {_short(value)}", "write default_value as a text")
        return json.dumps(value)

    def _typed(self, key: str, kind: type[T], what: str, default: T) -> T:
        value = self.keys.get(key)
        if value is None:
            return default
        if not isinstance(value, kind):
            raise self.error(f"{key} is {_short(value)}", f"write {key} as {what}")
        return value


@dataclass(frozen=True)
class FgSequence:
    """A grouped sequence: fields that are aligned element by element."""

    name: str
    keys: Mapping[str, object]
    features: tuple[FgFeature, ...]


@dataclass
class FgFile:
    """A file that was read: its entries in order, an error for one that cannot be read; what it says of the model."""

    entries: list[FgFeature | FgSequence | FeatureError] = field(default_factory=list)
    embedding_dim: int | None = None
    labels: list[str] = field(default_factory=list)
    model_type: str = ""
    left_out: list[str] = field(default_factory=list)
    errors: list[FeatureError] = field(default_factory=list)


def read_fg(text: str, dialect: Dialect) -> FgFile:
    """Reads a file; what is wrong with single features takes their place, what is wrong with the file is in `errors`.

    Raises:
        FeatureError: the text is no fg.json at all.
    """
    try:
        data = json.loads(text, object_pairs_hook=_no_doubles)
    except ValueError as error:
        raise FeatureError(None, f"fg.json: {error}", "give a JSON file") from error
    if not isinstance(data, dict) or not isinstance(data.get("features"), list):
        raise FeatureError(None, "fg.json: there is no list 'features'", "give an object with a list 'features'")
    file = FgFile(
        embedding_dim=_top(data, "embedding_dim", int),
        labels=_top(data, "label_fields", list) or [],
        model_type=_top(data, "model_type", str) or "",
        left_out=[key for key in data if key in _TOP_LEFT_OUT],
    )
    for key in data:
        if key not in _TOP + _TOP_LEFT_OUT:
            file.errors.append(FeatureError(None, f"fg.json: unknown key '{key}'", did_you_mean(key, _TOP, "known")))
    for index, entry in enumerate(data["features"]):
        try:
            file.entries.append(_entry(entry, index, dialect, file))
        except FeatureError as error:
            file.entries.append(error)
    return file


def _entry(entry: object, index: int, dialect: Dialect, file: FgFile) -> FgFeature | FgSequence:
    if not isinstance(entry, dict):
        raise FeatureError(None, f"fg.json: features[{index}] is {_short(entry)}", "write an object")
    if "sequence_name" not in entry:
        return _feature(entry, index, dialect, "", file)
    name = entry["sequence_name"]
    if not isinstance(name, str) or not isinstance(entry.get("features"), list):
        raise FeatureError(str(name), "a sequence needs a text 'sequence_name' and a list 'features'", "add them")
    check_name(name, name)
    for key in entry:
        if key in _GROUP_LEFT_OUT:
            file.left_out.append(f"{name}.{key}")
        elif key not in _GROUP:
            raise FeatureError(name, f"unknown key '{key}'", did_you_mean(key, _GROUP, "a sequence has"))
    inner = [_feature(one, i, dialect, name + dialect.joiner, file) for i, one in enumerate(entry["features"])]
    return FgSequence(name, entry, tuple(inner))


def _feature(entry: object, index: int, dialect: Dialect, sequence: str, file: FgFile) -> FgFeature:
    name = entry.get("feature_name") if isinstance(entry, dict) else None
    if not isinstance(entry, dict) or not isinstance(name, str) or not name:
        raise FeatureError(None, f"fg.json: features[{index}] has no 'feature_name'", "give it a name")
    check_name(sequence + name, name)
    name = sequence + name
    kind = entry.get("feature_type")
    plain = str(kind).removeprefix("sequence_")
    if plain not in OPERATORS:
        raise FeatureError(name, f"unknown feature_type {_short(kind)}", did_you_mean(plain, OPERATORS, "known"))
    if dialect.operators is not None and plain not in dialect.operators:
        raise FeatureError(name, f"dialect {dialect.name.value} has no {plain}", "import with --dialect pyfg")
    keys = _checked(name, plain, entry)
    for key in LEFT_OUT:
        if key in keys:
            file.left_out.append(f"{name}.{key}")
    is_sequence = plain != kind or keys.get("is_sequence") is True
    stray = next((key for key in _SEQUENCE[1:] if key in keys), None)
    if stray and not is_sequence and not sequence:
        raise FeatureError(name, f"has {stray}, and is no sequence", f"write sequence_{plain}, or remove it")
    return FgFeature(name, plain, keys, is_sequence and not sequence)


def _checked(name: str, kind: str, entry: Mapping[str, object]) -> dict[str, object]:
    """The keys under their present names; an unknown or twofold one is an error."""
    known = (*_COMMON, *OPERATORS[kind], *_SEQUENCE, *MODEL_KEYS, *LEFT_OUT)
    found: dict[str, object] = {}
    for key, value in entry.items():
        plain = _ALIASES.get(key, key)
        if plain in _REFUSED:
            raise FeatureError(name, f"'{key}' has no counterpart", _REFUSED[plain])
        if plain not in known:
            elsewhere = any(plain in keys for keys in OPERATORS.values())
            problem = f"'{key}' has no meaning for {kind}" if elsewhere else f"unknown key '{key}'"
            raise FeatureError(name, problem, did_you_mean(key, (*_COMMON, *OPERATORS[kind]), f"{kind} has"))
        if plain in found:
            raise FeatureError(name, f"'{plain}' is given twice, also as '{key}'", "remove one of them")
        found[plain] = value
    value_kind(name, str(found.get("value_type") or ""))
    if "force_prefix_name" in found and "shared_embedding_name" not in entry:
        raise FeatureError(name, "force_prefix_name without shared_embedding_name has no effect", "remove it")
    if "shared_embedding_name" in entry and "force_prefix_name" not in found and kind == "id_feature":
        found["need_prefix"] = False  # as fg_lite does, whatever need_prefix says
    return found


def check_name(feature: str, name: str) -> None:
    """Refuses what cannot be the name of a native feature or field."""
    if not _NAME.fullmatch(name):
        raise FeatureError(feature, f"'{name}' is no name", "names begin with a letter, and have letters, digits and _")


def value_kind(feature: str, value_type: str) -> str:
    """Returns `int`, `float`, `string` or, where nothing is said, an empty text."""
    plain = value_type.lower()
    for kind, names in (("int", _INTEGERS), ("float", _FLOATS), ("string", _TEXTS)):
        if plain in names:
            return kind
    if plain:
        raise FeatureError(feature, f"unknown value_type '{value_type}'", "known: string, int32, int64, float, double")
    return ""


def _top(data: Mapping[str, object], key: str, kind: type[T]) -> T | None:
    value = data.get(key)
    if value is not None and not isinstance(value, kind):
        raise FeatureError(None, f"fg.json: {key} is {_short(value)}", f"write a {kind.__name__}")
    return value


def _no_doubles(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"an object has the key '{key}' twice")
        found[key] = value
    return found


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."
