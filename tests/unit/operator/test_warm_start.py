"""`warmStart.trainingRef`: what a training waits for, and what its pods get once it can begin."""

import json
from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError

from kuberec_api import RecTraining
from kuberec_operator.plan.decision import ChildRef, Decision
from kuberec_operator.plan.observed import TrainingWorld
from kuberec_operator.plan.training import plan
from tests.unit.operator.resources import (
    NOW,
    RUNTIME,
    after,
    condition,
    documents,
    example_model,
    example_training,
    respec,
)

THEIRS, OURS = "s3://kuberec/yesterday", example_training().spec.checkpoint.uri
WORLD = TrainingWorld(model=example_model())


def epoch(number: int, uri: str) -> dict[str, Any]:
    return {"epoch": number, "attempt": 1, "uri": uri, "committedAt": "2026-01-01T00:00:00Z"}


def yesterday(committed: int | None = 4, uri: str = THEIRS, secret: str | None = "s3") -> RecTraining:
    body = documents()[1]
    body["metadata"]["name"] = "yesterday"
    body["spec"]["checkpoint"] = {"uri": uri}
    if secret is not None:
        body["spec"]["checkpoint"]["credentials"] = {"secretRef": {"name": secret}}
    status = {} if committed is None else {"checkpoint": epoch(committed, uri)}
    return RecTraining.model_validate({**body, "status": status})


def today(name: str = "yesterday", **status: Any) -> RecTraining:
    return respec(example_training(**status), warmStart={"trainingRef": {"name": name}})


def decide(training: RecTraining, other: RecTraining | None, **world: Any) -> Decision:
    return plan(training, replace(WORLD, warm=other, **world), NOW, RUNTIME)


def children(other: RecTraining | None, training: RecTraining | None = None, **world: Any) -> dict[str, dict[str, Any]]:
    """What is created once the number was written and read back."""
    started = training or today()
    announced = after(started, decide(started, other))
    return {m["kind"]: m for m in decide(announced, other, **world).apply}


def credentials(job: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    cluster = job["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    containers = [group["template"]["spec"]["containers"][0] for group in groups]
    return {container["name"]: container.get("envFrom", []) for container in containers}


@pytest.mark.parametrize(
    ("other", "reason", "told"),
    [
        (None, "TrainingNotFound", "warmStart.trainingRef: rectraining/yesterday does not exist in shop"),
        (yesterday(None), "NoCommittedEpoch", f"has not committed an epoch to {THEIRS} yet"),
        (yesterday(0), "NoCommittedEpoch", "has not committed an epoch"),
        (yesterday(4, uri=OURS), "InvalidTraining", "the same checkpoint.uri: give this training its own"),
    ],
)
def test_a_training_waits_and_says_what_for(other: RecTraining | None, reason: str, told: str) -> None:
    decision = decide(today(), other)
    said = condition(decision, "Running")
    assert (said["status"], said["reason"]) == ("False", reason)
    assert told in said["message"]
    assert decision.status is not None and decision.status["state"] == "Pending"
    assert [(note.reason, note.warning) for note in decision.events] == [(reason, True)]
    assert decide(after(today(), decision), other).events == ()


def test_a_training_cannot_begin_with_itself() -> None:
    said = condition(decide(today("feed"), today("feed")), "Running")
    assert said["reason"] == "InvalidTraining" and "goes on from its own epochs by itself" in said["message"]


def test_an_epoch_of_a_former_checkpoint_uri_is_none() -> None:
    moved = respec(yesterday(), checkpoint={"uri": "s3://kuberec/new"})
    assert condition(decide(today(), moved), "Running")["reason"] == "NoCommittedEpoch"


def test_the_driver_gets_the_uri_in_place_of_the_reference() -> None:
    made = children(yesterday())
    given = json.loads(made["ConfigMap"]["data"]["input.json"])["training"]
    assert given["spec"]["warmStart"] == {"uri": THEIRS}
    RecTraining.model_validate(given)


def test_other_credentials_go_to_those_who_read_epochs_under_a_prefix_of_their_own() -> None:
    own, theirs = {"secretRef": {"name": "s3"}}, {"prefix": "KUBEREC_WARM_", "secretRef": {"name": "archive"}}
    made = credentials(children(yesterday(secret="archive"))["RayJob"])
    assert made == {"driver": [own, theirs], "shard": [own, theirs], "worker": [own]}


@pytest.mark.parametrize("secret", ["s3", None])
def test_the_same_credentials_or_none_are_the_trainings_own(secret: str | None) -> None:
    made = credentials(children(yesterday(secret=secret))["RayJob"])
    assert set(map(str, made.values())) == {str([{"secretRef": {"name": "s3"}}])}


def test_once_it_has_rows_of_its_own_the_other_training_is_not_needed() -> None:
    made = children(None, today(checkpoint=epoch(1, OURS)))
    assert set(credentials(made["RayJob"])) == {"driver", "shard", "worker"}
    assert "trainingRef" in json.loads(made["ConfigMap"]["data"]["input.json"])["training"]["spec"]["warmStart"]


@pytest.mark.parametrize("committed", [epoch(0, OURS), epoch(7, "s3://kuberec/before")])
def test_until_then_it_is_needed(committed: dict[str, Any]) -> None:
    assert condition(decide(today(checkpoint=committed), None), "Running")["reason"] == "TrainingNotFound"


def test_what_the_other_training_does_later_does_not_touch_an_attempt() -> None:
    made = children(yesterday())
    config = ChildRef("ConfigMap", made["ConfigMap"]["metadata"]["name"])
    held = {config: made["ConfigMap"]["metadata"]["annotations"]["kuberec.dev/hash"]}
    moved = yesterday(9, uri="s3://kuberec/elsewhere")
    assert "ConfigMap" not in children(moved, children=held), "an input is immutable"
    announced = after(today(), decide(today(), yesterday()))
    assert decide(announced, moved).status == decide(announced, yesterday()).status


@pytest.mark.parametrize("warm", [{}, {"uri": THEIRS, "trainingRef": {"name": "yesterday"}}])
def test_a_warm_start_names_exactly_one_place(warm: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="exactly one of uri, trainingRef"):
        respec(example_training(), warmStart=warm)
