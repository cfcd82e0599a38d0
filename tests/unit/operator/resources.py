"""Resources and worlds for plan tests, made from examples/feed.yaml."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from kuberec_api import RecModel, RecServing, RecTraining
from kuberec_operator.plan import model as model_plan
from kuberec_operator.plan.decision import Decision
from kuberec_operator.settings import RuntimeSettings

EXAMPLE = Path(__file__).parents[3] / "examples" / "feed.yaml"
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
RUNTIME = RuntimeSettings(image="example.org/kuberec/runtime:test", pull_policy="Never")


def documents() -> list[dict[str, Any]]:
    bodies = list(yaml.safe_load_all(EXAMPLE.read_text()))
    for body in bodies:
        body["metadata"] |= {"namespace": "shop", "uid": f"uid-{body['kind'].lower()}", "generation": 1}
    return bodies


def example_model(ready: bool = True) -> RecModel:
    body = documents()[0]
    if ready:
        decision = model_plan.plan(RecModel.model_validate(body), NOW)
        body["status"] = decision.status
    return RecModel.model_validate(body)


def example_training(**status: Any) -> RecTraining:
    return RecTraining.model_validate({**documents()[1], "status": status})


def example_serving(**status: Any) -> RecServing:
    return RecServing.model_validate({**documents()[2], "status": status})


def after(training: RecTraining, decision: Decision, **more: Any) -> RecTraining:
    """The training once the decision's status is written, and the driver's part of it as given."""
    body = training.model_dump(mode="json", by_alias=True, exclude_none=True)
    return RecTraining.model_validate({**body, "status": {**body["status"], **(decision.status or {}), **more}})


def respec(training: RecTraining, **changes: Any) -> RecTraining:
    """The training with another spec, one generation later."""
    body = training.model_dump(mode="json", by_alias=True, exclude_none=True)
    body["spec"] |= changes
    body["metadata"]["generation"] += 1
    return RecTraining.model_validate(body)


def later(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


def condition(decision: Decision, kind: str) -> dict[str, Any]:
    assert decision.status is not None
    return next(c for c in decision.status["conditions"] if c["type"] == kind)
