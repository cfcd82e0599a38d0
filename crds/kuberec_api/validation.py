"""What makes a model usable, decided without data, TensorFlow or Kubernetes: the one check of operator and runtime."""

from dataclasses import dataclass
from itertools import pairwise

from featuregen.compiler import compile_plan
from featuregen.errors import did_you_mean
from kuberec_api.layout import Layout, build_layout
from kuberec_api.model import NetworkKind, RecModelSpec
from kuberec_api.serving import RecServingSpec
from kuberec_api.training import RecTrainingSpec


class TrainingError(ValueError):
    """A training that does not fit its model; names the field and how to mend it."""


class ServingError(ValueError):
    """A serving that does not fit its training; names the field and how to mend it."""


@dataclass(frozen=True)
class ModelFacts:
    """What a model's status shows. `parameters` counts all rows that could exist, and the dense weights."""

    digest: str
    features: int
    tables: int
    parameters: int


def check_model(spec: RecModelSpec) -> ModelFacts:
    """Compiles features and network.

    Raises:
        FeatureError: a feature is wrong.
        NetworkError: the network does not fit the features.
    """
    plan = compile_plan(spec.features)
    layout = build_layout(spec, plan)
    rows = sum(plan.tables[t.name] * t.width for t in layout.tables.values())
    return ModelFacts(plan.digest, len(spec.features.list), len(layout.tables), rows + _dense_weights(spec, layout))


def _dense_weights(spec: RecModelSpec, layout: Layout) -> int:
    units = spec.network.params.hidden_units
    inputs = {g: sum(stop - start for start, stop in runs) for g, runs in layout.groups.items()}
    if spec.network.kind is NetworkKind.MULTI_TOWER:
        join = units[-1] * len(inputs)
        return sum(_mlp([n, *units]) for n in inputs.values()) + _mlp([join, units[-1], 1])
    return _mlp([inputs["deep"], *units, 1])


def _mlp(sizes: list[int]) -> int:
    return sum((a + 1) * b for a, b in pairwise(sizes))


def check_training(spec: RecTrainingSpec, model: RecModelSpec) -> None:
    """Checks a training against its model.

    Raises:
        TrainingError: a monitor watches a task that the model does not have.
    """
    tasks = [task.name for task in model.tasks]
    for monitor in spec.monitors:
        if monitor.task is not None and monitor.task not in tasks:
            hint = did_you_mean(monitor.task, tasks)
            raise TrainingError(f"monitor '{monitor.name}': the model has no task '{monitor.task}'\n  {hint}")


def check_serving(spec: RecServingSpec, training: RecTrainingSpec) -> None:
    """Checks a serving against its training.

    Raises:
        ServingError: requests would be logged into the topic that the training reads its samples from.
    """
    log, source = spec.request_log, training.source.kafka
    if log is None or source is None or log.kafka.topic != source.topic:
        return
    if set(log.kafka.bootstrap_servers.split(",")) & set(source.bootstrap_servers.split(",")):
        raise ServingError(
            f"requestLog.kafka.topic '{source.topic}' is the topic of the training's samples\n  log to another topic"
        )
