"""What operators share: text to id, number to number or bucket; and where a translation keeps what it learns.

Native features are written as the dictionaries that YAML has; `featuregen.spec` checks them afterwards.
"""

import hashlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from featuregen.errors import FeatureError
from featuregen.importer.dialect import Dialect
from featuregen.importer.fgjson import ENCODERS, FgFeature, value_kind
from featuregen.importer.fields import Fields
from featuregen.importer.pipeline import PipelineFeature
from featuregen.spec import HashName

Native = dict[str, object]
MULTIPLE = "\x1d"
"""Upstream's separator of several values in one text."""


@dataclass
class Translation:
    """One import under way.

    Attributes:
        dialect: defaults of the file.
        hash: name of the hash that ids were made with.
        fields: what is read.
        pipeline: features of pipeline.config by name; empty without one.
        read_file: content of a file that fg.json names; None if there is no such file.
        files: native `files` that were found necessary.
        paths: what fg.json calls them.
        notes: what a person should know; printed, never silent.
    """

    dialect: Dialect
    hash: HashName
    fields: Fields
    pipeline: Mapping[str, PipelineFeature]
    read_file: Callable[[str], bytes | None]
    files: dict[str, Native] = field(default_factory=dict)
    paths: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def file(self, f: FgFeature, path: str) -> tuple[str, bytes]:
        """Registers a file by the digest of its content; returns its native name and the content."""
        content = self.read_file(path)
        if content is None:
            raise f.error(f"there is no file '{path}'", "say with --files in which folder it is")
        base = path.replace("\\", "/").rpartition("/")[2]
        name = "".join(c if c.isascii() and c.isalnum() else "_" for c in base)
        name = name if name[0].isalpha() else f"file_{name}"
        ref: Native = {"sha256": hashlib.sha256(content).hexdigest()}
        if self.files.setdefault(name, ref) != ref:
            raise f.error(f"two different files would be called '{name}'", "rename one of them")
        self.paths[name] = path
        return name, content


def text_tail(t: Translation, f: FgFeature, prefix: bool = False) -> Native:
    """Encoder, prefix and default of a feature that makes texts."""
    tail: Native = {}
    stray = next((key for key in ("normalizer", "boundaries") if f.has(key)), None)
    if stray is not None:
        raise f.error(f"makes texts, and has {stray}", "remove it: only numbers have one")
    if f.flag("stub_type"):
        given = next((key for key in ENCODERS if f.has(key)), "a prefix" if prefix else "")
        if given or f.default():
            hint = "remove it: other features read the value before its bucket, prefix and default"
            raise f.error(f"is a stub, and has {given or 'default_value'}", hint)
        return {"stub": True}
    encode, default = encoder(t, f)
    if prefix and "identityBuckets" in encode:
        hint = "set need_prefix: false, or hash_bucket_size instead"
        raise f.error(f"num_buckets: texts such as '{f.own_name}_5' are no numbers", hint)
    tail["encode"] = encode
    if prefix:
        tail["prefix"] = f.text_or("force_prefix_name", f.own_name) + "_"
    if default:
        tail["default"] = default
    return tail


def encoder(t: Translation, f: FgFeature) -> tuple[Native, str]:
    """Returns the one encoder of a feature, its own or that of pipeline.config, and the default's text."""
    default = f.default() or ""
    given = [key for key in ENCODERS if f.has(key)]
    if len(given) > 1:
        raise f.error(f"has both {given[0]} and {given[1]}", "a feature has one bucketizer: remove one")
    other = t.pipeline.get(f.name)
    if not given:
        if other is None or not other.encode:
            hint = "give it hash_bucket_size, num_buckets, vocab_list, vocab_dict or vocab_file"
            where = "" if t.pipeline else ", or the pipeline.config that has one with --pipeline"
            raise f.error("has no bucketizer", hint + where)
        return _of_pipeline(t, f, other, default)
    if other is not None and (other.boundaries or other.range):
        raise f.error("makes ids, and pipeline.config treats it as a number", "make it a raw_feature")
    key = given[0]
    unknown = f.whole("default_bucketize_value", 0) if f.has("default_bucketize_value") else None
    if unknown is not None and not key.startswith("vocab"):
        raise f.error(f"default_bucketize_value has no meaning for {key}", "remove it")
    encode: Native
    if key in ("hash_bucket_size", "num_buckets"):
        size = f.whole(key, 0)
        if not 1 <= size <= 2**47:
            raise f.error(f"{key} {size} is not in 1..2^47", "choose how many rows the table may have")
        encode = {"hashBuckets" if key == "hash_bucket_size" else "identityBuckets": size}
    elif key == "vocab_list":
        encode = _vocab_list(f.texts_in_order(key), default, unknown)
    elif key == "vocab_dict":
        words = f.table(key)
        encode = {"vocabDict": words} | ({} if unknown is None else {"unknown": unknown})
    else:
        if unknown is None:
            raise f.error("vocab_file needs default_bucketize_value", "say which id any other word has")
        encode = _vocab_file(t, f, f.text(key), unknown)
    _agree(f, encode, other)
    return encode, default


