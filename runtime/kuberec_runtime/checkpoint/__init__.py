"""Epochs on object storage: files, manifests, and the commit log whose records alone decide what is committed.

A commit is, in this order: row files and dense weights (`write_rows`, `write_dense`), the manifest (`write_manifest`),
the COMMIT record (`CommitLog.commit`). A crash between any two leaves the previous epoch in force and files that
`retain` removes later.
"""

from kuberec_runtime.checkpoint.chain import extend, next_kind
from kuberec_runtime.checkpoint.dense import read_dense, write_dense
from kuberec_runtime.checkpoint.errors import (
    AlreadyCommitted,
    CheckpointError,
    CorruptFile,
    CorruptLog,
    Fenced,
    NothingToRestore,
    ObjectExists,
    ObjectMissing,
    StoreError,
)
from kuberec_runtime.checkpoint.log import CommitLog, Committed, read_commits, read_log
from kuberec_runtime.checkpoint.manifest import (
    FileRef,
    Link,
    LinkKind,
    Manifest,
    PartitionOffset,
    RowOptimizerRef,
    TableRef,
    WarmTable,
    WarmTaken,
    WeightRef,
    data_prefix,
    read_manifest,
    write_manifest,
)
from kuberec_runtime.checkpoint.restore import (
    Merged,
    RestorePlan,
    Skipped,
    find_restorable,
    iter_counts,
    iter_rows,
    load_rows,
    merge_rows,
    restore,
)
from kuberec_runtime.checkpoint.retention import retain
from kuberec_runtime.checkpoint.rows import read_rows, write_counts, write_removed, write_rows
from kuberec_runtime.checkpoint.store import Store, open_store

__all__ = [
    "AlreadyCommitted",
    "CheckpointError",
    "CommitLog",
    "Committed",
    "CorruptFile",
    "CorruptLog",
    "Fenced",
    "FileRef",
    "Link",
    "LinkKind",
    "Manifest",
    "Merged",
    "NothingToRestore",
    "ObjectExists",
    "ObjectMissing",
    "PartitionOffset",
    "RestorePlan",
    "RowOptimizerRef",
    "Skipped",
    "Store",
    "StoreError",
    "TableRef",
    "WarmTable",
    "WarmTaken",
    "WeightRef",
    "data_prefix",
    "extend",
    "find_restorable",
    "iter_counts",
    "iter_rows",
    "load_rows",
    "merge_rows",
    "next_kind",
    "open_store",
    "read_commits",
    "read_dense",
    "read_log",
    "read_manifest",
    "read_rows",
    "restore",
    "retain",
    "write_counts",
    "write_dense",
    "write_manifest",
    "write_removed",
    "write_rows",
]
