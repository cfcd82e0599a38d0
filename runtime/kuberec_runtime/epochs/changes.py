"""What changed between two committed epochs: offsets, rows by table, dense weights, metrics, plan and libraries.

Rows are compared by their bits, and only where they can differ: if the newer chain goes on from the older one, just the
links behind it are looked at, and what they say was removed; if a full link was written in between, all rows are.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from featuregen.compiler import explain_difference
from kuberec_runtime.checkpoint import Manifest, Merged, PartitionOffset, Store, read_dense
from kuberec_runtime.epochs.groups import portions, rows_by_width
from kuberec_runtime.models.flat import by_name, size_of
from kuberec_runtime.table.buckets import split_key

I64 = NDArray[np.int64]
F32 = NDArray[np.float32]
V = TypeVar("V")
WHOLE = "all"


@dataclass(frozen=True)
class PartitionChange:
    """One partition's position and applied samples, before and after; None where the epoch does not have it."""

    topic: str
    partition: int
    before: PartitionOffset | None
    after: PartitionOffset | None
    samples: tuple[int, int]


@dataclass
class TableChange:
    """One table's rows. `moved` is the sum over changed rows of the L2 norm of their weights' change."""

    name: str
    before: int = 0
    added: int = 0
    changed: int = 0
    removed: int = 0
    moved: float = 0.0

    @property
    def after(self) -> int:
        """Rows in the newer epoch."""
        return self.before + self.added - self.removed

    @property
    def mean_move(self) -> float:
        """Mean L2 norm of a changed row's change, 0 if none changed."""
        return self.moved / self.changed if self.changed else 0.0


@dataclass(frozen=True)
class WeightChange:
    """One dense weight (or all of them): L2 norm in the older and the newer epoch, and of the difference."""

    name: str
    size: int
    before: float
    after: float
    distance: float


@dataclass(frozen=True)
class Changes:
    """Everything that differs between two epochs; `plan` and `libraries` are empty if they do not differ."""

    before: Manifest
    after: Manifest
    partitions: tuple[PartitionChange, ...]
    tables: tuple[TableChange, ...]
    weights: tuple[WeightChange, ...]
    steps: tuple[int, int]
    metrics: Mapping[str, tuple[float | None, float | None]]
    plan: tuple[str, ...] = ()
    libraries: Mapping[str, tuple[str | None, str | None]] = field(default_factory=dict)


def compare(store: Store, before: Manifest, after: Manifest) -> Changes:
    """Compares two epochs; reads the row files of both, one portion of buckets at a time.

    Raises:
        CorruptFile: a file is missing or not what its manifest says.
        StoreError: the store does not answer.
    """
    weights, steps = _weights(store, before, after)
    plan = () if before.digest == after.digest else tuple(explain_difference(before.plan or {}, after.plan or {}))
    return Changes(
        before=before,
        after=after,
        partitions=tuple(_partitions(before, after)),
        tables=_tables(store, before, after),
        weights=weights,
        steps=steps,
        metrics=_pairs(before.metrics, after.metrics),
        plan=plan,
        libraries={k: v for k, v in _pairs(before.libraries, after.libraries).items() if v[0] != v[1]},
    )


def _pairs(before: Mapping[str, V], after: Mapping[str, V]) -> dict[str, tuple[V | None, V | None]]:
    return {name: (before.get(name), after.get(name)) for name in [*before, *(n for n in after if n not in before)]}


def _partitions(before: Manifest, after: Manifest) -> Iterator[PartitionChange]:
    old = {(o.topic, o.partition): o for o in before.offsets}
    new = {(o.topic, o.partition): o for o in after.offsets}
    for topic, partition in sorted({*old, *new}):
        samples = (before.samples_by_partition.get(partition, 0), after.samples_by_partition.get(partition, 0))
        yield PartitionChange(topic, partition, old.get((topic, partition)), new.get((topic, partition)), samples)


def _weights(store: Store, before: Manifest, after: Manifest) -> tuple[tuple[WeightChange, ...], tuple[int, int]]:
    """Norms of each dense weight, if the epochs name them and have the same ones, and of all together."""
    (old, old_step), (new, new_step) = _dense(store, before), _dense(store, after)
    if old.size != new.size:
        return (), (old_step, new_step)
    shapes = [(w.name, w.shape) for w in after.weights]
    found = []
    if shapes and after.weights == before.weights and size_of(shapes) == new.size:
        named = by_name(shapes, old), by_name(shapes, new)
        found = [_weight(name, named[0][name], named[1][name]) for name, _ in shapes]
    return (*found, _weight(WHOLE, old, new)), (old_step, new_step)


def _dense(store: Store, manifest: Manifest) -> tuple[F32, int]:
    if manifest.dense is None:
        return np.zeros(0, np.float32), 0
    arrays, metadata = read_dense(store, manifest.dense)
    return arrays["weights"], int(metadata.get("step", 0))


