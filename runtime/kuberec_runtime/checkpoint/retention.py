"""What may be deleted: only files that no kept manifest names, and never a slot of the log.

Files of epochs above the last known commit are left alone: they may be a newer attempt's, still being written. What a
killed attempt left behind goes once an epoch at or above its own is committed. Run it right after one's own commit.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from kuberec_runtime.checkpoint.errors import CorruptFile, ObjectMissing
from kuberec_runtime.checkpoint.log import read_commits
from kuberec_runtime.checkpoint.manifest import read_manifest
from kuberec_runtime.checkpoint.store import Store

_EPOCH = re.compile(r"^(?:data|manifests)/(\d+)-\d+-[0-9a-f]+")


@dataclass(frozen=True)
class Sweep:
    """What one run of retention deleted."""

    deleted: tuple[str, ...]
    bytes: int


def deletable(present: Iterable[str], kept: frozenset[str], last_epoch: int) -> list[str]:
    """Chooses, of the keys that are present, those to delete.

    Args:
        present: keys under `data/` and `manifests/`; others are never chosen.
        kept: the kept manifests and all files they name.
        last_epoch: the newest committed epoch.
    """
    chosen = []
    for key in present:
        match = _EPOCH.match(key)
        if match and int(match[1]) <= last_epoch and key not in kept:
            chosen.append(key)
    return chosen


def retain(store: Store, keep: int) -> Sweep:
    """Deletes what the newest `keep` restorable manifests do not need; manifests go before the files they name.

    Raises:
        StoreError: the store does not answer.
    """
    if keep < 1:
        raise ValueError(f"keep must be at least 1, not {keep}")
    kept: set[str] = set()
    last_epoch = -1
    readable = 0
    for committed in read_commits(store):
        last_epoch = max(last_epoch, committed.epoch)
        try:
            manifest = read_manifest(store, committed.manifest)
        except ObjectMissing:
            break  # older ones were deleted by an earlier run
        except CorruptFile:
            kept.add(committed.manifest)  # evidence; it does not count as kept
            continue
        kept.add(committed.manifest)
        kept.update(file.key for file in manifest.files)
        readable += 1
        if readable == keep:
            break
    if readable == 0:
        return Sweep((), 0)
    sizes = {entry.key: entry.size for folder in ("manifests", "data") for entry in store.list(folder)}
    chosen = deletable(sizes, frozenset(kept), last_epoch)
    store.delete(chosen)
    store.sweep()
    return Sweep(tuple(chosen), sum(sizes[key] for key in chosen))
