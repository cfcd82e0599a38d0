"""Which part of a watched object can change a decision: everything else is noise that wakes nobody.

The driver writes its progress every second; a reconcile for each would cost reads and decide nothing.
"""

import json
from collections.abc import Mapping
from typing import Any

from kuberec_operator.kinds import LABEL_SERVING, LABEL_TRAINING, SERVING, TRAINING, Key

_STATUS_FIELDS = {
    "RecModel": ("observedGeneration", "digest"),
    "RecTraining": ("outcome", "attempt", "state"),
    "RecServing": (),
    "RayJob": ("jobStatus", "jobDeploymentStatus", "message"),
    "RayService": ("conditions", "numServeEndpoints", "activeServiceStatus"),
    "Pod": ("phase", "reason"),
}


def relevant(body: Mapping[str, Any]) -> str:
    """Returns a text that changes exactly when the object should be looked at."""
    meta, status = body.get("metadata", {}), body.get("status") or {}
    parts: list[Any] = [meta.get("uid"), meta.get("generation"), meta.get("deletionTimestamp")]
    parts += [status.get(name) for name in _STATUS_FIELDS.get(str(body.get("kind")), ())]
    if body.get("kind") == "RecTraining":
        checkpoint = status.get("checkpoint") or {}
        parts += ["publication" in status, checkpoint.get("attempt"), bool(checkpoint.get("epoch"))]
    if body.get("kind") == "Pod":
        parts.append(_waiting(status))
    return json.dumps(parts, sort_keys=True, default=str)


def _waiting(status: Mapping[str, Any]) -> list[Any]:
    containers = status.get("containerStatuses") or []
    return [[sorted(c.get("state") or {}), c.get("restartCount")] for c in containers]


def owner_of(body: Mapping[str, Any]) -> Key | None:
    """Returns the object of ours that a watched object is, or belongs to."""
    meta = body.get("metadata", {})
    namespace, labels = str(meta.get("namespace", "")), meta.get("labels") or {}
    kind = str(body.get("kind"))
    if kind.startswith("Rec"):
        return Key(kind, namespace, str(meta.get("name")))
    if training := labels.get(LABEL_TRAINING):
        return Key(TRAINING.name, namespace, training)
    if serving := labels.get(LABEL_SERVING):
        return Key(SERVING.name, namespace, serving)
    return None


class Seen:
    """Remembers what was relevant last, so that `news` is true once for each change."""

    def __init__(self) -> None:
        self._last: dict[str, str] = {}

    def news(self, body: Mapping[str, Any], gone: bool = False) -> bool:
        """Tells whether this event says something new; forgets objects that are gone."""
        uid = str(body.get("metadata", {}).get("uid"))
        if gone:
            self._last.pop(uid, None)
            return True
        now = relevant(body)
        if self._last.get(uid) == now:
            return False
        self._last[uid] = now
        return True
