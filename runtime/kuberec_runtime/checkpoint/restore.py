"""From the commit log back to rows: the newest manifest whose files are all there, its chain merged, newest row wins.

A missing or corrupt file falls back to the manifest before it, and never quietly: what was skipped, and why, is
returned and logged. Any number of shards can restore: each takes the buckets it owns out of the same files.
"""

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kuberec_runtime.checkpoint.errors import CheckpointError, CorruptFile, NothingToRestore, ObjectMissing
from kuberec_runtime.checkpoint.log import Committed, read_commits
from kuberec_runtime.checkpoint.manifest import FileRef, Manifest, read_manifest
from kuberec_runtime.checkpoint.rows import read_counts, read_removed, read_rows, read_verified
from kuberec_runtime.checkpoint.store import Store

logger = logging.getLogger(__name__)

I64 = NDArray[np.int64]
F32 = NDArray[np.float32]
BucketOf = Callable[[I64], NDArray[np.uint8]]


@dataclass(frozen=True)
class Skipped:
    """A committed epoch that cannot be restored, and why."""

    epoch: int
    manifest: str
    reason: str


@dataclass(frozen=True)
class RestorePlan:
    """What to restore. `skipped` is empty when it is the last commit."""

    committed: Committed
    manifest: Manifest
    skipped: tuple[Skipped, ...] = ()


def find_restorable(
    store: Store, *, before: int | None = None, broken: Iterable[str] = (), checksums: bool = False
) -> RestorePlan | None:
    """Finds the newest committed manifest whose files are all there.

    Args:
        store: the checkpoint.
        before: only commits below this log slot; by default all.
        broken: keys of files that a shard found corrupt while loading (`CorruptFile.key`): manifests naming one are
            skipped too.
        checksums: read and verify every file now. By default only existence and size are checked, since whoever loads a
            file verifies its checksum anyway.

    Returns:
        The plan, with what was skipped; None if nothing was ever committed.

    Raises:
        NothingToRestore: there are commits, but none can be restored.
        StoreError: the store does not answer.
    """
    known_broken = frozenset(broken)
    skipped: list[Skipped] = []
    for committed in read_commits(store, before):
        try:
            manifest = read_manifest(store, committed.manifest)
            _check_files(store, manifest, known_broken, checksums)
        except (ObjectMissing, CorruptFile) as error:
            skipped.append(Skipped(committed.epoch, committed.manifest, str(error)))
            logger.error("epoch %d cannot be restored, falling back to the one before: %s", committed.epoch, error)
            continue
        return RestorePlan(committed, manifest, tuple(skipped))
    if not skipped:
        return None
    reasons = "\n".join(f"  epoch {entry.epoch}: {entry.reason}" for entry in skipped[:5])
    raise NothingToRestore(
        f"{store.uri}: none of {len(skipped)} committed epochs can be restored\n{reasons}\n"
        "  bring the missing files back, or start over under a new checkpoint URI"
    )


def _check_files(store: Store, manifest: Manifest, broken: frozenset[str], checksums: bool) -> None:
    for file in manifest.files:
        if file.key in broken:
            raise CorruptFile(file.key, f"{store.uri}/{file.key}: found corrupt while it was loaded")
        if checksums:
            read_verified(store, file)
        elif (size := store.size(file.key)) != file.size:
            raise CorruptFile(file.key, f"{store.uri}/{file.key}: {size} bytes, the manifest says {file.size}")


def iter_rows(
    store: Store, manifest: Manifest, bucket_of: BucketOf | None = None, buckets: range | None = None
) -> Iterator[tuple[FileRef, I64, F32 | None]]:
    """Yields the chain's files oldest first: doing what they say to a table in this order restores it.

    Args:
        store: the checkpoint.
        manifest: what to read.
        bucket_of: the virtual bucket of each key, `kuberec_runtime.table.buckets.bucket_of`; needed with `buckets`.
        buckets: keep only rows of these buckets, and skip files that can hold none.

    Yields:
        The file, its keys int64[n] and its raw rows float32[n, stride], which the table sets; for a file of tombstones
        None in place of rows, and the table removes the keys.

    Raises:
        CorruptFile, ObjectMissing: ask `find_restorable` again with `broken={error.key}`, for every shard.
    """
    for link in manifest.chain:
        for file in link.files:
            if file.counted or not _overlaps(file, buckets):
                continue
            raw: F32 | None = None
            try:
                if file.removed:
                    keys = read_removed(store, file)
                else:
                    keys, raw = read_rows(store, file)
            except ObjectMissing as error:
                raise CorruptFile(file.key, str(error)) from error
            inside = buckets is None or (buckets.start <= file.buckets[0] and file.buckets[1] < buckets.stop)
            if not inside:
                if bucket_of is None or buckets is None:
                    raise ValueError("choosing buckets needs bucket_of")
                bucket = bucket_of(keys)
                mine = (bucket >= buckets.start) & (bucket < buckets.stop)
                keys, raw = keys[mine], None if raw is None else raw[mine]
            if len(keys):
                yield file, keys, raw


