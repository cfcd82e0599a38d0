"""Sources of features: where fields come from and which types they have; the base of all spec types.

Pure Pydantic: no numpy, no numba, so that the operator and the CRD generator can import it.
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
    STRING_LISTS = "list<list<string>>"
    FLOAT_LISTS = "list<list<float>>"
    STRING_FLOAT_MAP = "map<string,float>"
    STRING_STRING_MAP = "map<string,string>"
    STRING_FLOATS_MAP = "map<string,list<float>>"
    NESTED_FLOAT_MAP = "map<string,map<string,float>>"
    NESTED_STRING_MAP = "map<string,map<string,string>>"


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

    A sample or request carries the events as parallel lists `item`, `action`, `ts`, one list for each of the event's
    own `fields` (string, int or float; a feature reads them as `event.<field>`), and one for each item field that a
    feature reads through the behaviour (`by: item.cate` needs a list `cate`).
    """

    item: Annotated[str, Field(pattern=r"^string$")] = "string"
    action: Annotated[str, Field(pattern=r"^string$")] = "string"
    ts: Annotated[str, Field(pattern=r"^timestamp_ms$")] = "timestamp_ms"
    fields: Annotated[dict[Name, FieldType], Field(max_length=32)] = Field(default_factory=dict)
    max_events: Annotated[int, Field(ge=1, le=10000)] = 1000
    max_age: Duration = "24h"


class Sources(SpecModel):
    """Where fields come from. A field is referred to as `<source>.<field>`, e.g. `user.age`.

    `event.<field>` is a field of a behaviour's events, `feature.<name>` is the value of another feature.
    """

    user: KeyedSource | None = None
    item: KeyedSource | None = None
    context: ContextSource | None = None
    behavior: Annotated[dict[Name, BehaviorSource], Field(max_length=16)] = Field(default_factory=dict)


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
