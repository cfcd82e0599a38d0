"""The feature plan as data: what the compiler emits, what every interpreter runs, and what the digest is taken of.

Everything here is immutable, pure Python and free of the native spec's spelling, so that the oracle, the kernels and an
importer of another dialect agree on one small vocabulary: operations in order, columns they read, tables they fill.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from featuregen.spec import FieldType

KERNEL_ABI = 1
"""Raised whenever a kernel's result could change for the same spec; part of every digest."""

Side = Literal["user", "item", "cross"]
Kind = Literal["sparse", "sequence", "dense"]
SEQUENCE_DEFAULT = "0"
"""The text of a missing element of a sequence (pyFG's rule), so that the fields of a sequence stay aligned."""


@dataclass(frozen=True)
class Output:
    """One output column of a plan.

    Attributes:
        name: the feature's name, or `<feature>__<field>` for a field of a sequence.
        feature: the feature it belongs to.
        kind: `sparse` and `sequence` have ragged int64 ids in [0, buckets), `dense` has float32[rows, width].
        width: values in a row; 0 unless dense.
        buckets: size of the id space; 0 if dense.
        table: name of the embedding table of the ids; None if dense.
        side: `user` and `item` outputs depend on that side only; `cross` on both, or on a context field per item.
        length: greatest number of ids in a row of a sequence; 0 otherwise.
    """

    name: str
    feature: str
    kind: Kind
    width: int
    buckets: int
    table: str | None
    side: Side
    length: int


@dataclass(frozen=True)
class Input:
    """One flat column that the plan reads.

    `is_list`: a sample has a list of that type (a behaviour). `per_item`: a context field that each candidate has.
    """

    name: str
    type: FieldType
    is_list: bool = False
    per_item: bool = False


@dataclass(frozen=True)
class Encoder:
    """Text to id. `vocab`: 0 is `default` (the owner's), 1 is any unknown word, words count from 2 (as in pyFG)."""

    kind: Literal["hash", "identity", "vocab"]
    buckets: int
    table: str
    vocab: tuple[str, ...] = ()
    default: str | None = None


@dataclass(frozen=True)
class Rescale:
    """`log10`: (threshold, default); `zscore`: (mean, stddev); `minmax`: (min, max)."""

    kind: Literal["log10", "zscore", "minmax"]
    a: float
    b: float


@dataclass(frozen=True)
class Behavior:
    """A logged behaviour: at most `max_events` events no older than `max_age_ms` are visible."""

    name: str
    max_events: int
    max_age_ms: int


@dataclass(frozen=True)
class Operation:
    """How one output is computed. Fields that an operator does not use hold their empty value.

    `columns` are flat input columns: [value] for id and raw, all parts for combo, [map, key] for lookup, [event
    attribute] for a sequence, [event attribute, candidate attribute] for a window with `by`, none for a window without.
    """

    output: Output
    op: Literal["id", "raw", "combo", "lookup", "sequence", "window"]
    columns: tuple[str, ...]
    encoder: Encoder | None = None
    default_text: str | None = None
    default_number: float | None = None
    rescale: Rescale | None = None
    boundaries: tuple[float, ...] | None = None
    mix: bool = False
    combiner: str = ""
    behavior: str = ""
    actions: tuple[str, ...] = ()
    windows_ms: tuple[int, ...] = ()


@dataclass(frozen=True)
class Plan:
    """A checked feature spec, ready to run.

    Attributes:
        hash: `farm64` or `std64`.
        operations: one for each output, in the order of the spec.
        inputs: the flat columns that are read (labels excluded), and `now`.
        behaviors: the behaviours that are read, by name.
    """

    hash: str
    operations: tuple[Operation, ...]
    inputs: tuple[Input, ...]
    behaviors: Mapping[str, Behavior]

    @cached_property
    def outputs(self) -> tuple[Output, ...]:
        """Output columns in the order of the spec; a sequence has one for each of its fields."""
        return tuple(operation.output for operation in self.operations)

    @cached_property
    def tables(self) -> dict[str, int]:
        """Embedding tables and their number of ids, sorted by name."""
        found = {o.table: o.buckets for o in self.outputs if o.table is not None}
        return dict(sorted(found.items()))

    @cached_property
    def canonical(self) -> dict[str, object]:
        """The plan as JSON-able data: equal plans compute the same bits. Kept beside a digest to explain a mismatch."""
        types = {i.name: f"list<{i.type.value}>" if i.is_list else i.type.value for i in self.inputs}
        return {
            "abi": KERNEL_ABI,
            "hash": self.hash,
            "behaviors": {
                b.name: {"maxEvents": b.max_events, "maxAgeMs": b.max_age_ms} for b in self.behaviors.values()
            },
            "features": [_canonical(operation, types) for operation in self.operations],
        }

    @cached_property
    def digest(self) -> str:
        """SHA-256 (64 hex digits) of the canonical plan; the same on every machine and in every Python."""
        text = json.dumps(self.canonical, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode("ascii")).hexdigest()


def _canonical(operation: Operation, types: Mapping[str, str]) -> dict[str, object]:
    output, encoder, rescale = operation.output, operation.encoder, operation.rescale
    data: dict[str, object] = {
        "name": output.name,
        "op": operation.op,
        "side": output.side,
        "columns": [f"{column}: {types[column]}" for column in operation.columns],
        "table": output.table,
        "buckets": output.buckets or None,
        "width": output.width or None,
        "length": output.length or None,
        "encode": encoder and encoder.kind,
        "vocab": list(encoder.vocab) if encoder and encoder.vocab else None,
        "vocabDefault": encoder and encoder.default,
        "default": operation.default_text if operation.default_number is None else operation.default_number,
        "normalizer": [rescale.kind, rescale.a, rescale.b] if rescale else None,
        "boundaries": None if operation.boundaries is None else list(operation.boundaries),
        "mix": operation.mix or None,
        "combiner": operation.combiner or None,
        "behavior": operation.behavior or None,
        "actions": sorted(operation.actions) or None,
        "windowsMs": list(operation.windows_ms) or None,
    }
    return {key: value for key, value in data.items() if value is not None}


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
