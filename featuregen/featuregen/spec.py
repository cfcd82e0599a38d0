"""The native feature spec as typed data: what `RecModel.spec.features` holds, and nothing that is not implemented.

Pure Pydantic: no numpy, no numba, so that the operator and the CRD generator can import it. Field names are camelCase
on the wire and snake_case in Python; unknown fields are refused. Meaning is checked by `featuregen.compiler`, not here.
"""

from enum import StrEnum
from typing import Annotated

from pydantic import ConfigDict, Field

from featuregen.sources import Duration, FieldRef, FieldType, HashName, Name, Sources, SpecModel, duration_ms

__all__ = [
    "Combiner",
    "ComboMode",
    "ConfigMapKey",
    "CustomType",
    "Duration",
    "Encode",
    "Feature",
    "FeatureSpec",
    "FieldRef",
    "FieldType",
    "FileRef",
    "HashName",
    "Name",
    "Normalizer",
    "NormalizerKind",
    "Op",
    "OverlapMethod",
    "SequenceField",
    "Sources",
    "SpecModel",
    "TextStep",
    "TokenForm",
    "WindowAgg",
    "duration_ms",
]

Text = Annotated[str, Field(max_length=256)]
Expression = Annotated[str, Field(min_length=1, max_length=1024)]


class Op(StrEnum):
    """Feature operators; docs/features has a page for each."""

    ID = "id"
    RAW = "raw"
    COMBO = "combo"
    COMBINE = "combine"
    LOOKUP = "lookup"
    MATCH = "match"
    EXPR = "expr"
    OVERLAP = "overlap"
    KV_DOT = "kv_dot"
    BOOL_MASK = "bool_mask"
    TOKENIZE = "tokenize"
    TEXT_NORMALIZER = "text_normalizer"
    REGEX_REPLACE = "regex_replace"
    STR_FORMAT = "str_format"
    STR_SLICE = "str_slice"
    CUSTOM = "custom"
    SEQUENCE = "sequence"
    WINDOW = "window"


class ConfigMapKey(SpecModel):
    """A key of a ConfigMap in the resource's namespace."""

    name: Annotated[str, Field(min_length=1, max_length=253)]
    key: Annotated[str, Field(min_length=1, max_length=253)]


class FileRef(SpecModel):
    """A file that features read (a vocabulary, a tokenizer). Its digest is a part of the plan, its place is not."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """SHA-256 of the content, 64 hex digits; a process that finds another content refuses to start."""
    config_map: ConfigMapKey | None = None
    """Where pods get it from; local runs read `<name>` from the folder given with --files."""


class Encode(SpecModel):
    """Exactly one way to turn a text into an integer id in [0, buckets). A whole number counts as its decimal text."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    hash_buckets: Annotated[int, Field(ge=1, le=2**47)] | None = None
    """The hash of the text, modulo this number."""
    identity_buckets: Annotated[int, Field(ge=1, le=2**47)] | None = None
    """The text is itself a number below this; any other text is a missing value."""
    vocab: Annotated[list[Text], Field(max_length=4096)] | None = None
    """Ids 2, 3, ... in this order; 1 is any other word, 0 the feature's default if it is not in the list. With
    `unknown` the ids are 0, 1, ... and any other word has that id."""
    vocab_dict: Annotated[dict[Text, Annotated[int, Field(ge=0, le=2**31 - 1)]], Field(max_length=4096)] | None = None
    """Word to id; any other word is 1, and the feature's default is 0 even if it is a key. With `unknown` the ids are
    as given and any other word has that id."""
    vocab_file: Name | None = None
    """A file of `files` with one word a line (ids 0, 1, ...) or `word id`; needs `unknown` and `vocabSize`."""
    unknown: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    """vocab, vocabDict and vocabFile: the id of any other word, the default among them if it is no word."""
    vocab_size: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None
    """vocabFile: number of ids; an id of the file, and `unknown`, is below it."""


class NormalizerKind(StrEnum):
    """Normalizers of numbers, in the semantics of EasyRec's feature generator."""

    LOG10 = "log10"
    ZSCORE = "zscore"
    MINMAX = "minmax"
    EXPRESSION = "expression"


class Normalizer(SpecModel):
    """A rescaling, applied before boundaries; a missing value gets the feature's default instead.

    log10: `log10(x) if x > threshold else default`; zscore: `(x - mean) / stddev`; minmax: `(x - min) / (max - min)`,
    not clipped; expression: `expr` of the variable `x`. Computed in float64 and rounded to float32 once.
    """

    kind: NormalizerKind
    threshold: float = 1e-10
    default: float = -10.0
    mean: float = 0.0
    stddev: float = 1.0
    min: float = 0.0
    max: float = 1.0
    expr: Expression | None = None


