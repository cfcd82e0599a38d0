"""Appends an epoch that differs from the newest one in its offsets only: rows and weights are named, not copied.

The commit log's rules are the reset's rules: it is an attempt like any other, one above the newest. Where it may die:

- before START: nothing happened.
- after START, before COMMIT (no manifest yet, or one that no record names): the epoch before is in force, offsets and
  all. What ran is fenced: it ends at its next commit or publication, and the attempt after the reset's goes on from the
  old offsets. Running the reset again takes the number after that; a stray manifest goes with the next retention.
- after COMMIT: the reset is done. The log's HEAD hint may be stale, which costs a reader one slot.

Who comes in between: an older attempt that commits before START is built upon, since START says which epoch is the last
and nobody can change that any more; after START it is fenced. A newer START before our COMMIT fences us: nothing is
reset, and the error says so. Two resets at once want the same number: the second is fenced at START.

The number is taken from a counter that the operator (and `kuberec run`) owns. `kuberec run` reads the log before each
attempt. The operator does not: its next attempt finds the number taken, ends as Fenced with `outcome.newestAttempt`,
and the one after it goes on above that. So a reset costs the operator one lost attempt, which `backoffLimit` counts.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from kuberec_api.meta import timestamp
from kuberec_runtime.checkpoint import (
    CommitLog,
    Committed,
    Manifest,
    PartitionOffset,
    RestorePlan,
    Store,
    find_restorable,
    write_manifest,
)
from kuberec_runtime.crashpoints import crash_here

Rewrite = Callable[[Manifest], tuple[PartitionOffset, ...]]

DEFAULT_INTERVAL_MS = 60_000
CUT_GRACE_S = 10.0
"""A commit comes an interval and a cut after the one before; this is room for the cut."""


class ResetRefused(Exception):  # noqa: N818
    """The reset was not begun; says why and what to do."""


@dataclass(frozen=True)
class Reset:
    """What was done: the epoch built upon, the epoch that is in force now, and its record."""

    before: Manifest
    after: Manifest
    committed: Committed


def last_epoch(store: Store) -> RestorePlan:
    """Returns the newest epoch, which must be whole.

    Raises:
        ResetRefused: nothing is committed, or a training would have to fall back past the newest epoch.
        CheckpointError: the log or the store cannot be read.
    """
    plan = find_restorable(store)
    if plan is None:
        raise ResetRefused(
            f"{store.uri}: nothing is committed, so there are no offsets; a first start follows source.kafka.startFrom"
        )
    if plan.skipped:
        raise ResetRefused(
            f"{store.uri}: epoch {plan.skipped[0].epoch} cannot be restored: {plan.skipped[0].reason}\n"
            f"  the training falls back to epoch {plan.manifest.epoch}: let it commit once, then look again"
        )
    if not plan.manifest.offsets:
        raise ResetRefused(f"{store.uri}: epoch {plan.manifest.epoch} has no offsets")
    return plan


def sign_of_life(manifest: Manifest, now: datetime) -> str | None:
    """Says why a training seems to be running: its last commit is younger than its interval. None if it is not.

    An epoch that was committed by hand (a reset just before) is no sign of a training.
    """
    if manifest.note:
        return None
    interval_s = (manifest.interval_ms or DEFAULT_INTERVAL_MS) / 1000
    age_s = (now - datetime.fromisoformat(manifest.created_at)).total_seconds()
    if age_s >= interval_s + CUT_GRACE_S:
        return None
    return (
        f"epoch {manifest.epoch} was committed {max(age_s, 0):.0f} s ago and the training commits every "
        f"{interval_s:g} s: it seems to be running"
    )


def append_epoch(store: Store, attempt: int, rewrite: Rewrite, note: str) -> Reset:
    """Takes the log over and commits the newest epoch again under the next number, with other offsets.

    Args:
        store: the checkpoint.
        attempt: above the newest of the log; see the module on who learns of it how.
        rewrite: the offsets to commit, from those of the epoch that is the last one once the log is ours.
        note: why, for those who look at the epoch later.

    Raises:
        Fenced: another attempt took the log; nothing was reset.
        ResetRefused: the newest epoch is not whole; older attempts are fenced already, its offsets stay in force.
        CheckpointError: the store failed; `read_log` tells whether the COMMIT landed.
    """
    log = CommitLog(store, attempt)
    log.start()
    crash_here("offsets.started")
    before = last_epoch(store).manifest
    after = before.model_copy(
        update={
            "epoch": before.epoch + 1,
            "attempt": attempt,
            "created_at": timestamp(datetime.now(UTC)),
            "offsets": rewrite(before),
            "note": note,
        }
    )
    committed = log.commit(after.epoch, write_manifest(store, after))
    crash_here("offsets.committed")
    return Reset(before, after, committed)
