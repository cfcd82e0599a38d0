"""From `spec.warmStart.trainingRef` to where the other training's epochs lie, or why they cannot be read yet.

Pods learn the URI, and where it needs other credentials than the training's own checkpoint, the name of a Secret. Only
the first start needs either: from its first epoch with rows on a training goes on from its own, and the other one may
change or go.
"""

from dataclasses import dataclass

from kuberec_api import RecTraining
from kuberec_operator import events
from kuberec_operator.plan.decision import Problem


@dataclass(frozen=True)
class WarmSource:
    """The other training's checkpoint; `secret` is the Secret to read it with, None for the training's own."""

    uri: str
    secret: str | None = None


def awaited(training: RecTraining) -> str | None:
    """Returns the name of the training to begin with, None if there is none or it is not needed any more."""
    warm = training.spec.warm_start
    if warm is None or warm.training_ref is None or has_rows(training):
        return None
    return warm.training_ref.name


def has_rows(training: RecTraining) -> bool:
    """Tells whether an epoch with rows is committed where the training commits now; epoch 0 has none."""
    last = training.status.checkpoint
    return last is not None and last.epoch > 0 and last.uri == training.spec.checkpoint.uri


def unmet(training: RecTraining, other: RecTraining | None) -> Problem | None:
    """Returns why nothing can be taken from the training that is referred to, None if it can or need not."""
    name = awaited(training)
    if name is None:
        return None
    field = f"warmStart.trainingRef: rectraining/{name}"
    if name == training.metadata.name:
        return Problem(events.INVALID_TRAINING, f"{field} is this training: it goes on from its own epochs by itself")
    if other is None:
        return Problem(events.TRAINING_NOT_FOUND, f"{field} does not exist in {training.metadata.namespace}")
    if other.spec.checkpoint.uri == training.spec.checkpoint.uri:
        return Problem(events.INVALID_TRAINING, f"{field} has the same checkpoint.uri: give this training its own")
    if not has_rows(other):
        return Problem(events.NO_COMMIT, f"{field} has not committed an epoch to {other.spec.checkpoint.uri} yet")
    return None


def source(training: RecTraining, other: RecTraining | None) -> WarmSource | None:
    """Returns where to take from, None if there is no reference or it is not needed; `unmet` was asked before."""
    if awaited(training) is None or other is None:
        return None
    theirs, own = other.spec.checkpoint.credentials, training.spec.checkpoint.credentials
    secret = None if theirs is None or theirs == own else theirs.secret_ref.name
    return WarmSource(other.spec.checkpoint.uri, secret)
