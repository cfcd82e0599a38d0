"""Small epochs on a memory store whose every row is known."""

import numpy as np

from kuberec_runtime.checkpoint import (
    CommitLog,
    Link,
    LinkKind,
    Manifest,
    PartitionOffset,
    Store,
    TableRef,
    WeightRef,
    extend,
    write_dense,
    write_manifest,
    write_removed,
    write_rows,
)
from kuberec_runtime.table.buckets import bucket_of, key_of

CATE = TableRef(name="cate", ordinal=0, dim=3, linear=True)
USER = TableRef(name="user", ordinal=2, dim=4)
TABLES = (CATE, USER)
WEIGHTS = (WeightRef(name="deep_0/kernel", shape=(2, 3)), WeightRef(name="deep_0/bias", shape=(3,)))
SHARD_BUCKETS = {1: ((0, 255),), 2: ((0, 127), (128, 255))}


def row(value: float, frequency: int = 1, seen: int = 1_800_000_000) -> np.ndarray:
    """A row of either table: 4 weights, 1 of optimizer state, two counters."""
    raw = np.full(7, value, np.float32)
    raw[4] = value * 10
    raw[5:].view(np.uint32)[:] = (frequency, seen)
    return raw


def commit(
    store: Store,
    log: CommitLog,
    epoch: int,
    rows: dict[tuple[TableRef, int], np.ndarray],
    chain: tuple[Link, ...] = (),
    *,
    full: bool = False,
    shards: int = 1,
    dense: float = 1.0,
    removed: tuple[tuple[TableRef, int], ...] = (),
    **fields: object,
) -> Manifest:
    """Commits an epoch; `rows` maps (table, id) to raw rows and is all that this link holds."""
    prefix = f"data/{epoch}-1-ab{epoch:02x}"
    keys = np.array([key_of(t.ordinal, np.array([i]))[0] for t, i in rows], np.int64)
    raw = np.array(list(rows.values()), np.float32).reshape(len(rows), 7)
    files = []
    for shard, buckets in enumerate(SHARD_BUCKETS[shards]):
        place = bucket_of(keys)
        mine = (place >= buckets[0]) & (place <= buckets[1])
        if mine.any():
            files.append(write_rows(store, prefix, 4, keys[mine], raw[mine], shard=shard, buckets=buckets))
    if removed:
        gone = np.array([key_of(t.ordinal, np.array([i]))[0] for t, i in removed], np.int64)
        files.append(write_removed(store, prefix, 4, gone))
    kind = LinkKind.FULL if full or not chain else LinkKind.DELTA
    weights = np.full(9, dense, np.float32)
    arrays = {"weights": weights, "m": weights * 2, "v": weights * 3}
    given = {
        "offsets": (PartitionOffset(topic="feed", partition=0, start=0, next=epoch * 100),),
        "samples_by_partition": {0: epoch * 100},
        "tables": TABLES,
        "weights": WEIGHTS,
        "digest": "d" * 64,
        **fields,
    }
    manifest = Manifest(
        epoch=epoch,
        attempt=1,
        chain=extend(chain, Link(epoch=epoch, kind=kind, files=tuple(files))),
        dense=write_dense(store, prefix, arrays, {"step": str(epoch)}),
        **given,
    )
    log.commit(epoch, write_manifest(store, manifest))
    return manifest
