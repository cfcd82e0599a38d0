"""Rows in portions: buckets whose files must be read together, and no more of them than that.

A shard writes one file of its own bucket range at each cut, so the ranges of a chain are either equal or, where the
number of shards changed in between, overlap. Merging overlapping ranges gives portions that share no file: every file
is read once, and memory holds one portion, about the rows of one shard.
"""

from collections.abc import Iterable

from kuberec_runtime.checkpoint import Manifest, Merged, Store, merge_rows


def portions(manifests: Iterable[Manifest]) -> list[range]:
    """Returns disjoint bucket ranges, ascending; each file of the manifests' chains lies inside exactly one."""
    merged: list[range] = []
    for first, last in sorted({f.buckets for m in manifests for link in m.chain for f in link.files}):
        if merged and first < merged[-1].stop:
            merged[-1] = range(merged[-1].start, max(merged[-1].stop, last + 1))
        else:
            merged.append(range(first, last + 1))
    return merged


def rows_by_width(store: Store, manifest: Manifest, portion: range) -> dict[int, Merged]:
    """Returns a portion's merged rows, by width, and the keys that the chain removed.

    Raises:
        CorruptFile: a file is missing or not what the manifest says.
        StoreError: the store does not answer.
    """
    return merge_rows(store, manifest, buckets=portion)
