"""The native feature spec as typed data: what `RecModel.spec.features` holds, and nothing that is not implemented.

Pure Pydantic: no numpy, no numba, so that the operator and the CRD generator can import it. Field names are camelCase
on the wire and snake_case in Python; unknown fields are refused. Meaning is checked by `featuregen.compiler`, not here.
"""

from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

Name = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[a-zA-Z][a-zA-Z0-9_]*$")]
FieldRef = Annotated[str, Field(min_length=3, max_length=127, pattern=r"^[a-z]+\.[a-zA-Z][a-zA-Z0-9_]*$")]
Duration = Annotated[str, Field(max_length=16, pattern=r"^([0-9]+(ms|s|m|h))+$")]


class SpecModel(BaseModel):
    """Base of all spec types: camelCase aliases, unknown fields refused, immutable."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True, use_enum_values=False
    )


class HashName(StrEnum):
    """The string hash of a plan: part of its digest.

    `farm64` is FarmHash Fingerprint64 (equal to `tf.strings.to_hash_bucket_fast`), `std64` is libstdc++'s
    `std::hash<std::string>` on 64-bit little endian (equal to pyFG's default bucketizer).
    """

    FARM64 = "farm64"
    STD64 = "std64"


class FieldType(StrEnum):
    """Type of a source field as it arrives in a sample or a request."""

    STRING = "string"
    INT = "int"
    FLOAT = "float"
    STRING_LIST = "list<string>"
    INT_LIST = "list<int>"
    FLOAT_LIST = "list<float>"
    STRING_FLOAT_MAP = "map<string,float>"


class Op(StrEnum):
    """Feature operators that this release implements."""

    ID = "id"
    RAW = "raw"
    COMBO = "combo"
    LOOKUP = "lookup"
    SEQUENCE = "sequence"
    WINDOW = "window"


class KeyedSource(SpecModel):
    """Fields of an entity that is found by a key: the user or the item.

    The key itself is a readable string field of the source without being listed.
    """

    key: Name
    fields: Annotated[dict[Name, FieldType], Field(max_length=512)] = Field(default_factory=dict)


class ContextSource(SpecModel):
    """Fields that only the request knows; those in `per_item` come once for each candidate."""

    fields: Annotated[dict[Name, FieldType], Field(max_length=256)] = Field(default_factory=dict)
    per_item: Annotated[list[Name], Field(max_length=256)] = Field(default_factory=list)


class BehaviorSource(SpecModel):
    """A user's logged events, oldest first. `item`, `action` and `ts` name the event's own fields.

    A sample or request carries the events as parallel lists `item`, `action`, `ts` plus one list for each item field
    that a feature reads through the behaviour (`by: item.cate` needs a list `cate`).
    """

    item: Annotated[str, Field(pattern=r"^string$")] = "string"
    action: Annotated[str, Field(pattern=r"^string$")] = "string"
    ts: Annotated[str, Field(pattern=r"^timestamp_ms$")] = "timestamp_ms"
    max_events: Annotated[int, Field(ge=1, le=10000)] = 1000
    max_age: Duration = "24h"


class Sources(SpecModel):
    """Where fields come from. A field is referred to as `<source>.<field>`, e.g. `user.age`."""

    user: KeyedSource | None = None
    item: KeyedSource | None = None
    context: ContextSource | None = None
    behavior: Annotated[dict[Name, BehaviorSource], Field(max_length=16)] = Field(default_factory=dict)


class Encode(SpecModel):
    """Exactly one way to turn a text into an integer id in [0, buckets). A whole number counts as its decimal text."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    hash_buckets: Annotated[int, Field(ge=1, le=2**47)] | None = None
    """The hash of the text, modulo this number."""
    identity_buckets: Annotated[int, Field(ge=1, le=2**47)] | None = None
    """The text is itself a number below this; any other text is a missing value."""
    vocab: Annotated[list[Annotated[str, Field(max_length=256)]], Field(max_length=4096)] | None = None
    """Ids 2, 3, ... in this order; 1 is any other word, 0 the feature's default if it is not in the list."""


class NormalizerKind(StrEnum):
    """Normalizers of `raw`, in the semantics of EasyRec's feature generator."""

    LOG10 = "log10"
    ZSCORE = "zscore"
    MINMAX = "minmax"


class Normalizer(SpecModel):
    """A monotone rescaling, applied before boundaries; a missing value gets the feature's default instead.

    log10: `log10(x) if x > threshold else default`; zscore: `(x - mean) / stddev`; minmax: `(x - min) / (max - min)`,
    not clipped. Computed in float64 and rounded to float32 once.
    """

    kind: NormalizerKind
    threshold: float = 1e-10
    default: float = -10.0
    mean: float = 0.0
    stddev: float = 1.0
    min: float = 0.0
    max: float = 1.0


class ComboMode(StrEnum):
    """How a combo joins its inputs: `concat` hashes "a_b" (as EasyRec and pyFG), `mix` mixes the 64-bit hashes."""

    CONCAT = "concat"
    MIX = "mix"


class Combiner(StrEnum):
    """How `lookup` aggregates several keys."""

    SUM = "sum"
    MEAN = "mean"
    MIN = "min"
    MAX = "max"
    COUNT = "count"


class WindowAgg(StrEnum):
    """Aggregation of a window feature."""

    COUNT = "count"


class SequenceField(SpecModel):
    """One column of a sequence feature: an item field of each event, encoded on its own or like another feature."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    in_: Annotated[FieldRef, Field(alias="in")]
    """`item.<field>`: a string or int field, or the item's key."""
    encode: Encode | None = None
    """An encoder, and a table, of its own."""
    like: Name | None = None
    """Shares that feature's encoder and table instead."""


class Feature(SpecModel):
    """One feature. Which fields must be set depends on `op`; `featuregen.compiler` checks it."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    name: Name
    """Name of the output, and of the embedding table if it has one."""
    op: Op
    """What is computed; see docs/features.md."""
    in_: Annotated[list[FieldRef], Field(alias="in", max_length=8)] = Field(default_factory=list)
    """Fields that are read, as `<source>.<field>`: one for id and raw, two to eight for combo."""
    encode: Encode | None = None
    """id and combo: text to id. Makes an embedding table."""
    like: Name | None = None
    """id and combo: shares that feature's encoder and table instead."""
    boundaries: Annotated[list[float], Field(max_length=1024)] | None = None
    """raw and lookup: the result is the number of boundaries <= x, an id."""
    normalizer: Normalizer | None = None
    """raw and lookup: rescales a value; neither the default nor a missing value."""
    default: str | float | None = None
    """Stands for a missing value: a text or whole number for ids, a number for raw and lookup."""
    combo: ComboMode | None = None
    """combo: concat unless given."""
    map: FieldRef | None = None
    """lookup: a map<string,float> field."""
    key: FieldRef | None = None
    """lookup: the field whose text, or texts, are looked up."""
    combiner: Combiner | None = None
    """lookup: of several keys; sum unless given."""
    behavior: Name | None = None
    """window and sequence: the behaviour whose events are read."""
    actions: Annotated[list[Annotated[str, Field(max_length=64)]], Field(max_length=16)] = Field(default_factory=list)
    """window and sequence: only events of these actions; all if empty."""
    by: FieldRef | None = None
    """window: counts only events whose item field equals the candidate's."""
    windows: Annotated[list[Duration], Field(max_length=32)] = Field(default_factory=list)
    """window: increasing lengths, none above maxAge; one number each, of events with now - w <= ts < now."""
    agg: WindowAgg | None = None
    """window: count, also if it is not given."""
    length: Annotated[int, Field(ge=1, le=1000)] | None = None
    """sequence: the newest events that are kept."""
    fields: Annotated[list[SequenceField], Field(max_length=16)] = Field(default_factory=list)
    """sequence: one output `<feature>__<field>` for each."""


class FeatureSpec(SpecModel):
    """`RecModel.spec.features`: the hash, the sources and the features in order."""

    hash: HashName = HashName.FARM64
    sources: Sources
    list: Annotated[list[Feature], Field(min_length=1, max_length=1024)]


_UNIT_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000}


def duration_ms(text: str) -> int:
    """Returns milliseconds of a duration such as `90m`, `1h30m` or `500ms`.

    Raises:
        ValueError: if the text is not such a duration.
    """
    import re

    parts = re.findall(r"(\d+)(ms|s|m|h)", text)
    if not parts or "".join(n + u for n, u in parts) != text:
        raise ValueError(f"'{text}' is not a duration: write e.g. 500ms, 90s, 15m, 24h or 1h30m")
    return sum(int(n) * _UNIT_MS[u] for n, u in parts)
