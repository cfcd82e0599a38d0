"""What an attempt is made from: the model and the training as they are when it is announced, and a hash of both."""

from kuberec_api import RecModel, RecTraining
from kuberec_api.meta import ConditionStatus
from kuberec_api.validation import TrainingError, check_training
from kuberec_operator import events
from kuberec_operator.plan import warmstart
from kuberec_operator.plan.decision import Problem, fingerprint
from kuberec_operator.plan.observed import TrainingWorld

# Changing these needs no new attempt: the operator itself acts on them.
_NOT_INPUT = {"suspend", "failure_policy"}


def input_hash(training: RecTraining, model: RecModel | None) -> str:
    """Returns a hash of what an attempt runs; fields at their defaults do not count, so new fields change nothing."""
    parts = [training.spec.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude=_NOT_INPUT)]
    if model is not None:
        parts.append(model.spec.model_dump(mode="json", by_alias=True, exclude_defaults=True))
    return fingerprint(parts)


def unmet_reference(training: RecTraining, world: TrainingWorld) -> Problem | None:
    """Returns why the training cannot start, or None."""
    name, model = training.spec.model_ref.name, world.model
    if model is None:
        return Problem(events.MODEL_NOT_FOUND, f"recmodel/{name} does not exist in {training.metadata.namespace}")
    ready = next((c for c in model.status.conditions if c.type == "Ready"), None)
    if ready is None or ready.observed_generation < model.metadata.generation:
        return Problem(events.MODEL_NOT_READY, f"recmodel/{name} is not compiled yet", soon=True)
    if ready.status is not ConditionStatus.TRUE:
        return Problem(events.MODEL_NOT_READY, f"recmodel/{name}: {ready.reason}: {ready.message}")
    try:
        check_training(training.spec, model.spec)
    except TrainingError as error:
        return Problem(events.INVALID_TRAINING, str(error))
    return warmstart.unmet(training, world.warm)
