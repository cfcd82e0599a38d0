"""A reset before it is done: what the newest epoch, the topic and the words of `--to` come to, for a person to confirm.

The topic is read once, here, so that what is committed is what was shown, however long somebody thinks about it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from kuberec_runtime.checkpoint import Manifest, PartitionOffset, Store, read_log
from kuberec_runtime.offsets.reset import Reset, ResetRefused, append_epoch, last_epoch, sign_of_life
from kuberec_runtime.offsets.standing import of_files
from kuberec_runtime.offsets.target import Target, parse_target, resolve
from kuberec_runtime.stream.ends import Ends, offsets_at, read_ends


@dataclass(frozen=True)
class Proposal:
    """What would be committed.

    Attributes:
        store: the checkpoint.
        manifest: the newest epoch.
        attempt: the number that the reset takes.
        moved: the offsets that the new epoch gets.
        alive: why the training seems to be running, None if it does not.
    """

    store: Store
    manifest: Manifest
    attempt: int
    moved: tuple[PartitionOffset, ...]
    alive: str | None
    words: str
    target: Target
    ends: Mapping[int, Ends]
    at: Mapping[int, int]

    @property
    def changes(self) -> bool:
        """False if every partition stands there already."""
        return set(self.moved) != set(self.manifest.offsets)

    @property
    def started_since(self) -> int | None:
        """An attempt that started after the newest epoch and has not committed: it starts up, or was lost."""
        return self.attempt - 1 if self.attempt - 1 > self.manifest.attempt else None

    def commit(self) -> Reset:
        """Does it; see `reset.append_epoch` for what may come in between, and for the errors."""
        note = f"offsets reset to {self.words}"
        return append_epoch(
            self.store, self.attempt, lambda m: resolve(self.target, m.offsets, self.ends, self.at), note
        )


def propose(
    store: Store, to: str, bootstrap_servers: str, now: datetime, settings: Mapping[str, object] | None = None
) -> Proposal:
    """Works out a reset without changing anything.

    Args:
        store: the checkpoint.
        to: as on the command line.
        bootstrap_servers: brokers of the epoch's topic.
        now: to judge whether the training runs.
        settings: of librdkafka, by which the brokers let us in; None for plain ones.

    Raises:
        TargetError: `to` cannot be read, or names a place that does not exist.
        ResetRefused: there is no whole newest epoch.
        SourceError: the brokers do not answer, or the topic is gone.
        CheckpointError: the log or the store cannot be read.
    """
    target = parse_target(to)
    manifest = last_epoch(store).manifest
    if of_files(manifest.offsets):
        raise ResetRefused(
            f"{store.uri}: this training reads files, whose rows cannot be read again or passed over; to read them "
            "anew, start with a fresh checkpoint.uri"
        )
    attempt = read_log(store).attempt + 1
    topic = manifest.offsets[0].topic
    door = settings or {}
    ends = read_ends(bootstrap_servers, topic, settings=door)
    at = {} if target.at_ms is None else offsets_at(bootstrap_servers, topic, target.at_ms, settings=door)
    moved = resolve(target, manifest.offsets, ends, at)
    return Proposal(store, manifest, attempt, moved, sign_of_life(manifest, now), to, target, ends, at)