class ComboMode(StrEnum):
    """How a combo joins its inputs: `concat` hashes "a_b" (as EasyRec and pyFG), `mix` mixes the 64-bit hashes."""

    CONCAT = "concat"
    MIX = "mix"


class Combiner(StrEnum):
    """How several numbers become one; `none` keeps them apart, and needs boundaries."""

    SUM = "sum"
    MEAN = "mean"
    MIN = "min"
    MAX = "max"
    COUNT = "count"
    NONE = "none"


class OverlapMethod(StrEnum):
    """What `overlap` measures between two lists of words; docs/features/overlap.md has the definitions."""

    QUERY_COMMON_RATIO = "query_common_ratio"
    TITLE_COMMON_RATIO = "title_common_ratio"
    IS_CONTAIN = "is_contain"
    IS_EQUAL = "is_equal"
    INDEX_OF = "index_of"
    PROXIMITY_MIN_COVER = "proximity_min_cover"
    PROXIMITY_MIN_DIST = "proximity_min_dist"
    PROXIMITY_MAX_DIST = "proximity_max_dist"
    PROXIMITY_AVG_DIST = "proximity_avg_dist"


class TextStep(StrEnum):
    """A step of `text_normalizer`; steps run in the order of this list, whatever the order in the spec."""

    LOWER = "lower"
    UPPER = "upper"
    HALF_WIDTH = "half_width"
    SIMPLIFIED = "simplified"
    FILTER = "filter"
    REMOVE_SPACE = "remove_space"
    SPLIT_CHARS = "split_chars"


class TokenForm(StrEnum):
    """What `tokenize` yields: token ids, or the tokens' texts."""

    ID = "id"
    TEXT = "text"


class CustomType(StrEnum):
    """What a custom function returns for a row."""

    STRING = "string"
    STRING_LIST = "list<string>"
    FLOAT = "float"
    FLOAT_LIST = "list<float>"


class WindowAgg(StrEnum):
    """Aggregation of a window feature; all but count need `value`."""

    COUNT = "count"
    SUM = "sum"
    AVG = "avg"
    MIN = "min"
    MAX = "max"
    LAST = "last"


class SequenceField(SpecModel):
    """One column of a sequence: a field of each event (or element), encoded, put into buckets, or kept as a number."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    in_: Annotated[FieldRef | None, Field(alias="in")] = None
    """With a behaviour `item.<field>` or `event.<field>`; without one a list field of user or context."""
    expr: Expression | None = None
    """A number for each element instead of `in`: an expression over `vars`, `now` and, with a behaviour, `ts`."""
    vars: Annotated[list[FieldRef], Field(max_length=8)] = Field(default_factory=list)
    """expr: the fields it reads, called by their last name: of the event, or scalar fields of user and context."""
    name: Name | None = None
    """Names the output `<feature>__<name>`; the last name of `in` unless given, required with expr."""
    encode: Encode | None = None
    """text or int: an encoder, and a table, of its own."""
    like: Name | None = None
    """text or int: shares that feature's encoder and table instead."""
    prefix: Annotated[str, Field(max_length=128)] | None = None
    """text or int: put before each text that is hashed; the default is hashed without it."""
    normalizer: Normalizer | None = None
    """number: rescales it."""
    boundaries: Annotated[list[float], Field(max_length=1024)] | None = None
    """number: the result is an id, the number of boundaries <= x."""
    dim: Annotated[int, Field(ge=1, le=1024)] | None = None
    """number: values of an element, of a list<list<float>> field; 1 unless given."""
    default: str | float | None = None
    """Stands for a missing element; the feature's default unless given, else "0"."""


