"""What a plan returns: the status as it should be, children to apply or delete, events, and when to look again.

The order in which a decision is carried out is part of its meaning: status first (an attempt's number is known before
anything of it exists), then children in their order, deletions, events.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from kuberec_api.meta import Condition, ConditionStatus, timestamp
from kuberec_operator.kinds import HASH

Manifest = dict[str, Any]


@dataclass(frozen=True)
class ChildRef:
    """A child by kind and name, in the namespace of its owner."""

    kind: str
    name: str


@dataclass(frozen=True)
class Note:
    """An event for people: reason from `events`, and whether something is wrong."""

    reason: str
    message: str
    warning: bool = False


@dataclass(frozen=True)
class Decision:
    """See the module. `status` is everything the operator owns in it; None leaves it as it is."""

    status: dict[str, Any] | None = None
    apply: tuple[Manifest, ...] = ()
    delete: tuple[ChildRef, ...] = ()
    events: tuple[Note, ...] = ()
    requeue_after_s: float | None = None


@dataclass(frozen=True)
class Verdict:
    """One condition as a plan wants it."""

    type: str
    true: bool
    reason: str
    message: str = ""


@dataclass(frozen=True)
class Problem:
    """Why something cannot start yet; `soon` means that it will without anybody doing something."""

    reason: str
    message: str
    soon: bool = False


def parse_time(text: str) -> datetime:
    """Reads an RFC 3339 time."""
    return datetime.fromisoformat(text)


def conditions(
    current: Sequence[Condition], verdicts: Iterable[Verdict], generation: int, now: datetime
) -> list[dict[str, Any]]:
    """Returns conditions as data; a transition time moves only when a condition's status flips."""
    held = {condition.type: condition for condition in current}
    out = []
    for verdict in verdicts:
        status = ConditionStatus.TRUE if verdict.true else ConditionStatus.FALSE
        before = held.get(verdict.type)
        same = before is not None and before.status is status
        out.append(
            {
                "type": verdict.type,
                "status": status.value,
                "reason": verdict.reason,
                "message": verdict.message[:4096],
                "lastTransitionTime": before.last_transition_time if before and same else timestamp(now),
                "observedGeneration": generation,
            }
        )
    return out


def fingerprint(value: object) -> str:
    """Returns a short hash of plain data, equal for equal data in any key order."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:16]


def hashed(manifest: Manifest) -> Manifest:
    """Returns the manifest with the hash of its contents as an annotation, by which drift is seen without a diff."""
    meta = dict(manifest["metadata"])
    meta["annotations"] = {**meta.get("annotations", {}), HASH: fingerprint(manifest)}
    return {**manifest, "metadata": meta}


def missing(wanted: Iterable[Manifest], held: Mapping[ChildRef, str]) -> tuple[Manifest, ...]:
    """Returns the manifests that do not exist, or exist with other contents; `held` maps children to their hash."""
    return tuple(
        manifest
        for manifest in wanted
        if held.get(ChildRef(manifest["kind"], manifest["metadata"]["name"]))
        != manifest["metadata"]["annotations"][HASH]
    )
