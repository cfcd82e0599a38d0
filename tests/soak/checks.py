"""What must hold at the end, whatever happened: exact counts, monotone commits, a complete and equal tier."""

from collections.abc import Iterable, Mapping
from itertools import pairwise

import numpy as np

from kuberec_runtime.checkpoint import Committed, Manifest, Store, load_rows, read_commits, read_manifest
from kuberec_runtime.publish.tier import Tier
from kuberec_runtime.table.buckets import split_key

ROWS_AT_ONCE = 10_000


class SoakError(AssertionError):
    """Something did not hold; the text says what."""


class CommitWatch:
    """Reads every commit while its manifest is there: retention deletes those of old epochs."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.seen: list[tuple[Committed, Manifest]] = []

    def look(self) -> None:
        """Reads what was committed since the last look."""
        known = self.seen[-1][0].sequence if self.seen else -1
        new: list[Committed] = []
        for commit in read_commits(self._store):
            if commit.sequence <= known:
                break
            new.append(commit)
        self.seen += [(commit, read_manifest(self._store, commit.manifest)) for commit in reversed(new)]

    @property
    def samples(self) -> int:
        """Samples of the last commit seen."""
        return self.seen[-1][1].samples if self.seen else 0


def check_commits(seen: Iterable[tuple[Committed, Manifest]]) -> None:
    """Epochs rise by commit, attempts never fall, no partition ever goes back, and each commit counts what it read."""
    seen = list(seen)
    for (old, before), (new, after) in pairwise(seen):
        if new.epoch <= old.epoch or new.attempt < old.attempt:
            raise SoakError(f"epoch {new.epoch} of attempt {new.attempt} follows {old.epoch} of {old.attempt}")
        at = {o.partition: (o.next, o.skip) for o in after.offsets}
        for offset in before.offsets:
            if at.get(offset.partition, (-1, 0)) < (offset.next, offset.skip):
                raise SoakError(f"partition {offset.partition} went back from {offset} in epoch {new.epoch}")
    for commit, manifest in seen:
        check_counts(manifest, f"epoch {commit.epoch}")


def check_counts(manifest: Manifest, what: str) -> None:
    """One sample a record: applied and passed over are what lies between start and position, in every partition."""
    for offset in manifest.offsets:
        applied = manifest.samples_by_partition.get(offset.partition, 0)
        if applied != offset.next - offset.start + offset.skip:
            raise SoakError(f"{what}: partition {offset.partition} applied {applied} samples, {offset}")
    if skipped := {p: n for p, n in manifest.skipped_by_partition.items() if n}:
        raise SoakError(f"{what}: records were passed over, by partition: {skipped}")


def check_all_applied(manifest: Manifest, records: Mapping[int, int]) -> None:
    """Every record that the topic holds was applied exactly once."""
    check_counts(manifest, "the end")
    applied = {p: n for p, n in manifest.samples_by_partition.items() if n}
    if applied != {p: n for p, n in records.items() if n}:
        raise SoakError(f"samples applied by partition: {applied}; records in the topic: {dict(records)}")


def check_tier(tier: Tier, store: Store, manifest: Manifest, attempt: int) -> int:
    """`current` is the last attempt's and complete, and holds the very rows of the last epoch; returns how many."""
    current = tier.current()
    if current is None or current.version.attempt != attempt:
        raise SoakError(f"Redis' current is {current}, the last attempt was {attempt}")
    dense = tier.dense(current.namespace, current.version)
    if not all(np.isfinite(array).all() for array in dense.weights.values()):
        raise SoakError(f"version {current.version} has dense weights that are not finite")
    compared, by_width = 0, load_rows(store, manifest)
    for table in manifest.tables:
        if table.width not in by_width:
            continue
        keys, raw = by_width[table.width]
        ordinals, ids = split_key(keys)
        mine = ordinals == table.ordinal
        ids, weights = ids[mine], raw[mine][:, : table.width]
        for at in range(0, len(ids), ROWS_AT_ONCE):
            part = slice(at, at + ROWS_AT_ONCE)
            rows, found = tier.read_rows(current.namespace, {table.name: ids[part]})[table.name]
            if not found.all():
                raise SoakError(f"Redis lacks {(~found).sum()} rows of table '{table.name}'")
            if not np.array_equal(rows.view(np.uint32), np.ascontiguousarray(weights[part]).view(np.uint32)):
                raise SoakError(f"rows of table '{table.name}' differ between Redis and the last epoch")
            compared += len(rows)
    if not compared:
        raise SoakError("the last epoch has no rows at all")
    return compared
