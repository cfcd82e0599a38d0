"""The feature plan as data: what the compiler emits, what every interpreter runs, and what the digest is taken of.

Everything here is immutable, pure Python and free of the native spec's spelling, so that the oracle, the kernels and an
importer of another dialect agree on one small vocabulary: operations in order, columns they read, tables they fill.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Literal

from featuregen.expression import Program
from featuregen.sources import FieldType

KERNEL_ABI = 2
"""Raised whenever a kernel's result could change for the same spec; part of every digest."""

Side = Literal["user", "item", "cross"]
Kind = Literal["sparse", "sequence", "dense", "value"]
OpName = Literal[
    "id",
    "raw",
    "combo",
    "combine",
    "lookup",
    "match",
    "expr",
    "overlap",
    "kv_dot",
    "bool_mask",
    "tokenize",
    "text_normalizer",
    "regex_replace",
    "str_format",
    "str_slice",
    "custom",
    "sequence",
    "window",
]
SEQUENCE_DEFAULT = "0"
"""The text of a missing element of a sequence (pyFG's rule), so that the fields of a sequence stay aligned."""


@dataclass(frozen=True)
class Output:
    """One output column of a plan.

    Attributes:
        name: the feature's name, or `<feature>__<field>` for a field of a sequence.
        feature: the feature it belongs to.
        kind: `sparse` and `sequence` have ragged int64 ids in [0, buckets); `dense` has float32[rows, width]; a
            `sequence` without buckets has ragged float32[elements, width]; `value` is the result of a derivation.
        width: values in a row (in an element, of a sequence of numbers); 0 for ids.
        buckets: size of the id space; 0 if there are no ids.
        table: name of the embedding table of the ids; None if there are no ids.
        side: `user` and `item` outputs depend on that side only; `cross` on both, or on a context field per item.
        length: greatest number of elements in a row of a sequence; 0 otherwise.
        weighted: each id has a float32 weight.
        multi: an element of the sequence may have several ids.
    """

    name: str
    feature: str
    kind: Kind
    width: int
    buckets: int
    table: str | None
    side: Side
    length: int
    weighted: bool = False
    multi: bool = False


@dataclass(frozen=True)
class Input:
    """One flat column that operations read: of a sample or request, or the result of a derivation (`feature.<name>`).

    `is_list`: a sample has a list of that type (a behaviour). `per_item`: a context field that each candidate has.
    """

    name: str
    type: FieldType
    is_list: bool = False
    per_item: bool = False

    @property
    def of_candidate(self) -> bool:
        """In a ranking each candidate has its own value."""
        return self.per_item or self.name.startswith("item.")


@dataclass(frozen=True)
class File:
    """A file whose content is a part of the plan: `words` of a vocabulary, or a tokenizer."""

    name: str
    sha256: str


@dataclass(frozen=True)
class Encoder:
    """Text to id.

    `hash`: hash of the text modulo buckets. `identity`: the text's own number if it is below buckets, else missing.
    `vocab`: the id that `words` has for it, else `unknown`; the words are in the plan or in `file`.
    """

    kind: Literal["hash", "identity", "vocab"]
    buckets: int
    table: str
    words: tuple[tuple[str, int], ...] = ()
    unknown: int = 1
    file: File | None = None


@dataclass(frozen=True)
class Rescale:
    """`log10`: (threshold, default); `zscore`: (mean, stddev); `minmax`: (min, max); `expression`: of variable 0."""

    kind: Literal["log10", "zscore", "minmax", "expression"]
    a: float = 0.0
    b: float = 0.0
    program: Program | None = None


@dataclass(frozen=True)
class Behavior:
    """A logged behaviour: at most `max_events` events no older than `max_age_ms` are visible."""

    name: str
    max_events: int
    max_age_ms: int