def _overlaps(file: FileRef, buckets: range | None) -> bool:
    return buckets is None or (file.buckets[1] >= buckets.start and file.buckets[0] < buckets.stop)


def iter_counts(
    store: Store, manifest: Manifest, buckets: range | None = None
) -> Iterator[tuple[int, NDArray[np.uint8], I64, NDArray[np.uint8]]]:
    """Yields admission counts of the last link as (width, buckets, additions, counters), see `read_counts`.

    Raises:
        CorruptFile: as of `iter_rows`.
    """
    for file in manifest.chain[-1].files if manifest.chain else ():
        if not file.counted or not _overlaps(file, buckets):
            continue
        try:
            numbers, added, counters = read_counts(store, file)
        except ObjectMissing as error:
            raise CorruptFile(file.key, str(error)) from error
        mine = np.full(len(numbers), True)
        if buckets is not None:
            mine = (numbers >= buckets.start) & (numbers < buckets.stop)
        if mine.any():
            yield file.width, numbers[mine], added[mine], counters[mine]


@dataclass(frozen=True)
class Merged:
    """What a chain comes to: keys int64[n], ascending, their raw rows float32[n, stride], and removed keys int64[m]."""

    keys: I64
    raw: F32
    removed: I64


def merge_rows(
    store: Store, manifest: Manifest, bucket_of: BucketOf | None = None, buckets: range | None = None
) -> dict[int, Merged]:
    """Merges the chain, by width; of what links say about one key the newest counts.

    Holds all rows in memory twice for a moment; a table restores from `iter_rows` without that. Arguments and errors as
    there.
    """
    parts: dict[int, list[tuple[I64, F32 | None]]] = {}
    for file, keys, raw in iter_rows(store, manifest, bucket_of, buckets):
        parts.setdefault(file.width, []).append((keys, raw))
    return {width: _merged(width, found[::-1]) for width, found in sorted(parts.items())}


def _merged(width: int, newest_first: list[tuple[I64, F32 | None]]) -> Merged:
    rows = [raw for _, raw in newest_first if raw is not None]
    where = [np.full(len(keys), raw is not None) for keys, raw in newest_first]
    keys, first = np.unique(np.concatenate([keys for keys, _ in newest_first]), return_index=True)
    is_row = np.concatenate(where)
    place = np.cumsum(is_row) - 1  # of each entry among the rows
    live = is_row[first]
    all_rows = np.concatenate(rows) if rows else np.zeros((0, width), np.float32)
    return Merged(keys[live], all_rows[place[first[live]]], keys[~live])


def load_rows(
    store: Store, manifest: Manifest, bucket_of: BucketOf | None = None, buckets: range | None = None
) -> dict[int, tuple[I64, F32]]:
    """The rows of `merge_rows`: for each width the keys int64[n], ascending and unique, and raw float32[n, stride]."""
    merged = merge_rows(store, manifest, bucket_of, buckets)
    return {width: (rows.keys, rows.raw) for width, rows in merged.items() if len(rows.keys)}


def restore(store: Store, *, before: int | None = None) -> tuple[RestorePlan, dict[int, tuple[I64, F32]]] | None:
    """Finds and loads the newest restorable epoch in one process, falling back past files that prove corrupt.

    Raises:
        NothingToRestore: there are commits, but none can be restored.
        StoreError: the store does not answer.
    """
    broken: set[str] = set()
    while (plan := find_restorable(store, before=before, broken=broken)) is not None:
        try:
            return plan, load_rows(store, plan.manifest)
        except CorruptFile as error:
            if error.key in broken:
                raise CheckpointError(f"{error.key} was skipped and read again") from error
            broken.add(error.key)
    return None