def _vocab_list(words: list[str], default: str, unknown: int | None) -> Native:
    """TorchEasyRec writes its own list as [default, "<OOV>", words...] with 1 for other words: the native rule."""
    if unknown == 1 and words[:2] == [default, "<OOV>"]:
        return {"vocab": words[2:]}
    if unknown is None:
        return {"vocab": words}
    if "" in words:
        ids = {word: index for index, word in enumerate(words) if word}
        return {"vocabDict": ids, "unknown": unknown}
    return {"vocab": words, "unknown": unknown}


def _vocab_file(t: Translation, f: FgFeature, path: str, unknown: int) -> Native:
    name, content = t.file(f, path)
    ids = [unknown]
    for number, line in enumerate(content.decode(errors="replace").splitlines()):
        _, space, last = line.rstrip().rpartition(" ")
        ids.append(int(last) if space and last.isascii() and last.isdigit() else number)
    return {"vocabFile": name, "unknown": unknown, "vocabSize": max(ids) + 1}


def _of_pipeline(t: Translation, f: FgFeature, other: PipelineFeature, default: str) -> tuple[Native, str]:
    if "hashBuckets" in other.encode and t.hash is not HashName.FARM64:
        raise f.error("EasyRec's graph hashes it with farm64", "import with --hash farm64")
    encode = dict(other.encode)
    if "vocabFile" in encode:
        encode = _vocab_file(t, f, str(encode["vocabFile"]), 0)
    if "identityBuckets" in encode and not default:
        default = "0"
    return encode, default


def _agree(f: FgFeature, encode: Native, other: PipelineFeature | None) -> None:
    """EasyRec reads ids that were made from fg.json as they are: num_buckets. Anything else would encode them twice."""
    if other is None or not other.encode or other.encode == encode:
        return
    size = next((encode[key] for key in ("hashBuckets", "identityBuckets") if key in encode), None)
    rows = other.encode.get("identityBuckets")
    if isinstance(rows, int) and (size is None or (isinstance(size, int) and rows >= size)):
        return
    here, there = (next(f"{k}: {v}" for k, v in one.items()) for one in (encode, other.encode))
    raise f.error(f"has two bucketizers: {here} in fg.json, {there} in pipeline.config", "keep one of them")


def _agree_on_numbers(f: FgFeature, buckets: int, other: PipelineFeature) -> None:
    """EasyRec may rescale a number, and read buckets that were made from fg.json as they are."""
    rows = other.encode.get("identityBuckets", 0)
    if other.encode and not (buckets and isinstance(rows, int) and rows >= buckets):
        key, size = next(iter(other.encode.items()))
        raise f.error(f"is a number, and has {key}: {size} in pipeline.config", "put it into buckets by boundaries")
    if other.range is not None and (f.has("normalizer") or buckets):
        hint = "remove min_val and max_val"
        raise f.error("has a range in pipeline.config, after what fg.json does to it", hint)


def width(f: FgFeature) -> int:
    """Values of a vector; 1 unless given."""
    dim = f.whole("value_dim", 1)
    if not 1 <= dim <= 1024:
        raise f.error(f"value_dim is {dim}", "write how many numbers it has, 1 to 1024")
    return dim