@dataclass(frozen=True)
class Operation:
    """How one output, or one derived column, is computed. What an operator does not use holds its empty value.

    Every operator makes texts or numbers, and one of two tails makes the output of them (see `featuregen.oracle`):
    texts -> `prefix`, `encoder`, `default_text`; numbers -> `rescale`, `default_numbers`, then `boundaries`, or
    `encoder` (the number truncated to a whole id), or float32.

    Attributes:
        output: what is written.
        op: the operator.
        columns: flat columns it reads. id, raw, combine, tokenize, text_normalizer, regex_replace, str_slice: [value]
            (a map for weighted ids); combo, expr, custom, str_format: all fields; lookup: [map, key]; match: [map,
            pkey or "", skey or ""]; overlap: [query, title]; kv_dot: [query, document]; bool_mask: [value, mask];
            window: [] or [event attribute, candidate attribute]; sequence: [value], or the expression's variables.
        dim: numbers that it makes for a row (for an element, of a sequence), also if they become ids; 1 for texts.
        encoder: text to id.
        prefix: put before a text that is encoded; not before the default.
        default_text: stands for a missing value of an id.
        rescale: of numbers.
        default_numbers: `dim` numbers that stand for missing values; None: a missing value stays missing.
        boundaries: ascending; a number becomes the count of those that are <= it.
        mix: combo by mixed hashes.
        combiner: of lookup, match and combine; "none" keeps several numbers apart.
        value_map: combine's text to number.
        show: lookup and match: keys that are put before the value's text.
        method: overlap's measure, window's aggregation, or a custom function's name.
        value_column: window: the events' numbers.
        program: expr, and sequence of an expression.
        fill_missing: expr: a missing variable is 0.
        file: tokenize: the tokenizer.
        parameters: options by name, sorted: custom's own; tokenize: tokens; text_normalizer: max_length, steps (joined
            by ","), stop_chars; regex_replace: pattern, replacement; str_slice: start, stop; str_format: format, for
            Python's str.format with the fields by position ("{0}:{1}").
        behavior: name of the behaviour whose events are read.
        actions: only events of these; all if empty.
        windows_ms: increasing lengths.
        pad_empty: an empty sequence has one missing element.
        aligned: sequence without a behaviour: the list column whose length is the number of elements.
    """

    output: Output
    op: OpName
    columns: tuple[str, ...]
    dim: int = 1
    encoder: Encoder | None = None
    prefix: str = ""
    default_text: str | None = None
    rescale: Rescale | None = None
    default_numbers: tuple[float, ...] | None = None
    boundaries: tuple[float, ...] | None = None
    mix: bool = False
    combiner: str = ""
    value_map: tuple[tuple[str, float], ...] = ()
    show: tuple[str, ...] = ()
    method: str = ""
    value_column: str = ""
    program: Program | None = None
    fill_missing: bool = False
    file: File | None = None
    parameters: tuple[tuple[str, str], ...] = ()
    behavior: str = ""
    actions: tuple[str, ...] = ()
    windows_ms: tuple[int, ...] = ()
    pad_empty: bool = False
    aligned: str = ""

    @property
    def read(self) -> tuple[str, ...]:
        """Every flat column that is read, apart from a behaviour's `ts`, `action` and `now`."""
        return tuple(c for c in (*self.columns, self.value_column, self.aligned) if c)


@dataclass(frozen=True)
class Derivation:
    """A column that is computed before the outputs: the value of a feature, which others read as `feature.<name>`.

    Its output is of kind `value`: numbers after `rescale` and `default_numbers` (then still missing: null), `width` of
    them; texts as they are, before prefix, default and encoder. `column.type` is string, float, list<string>, list<int>
    or list<float>; `column.per_item` says that each candidate has its own. A feature of op `id` has none: `feature.x`
    is then another name of the column that it reads.
    """

    column: Input
    side: Side
    operation: Operation


@dataclass(frozen=True)
class Plan:
    """A checked feature spec, ready to run.

    Attributes:
        hash: `farm64` or `std64`.
        operations: one for each output, in the order of the spec.
        inputs: the flat columns that are read (labels excluded), and `now`.
        behaviors: the behaviours that are read, by name.
        derivations: columns that are computed first, each after those that it reads.
    """

    hash: str
    operations: tuple[Operation, ...]
    inputs: tuple[Input, ...]
    behaviors: Mapping[str, Behavior]
    derivations: tuple[Derivation, ...] = ()

    @cached_property
    def columns(self) -> tuple[Input, ...]:
        """All columns that operations read: inputs, then derived ones."""
        return (*self.inputs, *(d.column for d in self.derivations))

    @cached_property
    def outputs(self) -> tuple[Output, ...]:
        """Output columns in the order of the spec; a sequence has one for each of its fields."""
        return tuple(operation.output for operation in self.operations)

    @cached_property
    def files(self) -> tuple[File, ...]:
        """The files that the plan reads, sorted by name."""
        operations = [*(d.operation for d in self.derivations), *self.operations]
        found = {f.name: f for o in operations for f in (o.file, o.encoder and o.encoder.file) if f}
        return tuple(found[name] for name in sorted(found))

    @cached_property
    def tables(self) -> dict[str, int]:
        """Embedding tables and their number of ids, sorted by name."""
        found = {o.table: o.buckets for o in self.outputs if o.table is not None}
        return dict(sorted(found.items()))

    @cached_property
    def canonical(self) -> dict[str, object]:
        """The plan as JSON-able data: equal plans compute the same bits. Kept beside a digest to explain a mismatch."""
        types = {i.name: f"list<{i.type.value}>" if i.is_list else i.type.value for i in self.columns}
        return {
            "abi": KERNEL_ABI,
            "hash": self.hash,
            "behaviors": {
                b.name: {"maxEvents": b.max_events, "maxAgeMs": b.max_age_ms} for b in self.behaviors.values()
            },
            "derived": [_canonical(derivation.operation, types) for derivation in self.derivations],
            "features": [_canonical(operation, types) for operation in self.operations],
        }

    @cached_property
    def digest(self) -> str:
        """SHA-256 (64 hex digits) of the canonical plan; the same on every machine and in every Python."""
        text = json.dumps(self.canonical, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode("ascii")).hexdigest()


