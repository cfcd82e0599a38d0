"""Where every partition of a training starts: asks the source, keeps what must never change with the checkpoint.

Files have no numbers of their own. Their list is kept as `source/<n>.json` before epoch 0 is committed, by a
create-only put, so that all attempts count alike, whatever appears in the folder later. Another `uri` adds a list.
"""

import os
from collections.abc import Sequence

from kuberec_api.source import FilesSource, StopAt
from kuberec_api.source import Source as SourceSpec
from kuberec_runtime.checkpoint import ObjectExists, ObjectMissing, Store
from kuberec_runtime.crashpoints import crash_here
from kuberec_runtime.stream import PartitionStart
from kuberec_runtime.stream.growth import EVERY_S, PartitionWatch
from kuberec_runtime.stream.listing import Listing, starts_of
from kuberec_runtime.stream.source import ForeignCheckpointError
from kuberec_runtime.stream.topic import discover
from kuberec_runtime.stream.units import list_units
from kuberec_runtime.train.job import Job

FOLDER = "source"


def find_partitions(spec: SourceSpec, known: Sequence[PartitionStart], store: Store) -> list[PartitionStart]:
    """Returns all partitions, each where the last commit left it.

    Args:
        spec: exactly one kind of source.
        known: positions of the last commit, none on a first start.
        store: the checkpoint.

    Raises:
        SourceError: the source does not answer, is not there, or the checkpoint is another kind's.
        StoreError: the checkpoint's store failed.
    """
    listings = read_listings(store)
    if spec.files is None:
        assert spec.kafka is not None
        if listings and known:
            raise ForeignCheckpointError(
                f"{store.uri}: its positions are rows of files, not offsets of topic '{spec.kafka.topic}'; "
                "start anew under another checkpoint.uri"
            )
        return discover(spec.kafka, known)
    if known and not listings:
        raise ForeignCheckpointError(
            f"{store.uri}: its positions are offsets of a topic, not rows of files; start anew under another "
            "checkpoint.uri"
        )
    if not listings or listings[-1].uri != spec.files.uri:
        listings = [*listings, _keep(store, spec.files, listings)]
    return starts_of(listings, known)


def watch_partitions(job: Job, starts: Sequence[PartitionStart]) -> PartitionWatch | None:
    """Starts to look for partitions that the topic gets meanwhile; the caller closes the watch.

    Not of a topic that ends; in Sync the next attempt takes new ones: who had none has said farewell.
    """
    kafka = job.training.spec.source.kafka
    if kafka is None or kafka.stop_at is StopAt.END or job.synchronous:
        return None
    every = float(os.environ.get("KUBEREC_PARTITIONS_EVERY_S") or EVERY_S)
    return PartitionWatch(kafka, [s.partition for s in starts], every)


def read_listings(store: Store) -> list[Listing]:
    """Returns the lists of files that the checkpoint keeps, in order; none if it is not of files."""
    listings: list[Listing] = []
    while True:
        try:
            listings.append(Listing.from_json(store.get(_key(len(listings)))))
        except ObjectMissing:
            return listings


def _keep(store: Store, spec: FilesSource, before: Sequence[Listing]) -> Listing:
    listing = list_units(spec, but=before)
    crash_here("source.listed")
    try:
        store.put(_key(len(before)), listing.to_json(), create=True)
    except ObjectExists:  # our own put, whose answer was lost, or another attempt's: what is there counts
        return Listing.from_json(store.get(_key(len(before))))
    crash_here("source.kept")
    return listing


def _key(number: int) -> str:
    return f"{FOLDER}/{number:06d}.json"