def _weight(name: str, old: F32, new: F32) -> WeightChange:
    a, b = old.astype(np.float64), new.astype(np.float64)
    return WeightChange(name, a.size, _norm(a), _norm(b), _norm(b - a))


def _norm(values: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.square(values).sum()))


def _tables(store: Store, before: Manifest, after: Manifest) -> tuple[TableChange, ...]:
    """Rows by table, in order of table ordinals."""
    goes_on = after.chain[: len(before.chain)] == before.chain
    newer = after.model_copy(update={"chain": after.chain[len(before.chain) :]}) if goes_on else after
    names = {t.ordinal: t.name for t in (*before.tables, *after.tables)}
    found: dict[int, TableChange] = {ordinal: TableChange(name) for ordinal, name in sorted(names.items())}
    for portion in portions([before, after]):
        old = rows_by_width(store, before, portion)
        new = rows_by_width(store, newer, portion)
        for width in sorted({*old, *new}):
            rows = _Rows.of(width, old.get(width), new.get(width), goes_on)
            rows.count(found)
    return tuple(found[ordinal] for ordinal in sorted(found))


@dataclass(frozen=True)
class _Rows:
    """One width's rows of a portion, sorted out; `moves` float64[c] are norms of the changed rows' changes."""

    before: I64
    added: I64
    changed: I64
    removed: I64
    moves: NDArray[np.float64]

    @classmethod
    def of(cls, width: int, old: Merged | None, new: Merged | None, goes_on: bool) -> "_Rows":
        none = np.zeros(0, np.int64)
        old_keys = none if old is None else old.keys
        if new is None:
            return cls(old_keys, none, none, none if goes_on else old_keys, np.zeros(0))
        if goes_on:
            removed = np.intersect1d(old_keys, new.removed, assume_unique=True)
        else:
            removed = np.setdiff1d(old_keys, new.keys, assume_unique=True)
        if old is None or not len(old_keys) or not len(new.keys):
            return cls(old_keys, new.keys, none, removed, np.zeros(0))
        old_raw, new_keys, new_raw = old.raw, new.keys, new.raw
        at = np.minimum(np.searchsorted(old_keys, new_keys), len(old_keys) - 1)
        known = old_keys[at] == new_keys
        was, now, keys = old_raw[at[known]], new_raw[known], new_keys[known]
        # A row of another stride has another optimizer's state: its weights may be equal, it is another row.
        differs = np.ones(len(keys), np.bool_)
        if was.shape == now.shape:
            differs = (was.view(np.uint32) != now.view(np.uint32)).any(axis=1)
        delta = now[differs, :width].astype(np.float64) - was[differs, :width]
        return cls(old_keys, new_keys[~known], keys[differs], removed, np.sqrt(np.square(delta).sum(axis=1)))

    def count(self, tables: dict[int, TableChange]) -> None:
        """Adds these rows to the tables that their keys name."""
        for name in ("before", "added", "changed", "removed"):
            ordinals, _ = split_key(getattr(self, name))
            for ordinal, count in zip(*np.unique(ordinals, return_counts=True), strict=True):
                table = tables.setdefault(int(ordinal), TableChange(f"table {ordinal}"))
                setattr(table, name, getattr(table, name) + int(count))
        ordinals, _ = split_key(self.changed)
        for ordinal in np.unique(ordinals):
            tables[int(ordinal)].moved += float(self.moves[ordinals == ordinal].sum())


def as_json(changes: Changes) -> dict[str, object]:
    """The comparison as one JSON document."""
    return {
        "from": _head(changes.before, changes.steps[0]),
        "to": _head(changes.after, changes.steps[1]),
        "partitions": [
            {
                "topic": p.topic,
                "partition": p.partition,
                "from": _position(p.before),
                "to": _position(p.after),
                "samples": list(p.samples),
            }
            for p in changes.partitions
        ],
        "tables": [
            {
                "name": t.name,
                "rows": [t.before, t.after],
                "added": t.added,
                "changed": t.changed,
                "removed": t.removed,
                "meanMove": t.mean_move,
            }
            for t in changes.tables
        ],
        "weights": [
            {"name": w.name, "size": w.size, "norm": [w.before, w.after], "distance": w.distance}
            for w in changes.weights
        ],
        "metrics": {name: list(pair) for name, pair in changes.metrics.items()},
        "plan": {"same": changes.before.digest == changes.after.digest, "changes": list(changes.plan)},
        "libraries": {name: list(pair) for name, pair in changes.libraries.items()},
    }


def _head(manifest: Manifest, step: int) -> dict[str, object]:
    return {
        "epoch": manifest.epoch,
        "attempt": manifest.attempt,
        "createdAt": manifest.created_at,
        "samples": manifest.samples,
        "denseSteps": step,
        "digest": manifest.digest,
        "published": manifest.published,
    }


def _position(offset: PartitionOffset | None) -> Sequence[int] | None:
    return None if offset is None else [offset.next, offset.skip]