def _canonical(operation: Operation, types: Mapping[str, str]) -> dict[str, object]:
    """Every field that is not empty: a new field of a plan can never be left out of its digest."""
    data: dict[str, object] = {}
    for name, value in _fields(operation.output) + _fields(operation):
        if name == "output" or value is None or value == "" or value == () or value is False or value == 0:
            continue
        if name == "columns":
            value = [f"{column}: {types[column]}" if column else "*" for column in operation.columns]
        elif name in ("value_column", "aligned"):
            value = f"{value}: {types[str(value)]}"
        elif name == "actions":
            value = sorted(operation.actions)
        elif name == "encoder" and operation.encoder is not None:  # its size and table are the output's
            data |= {f"encoder.{key}": _plain(one) for key, one in _encoder(operation.encoder)}
            continue
        data[name] = _plain(value)
    return data


def _encoder(encoder: Encoder) -> list[tuple[str, object]]:
    unused = ("buckets", "table") if encoder.kind == "vocab" else ("buckets", "table", "unknown")
    return [(name, one) for name, one in _fields(encoder) if name not in unused and one not in (None, ())]


def _fields(value: object) -> list[tuple[str, object]]:
    return [(field.name, getattr(value, field.name)) for field in fields(value)]  # type: ignore[arg-type]


def _plain(value: object) -> object:
    """Dataclasses as objects without empty fields, tuples as lists."""
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    if hasattr(value, "__dataclass_fields__"):
        return {name: _plain(one) for name, one in _fields(value) if one not in (None, "", ())}
    return value


def explain_difference(old: Mapping[str, object], new: Mapping[str, object]) -> list[str]:
    """Returns what changed between two `Plan.canonical`, one readable line each; empty if they are equal.

    For messages such as "this checkpoint was trained with another feature plan": it names features, not digests.
    """
    lines: list[str] = []
    if old.get("abi") != new.get("abi"):
        lines.append(f"kernel ABI: {old.get('abi')} -> {new.get('abi')} (this release computes features differently)")
    if old.get("hash") != new.get("hash"):
        lines.append(f"hash: {old.get('hash')} -> {new.get('hash')}")
    lines += _changes("behavior", _mapping(old.get("behaviors")), _mapping(new.get("behaviors")))
    lines += _changes("derived column", _by_name(old.get("derived")), _by_name(new.get("derived")))
    before, after = _by_name(old.get("features")), _by_name(new.get("features"))
    lines += _changes("feature", before, after)
    kept_before = [name for name in before if name in after]
    kept_after = [name for name in after if name in before]
    if kept_before != kept_after:
        lines.append("features: their order changed")
    return lines


def _changes(what: str, old: Mapping[str, object], new: Mapping[str, object]) -> list[str]:
    lines = [f"{what} '{name}': removed" for name in old if name not in new]
    lines += [f"{what} '{name}': added" for name in new if name not in old]
    for name in new:
        if name not in old:
            continue
        before, after = _mapping(old[name]), _mapping(new[name])
        for key in sorted(before.keys() | after.keys()):
            if before.get(key) != after.get(key):
                lines.append(f"{what} '{name}': {key} {_short(before.get(key))} -> {_short(after.get(key))}")
    return lines


def _short(value: object) -> str:
    text = "unset" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "..."


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}


def _by_name(value: object) -> dict[str, object]:
    found = value if isinstance(value, list) else []
    return {str(_mapping(entry).get("name")): entry for entry in found}