class Feature(SpecModel):
    """One feature. Which fields must be set depends on `op`; `featuregen.compiler` checks it."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    name: Name
    """Name of the output, and of the embedding table if it has one."""
    op: Op
    """What is computed; see docs/features.md."""
    stub: bool = False
    """Only read by other features, as `feature.<name>`: no output of its own, no encoder."""
    in_: Annotated[list[FieldRef], Field(alias="in", max_length=8)] = Field(default_factory=list)
    """Fields that are read, as `<source>.<field>`."""
    encode: Encode | None = None
    """Text to id. Makes an embedding table."""
    like: Name | None = None
    """Shares that feature's encoder and table instead."""
    prefix: Annotated[str, Field(max_length=128)] | None = None
    """Put before each text that is hashed; the default is hashed without it."""
    weighted: bool = False
    """id: the field is a map<string,float> of ids and their weights."""
    boundaries: Annotated[list[float], Field(max_length=1024)] | None = None
    """A number becomes an id: the number of boundaries <= x."""
    normalizer: Normalizer | None = None
    """Rescales a number; neither the default nor a missing value."""
    default: str | float | None = None
    """Stands for a missing value: a text or whole number for ids, a number for numbers (each value of a vector)."""
    defaults: Annotated[list[float], Field(max_length=1024)] | None = None
    """Instead of default: one number for each value of a vector."""
    dim: Annotated[int, Field(ge=1, le=1024)] | None = None
    """raw, lookup, expr and custom: values of a vector; 1 unless given."""
    combo: ComboMode | None = None
    """combo: concat unless given."""
    map: FieldRef | None = None
    """lookup and match: the map that is read."""
    key: FieldRef | None = None
    """lookup: the field whose text, or texts, are looked up."""
    pkey: FieldRef | None = None
    """match: key, or keys, of the outer map; every key if it is not given."""
    skey: FieldRef | None = None
    """match: key, or keys, of the inner map; every key if it is not given."""
    show: Annotated[list[Annotated[str, Field(pattern=r"^(key|pkey|skey)$")]], Field(max_length=2)] = Field(
        default_factory=list
    )
    """lookup: key, match: pkey and skey: puts the keys before the value's text, joined by `_`."""
    combiner: Combiner | None = None
    """combine, lookup and match: of several numbers; sum unless given."""
    value_map: Annotated[dict[Text, float], Field(max_length=4096)] | None = None
    """combine: text to number; a text that it does not have takes no part."""
    expr: Expression | None = None
    """expr: the expression, over the fields of `in` by their last name."""
    fill_missing: bool = False
    """expr: a missing variable is 0, instead of making the whole result missing."""
    query: FieldRef | None = None
    """overlap: the list of words that is looked for. kv_dot: a map, or a list of keys that count 1 each."""
    title: FieldRef | None = None
    """overlap: the list of words it is looked for in."""
    document: FieldRef | None = None
    """kv_dot: the other map or list of keys."""
    method: OverlapMethod | None = None
    """overlap: what is measured."""
    tokenizer: Name | None = None
    """tokenize: a file of `files`, in the JSON format of Hugging Face tokenizers."""
    tokens: TokenForm | None = None
    """tokenize: id unless given."""
    steps: Annotated[list[TextStep], Field(max_length=8)] = Field(default_factory=list)
    """text_normalizer: what is done; upper, half_width, simplified and filter unless given."""
    stop_chars: Annotated[str, Field(max_length=4096)] | None = None
    """text_normalizer: characters that filter removes; all that are neither letter, digit nor space unless given."""
    max_length: Annotated[int, Field(ge=1, le=65536)] | None = None
    """text_normalizer: a longer text (in code points) is cut."""
    pattern: Annotated[str, Field(min_length=1, max_length=512)] | None = None
    """regex_replace: an RE2 expression; every match is replaced."""
    replacement: Annotated[str, Field(max_length=256)] | None = None
    """regex_replace: the text put there; \\1 is the first group, empty unless given."""
    format: Annotated[str, Field(min_length=1, max_length=512)] | None = None
    """str_format: a text with {field} for each field of `in`, by its last name."""
    start: Annotated[int, Field(ge=-65536, le=65536)] | None = None
    """str_slice: first code point, 0 unless given; negative counts from the end."""
    stop: Annotated[int, Field(ge=-65536, le=65536)] | None = None
    """str_slice: code point behind the last, the end unless given."""
    udf: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    """custom: name of a function under the entry point group `featuregen.udfs`, or a built-in one."""
    type: CustomType | None = None
    """custom: what the function returns."""
    parameters: Annotated[dict[Name, Text], Field(max_length=32)] = Field(default_factory=dict)
    """custom: handed to the function as keyword arguments."""
    behavior: Name | None = None
    """window and sequence: the behaviour whose events are read."""
    actions: Annotated[list[Annotated[str, Field(max_length=64)]], Field(max_length=16)] = Field(default_factory=list)
    """window and sequence: only events of these actions; all if empty."""
    by: FieldRef | None = None
    """window: counts only events whose item field equals the candidate's."""
    windows: Annotated[list[Duration], Field(max_length=32)] = Field(default_factory=list)
    """window: increasing lengths, none above maxAge; one number each, of events with now - w <= ts < now."""
    agg: WindowAgg | None = None
    """window: count unless given."""
    value: FieldRef | None = None
    """window: the number of each event that agg is of: `event.<field>` or `item.<field>`."""
    length: Annotated[int, Field(ge=1, le=1000)] | None = None
    """sequence: how many elements are kept, the newest events or the first elements of a plain list."""
    pad_empty: bool = False
    """sequence: an empty sequence has one missing element (as in pyFG)."""
    fields: Annotated[list[SequenceField], Field(max_length=16)] = Field(default_factory=list)
    """sequence: one output `<feature>__<field>` for each."""


class FeatureSpec(SpecModel):
    """`RecModel.spec.features`: the hash, the sources, the files and the features in order."""

    hash: HashName = HashName.FARM64
    sources: Sources
    files: Annotated[dict[Name, FileRef], Field(max_length=32)] = Field(default_factory=dict)
    list: Annotated[list[Feature], Field(min_length=1, max_length=1024)]
