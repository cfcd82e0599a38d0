"""Embedding rows of one shard: key to row, rows with their optimizer state, and what changed since a cut."""

from kuberec_runtime.table.buckets import BUCKETS, bucket_of, key_of, shard_of, split_key
from kuberec_runtime.table.copies import CONSUMERS, Rows
from kuberec_runtime.table.dense import DenseState, DenseWeights
from kuberec_runtime.table.errors import TableError
from kuberec_runtime.table.layout import RowLayout
from kuberec_runtime.table.table import Table

__all__ = [
    "BUCKETS",
    "CONSUMERS",
    "DenseState",
    "DenseWeights",
    "RowLayout",
    "Rows",
    "Table",
    "TableError",
    "bucket_of",
    "key_of",
    "shard_of",
    "split_key",
]