def number_tail(t: Translation, f: FgFeature, dim: int = 1, missing: str = "0", empty: str = "") -> Native:
    """Normalizer, default and boundaries of a feature that makes numbers.

    `missing` is the default where default_value is not given, `empty` where it is the empty text.
    """
    tail: Native = {"stub": True} if f.flag("stub_type") else {}
    stray = next((key for key in ENCODERS if f.has(key) and f.kind != "combine_feature"), None)
    if stray is not None:
        raise f.error(f"is a number, and has {stray}", "put it into buckets by boundaries")
    if f.flag("need_prefix") and f.kind == "combine_feature":
        raise f.error("need_prefix: true of a number", "set need_prefix: false")
    if f.has("normalizer"):
        tail["normalizer"] = normalizer(t, f)
    limits = boundaries(f)
    other = t.pipeline.get(f.name)
    if other is not None:
        _agree_on_numbers(f, len(limits) + 1 if limits else f.whole("num_buckets", 0), other)
    if limits is not None and other is not None and other.boundaries and limits != other.boundaries:
        raise f.error("has boundaries in fg.json and others in pipeline.config", "keep one of them")
    if limits is None and other is not None and other.boundaries:
        limits = other.boundaries
    if limits is not None:
        if f.flag("stub_type"):
            raise f.error(
                "is a stub, and has boundaries", "remove them: other features read the value before its bucket"
            )
        tail["boundaries"] = limits
    if dim > 1:
        tail["dim"] = dim
    text = f.default()
    text = missing if text is None else text or empty
    values = [_number(f, part) for part in text.split(f.text_or("separator", MULTIPLE))] if text else []
    if other is not None and other.range is not None:
        low, high = other.range
        tail["normalizer"] = {"kind": "minmax", "min": low, "max": high}
        values = [(value - low) / (high - low) for value in values]
    if len(values) == 1:
        tail["default"] = values[0]
    elif values:
        if len(values) != dim:
            raise f.error(f"default_value has {len(values)} numbers", f"give one, or {dim}")
        tail["defaults"] = values
    return tail


def boundaries(f: FgFeature) -> list[float] | None:
    """The boundaries: a list of numbers, or the text "1,2,3"."""
    value = f.keys.get("boundaries")
    if value is None:
        return None
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list) or not parts:
        raise f.error("boundaries are no list", "write a list of numbers")
    return [_number(f, part) for part in parts]


def normalizer(t: Translation, f: FgFeature) -> Native:
    """`method=zscore,mean=0,standard_deviation=10`: blanks after commas are allowed."""
    text = f.text("normalizer")
    head, mark, expression = text.partition("expr=")
    options: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in head.split(","))):
        key, _, value = part.partition("=")
        options[key.strip()] = value.strip()
    method = options.pop("method", "")
    parameters = {
        "log10": {"threshold": "threshold", "default": "default"},
        "zscore": {"mean": "mean", "standard_deviation": "stddev"},
        "minmax": {"min": "min", "max": "max"},
        "expression": {},
    }.get(method)
    if parameters is None:
        hint = "known: log10, zscore, minmax, expression; anything else can be written as an expression of x"
        raise f.error(f"normalizer method '{method}' is unknown", hint)
    unknown = next((key for key in options if key not in parameters), None)
    if unknown is not None or bool(mark) != (method == "expression"):
        raise f.error(f"normalizer {method} has no '{unknown or 'expr'}'", f"it has {', '.join(parameters) or 'expr'}")
    native: Native = {"kind": method}
    if mark:
        return native | {"expr": expression.strip()}
    values = {parameters[key]: _number(f, value) for key, value in options.items()}
    if method == "log10":
        values = dict(zip(("threshold", "default"), t.dialect.log10, strict=True)) | values
    lacking = next((key for key, name in parameters.items() if name not in values), None)
    if lacking is not None:
        raise f.error(f"normalizer {method} needs '{lacking}'", "add it")
    return native | values


def refuse_float_id(f: FgFeature) -> bool:
    """Whether the values are whole numbers by `value_type`; a float has no exact text, so it is refused."""
    kind = value_kind(f.name, f.text_or("value_type", ""))
    if kind == "float":
        hint = "use raw_feature with boundaries; if its values are whole numbers write value_type int64"
        raise f.error(f"value_type {f.text('value_type')} as an id: a float has no exact text", hint)
    return kind == "int"


def _number(f: FgFeature, value: object) -> float:
    try:
        number = float(value) if isinstance(value, str | int | float) else math.nan
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise FeatureError(f.name, f"'{value}' is no number", "write a finite number")
    return number
