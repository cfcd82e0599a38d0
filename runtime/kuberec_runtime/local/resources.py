"""Reads a YAML file of the three kinds and points it at local services. Pure but for reading the file."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from kuberec_api import RecModel, RecServing, RecTraining
from kuberec_api.source import StopAt
from kuberec_api.validation import ServingError, check_serving


class ResourceFileError(ValueError):
    """A YAML file that does not hold what is needed; names the document and the field."""


@dataclass(frozen=True)
class Resources:
    """One model, one training and at most one serving that belong together."""

    model: RecModel
    training: RecTraining
    serving: RecServing | None = None


@dataclass(frozen=True)
class Overrides:
    """Addresses and limits that replace those of the file; None leaves the file's."""

    bootstrap_servers: str | None = None
    topic: str | None = None
    redis_url: str | None = None
    checkpoint_uri: str | None = None
    checkpoint_interval: str | None = None
    publish_interval: str | None = None
    stop_at_end: bool = False


_KINDS: Mapping[str, type[RecModel] | type[RecTraining] | type[RecServing]] = {
    "RecModel": RecModel,
    "RecTraining": RecTraining,
    "RecServing": RecServing,
}


def read_resources(path: Path) -> Resources:
    """Reads and validates the file.

    Raises:
        ResourceFileError: names the document, the field and what is wrong with it.
    """
    return _matching(path, _documents(path))


def read_model(path: Path) -> RecModel:
    """Reads the model of a file's one RecTraining, or the one RecModel of a file without such a training.

    Raises:
        ResourceFileError: as `read_resources`, or the file has no RecModel, or several.
    """
    found = _documents(path)
    if len(found["RecTraining"]) == 1:
        return _matching(path, found).model
    models: list[RecModel] = found["RecModel"]
    if len(models) != 1:
        raise ResourceFileError(f"{path}: one RecModel is needed, the file has {len(models)}")
    return models[0]


def localize(resources: Resources, overrides: Overrides) -> Resources:
    """Returns the resources with the overrides applied."""
    spec = resources.training.spec
    kafka = spec.source.kafka
    if kafka is not None:
        kafka = kafka.model_copy(
            update=_given(
                bootstrap_servers=overrides.bootstrap_servers,
                topic=overrides.topic,
                stop_at=StopAt.END if overrides.stop_at_end else None,
            )
        )
    checkpoint = spec.checkpoint.model_copy(
        update=_given(uri=overrides.checkpoint_uri, interval=overrides.checkpoint_interval)
    )
    publish = spec.publish
    if publish is not None:
        redis = publish.redis.model_copy(update=_given(url=overrides.redis_url))
        publish = publish.model_copy(update=_given(redis=redis, interval=overrides.publish_interval))
    source = spec.source.model_copy(update={"kafka": kafka})
    changed = spec.model_copy(update={"source": source, "checkpoint": checkpoint, "publish": publish})
    training = resources.training.model_copy(update={"spec": changed})
    return replace(resources, training=training, serving=_local_log(resources.serving, overrides.bootstrap_servers))


def _local_log(serving: RecServing | None, bootstrap_servers: str | None) -> RecServing | None:
    """Requests are logged to the brokers that the samples come from."""
    if serving is None or serving.spec.request_log is None or bootstrap_servers is None:
        return serving
    log = serving.spec.request_log
    kafka = log.kafka.model_copy(update={"bootstrap_servers": bootstrap_servers})
    moved = log.model_copy(update={"kafka": kafka})
    return serving.model_copy(update={"spec": serving.spec.model_copy(update={"request_log": moved})})


def _documents(path: Path) -> dict[str, list[Any]]:
    try:
        documents = [d for d in yaml.safe_load_all(path.read_text()) if d is not None]
    except (OSError, yaml.YAMLError) as error:
        raise ResourceFileError(f"{path}: {error}") from error
    found: dict[str, list[Any]] = {kind: [] for kind in _KINDS}
    for number, document in enumerate(documents, start=1):
        kind = str(document.get("kind")) if isinstance(document, dict) else "none"
        if kind not in _KINDS:
            raise ResourceFileError(f"{path}: document {number} has kind {kind}, expected {', '.join(_KINDS)}")
        try:
            found[kind].append(_KINDS[kind].model_validate(document))
        except ValidationError as error:
            raise ResourceFileError(f"{path}: document {number} ({kind}):\n{_readable(error)}") from error
    return found


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _matching(path: Path, found: Mapping[str, list[Any]]) -> Resources:
    trainings: list[RecTraining] = found["RecTraining"]
    if len(trainings) != 1:
        raise ResourceFileError(f"{path}: a local run needs exactly one RecTraining, the file has {len(trainings)}")
    training = trainings[0]
    models = {m.metadata.name: m for m in found["RecModel"]}
    name = training.spec.model_ref.name
    if name not in models:
        raise ResourceFileError(
            f"{path}: rectraining/{training.metadata.name} refers to recmodel/{name}, the file has "
            f"{', '.join(models) or 'no RecModel'}"
        )
    servings = [s for s in found["RecServing"] if s.spec.training_ref.name == training.metadata.name]
    for serving in servings:
        try:
            check_serving(serving.spec, training.spec)
        except ServingError as error:
            raise ResourceFileError(f"{path}: recserving/{serving.metadata.name}: {error}") from None
    return Resources(models[name], training, servings[0] if servings else None)


def _readable(error: ValidationError) -> str:
    lines = []
    for problem in error.errors():
        where = ".".join(str(part) for part in problem["loc"])
        given = "" if isinstance(problem["input"], dict | list) else f", got {problem['input']!r}"
        lines.append(f"  {where}: {problem['msg']}{given}")
    return "\n".join(lines)
