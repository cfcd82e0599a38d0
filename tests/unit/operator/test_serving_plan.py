"""The decision table of a RecServing: each test is one row."""

from dataclasses import replace
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from kuberec_api import RecServing
from kuberec_operator.plan.decision import ChildRef, Decision
from kuberec_operator.plan.observed import Replicas, ServiceView, ServingWorld
from kuberec_operator.plan.serving import plan
from tests.unit.operator.resources import (
    NOW,
    RUNTIME,
    condition,
    example_model,
    example_serving,
    example_training,
    later,
)

PUBLISHED = {"publication": {"version": "1.4", "rows": 9, "publishedAt": "2026-01-02T03:04:05Z"}}
WORLD = ServingWorld(training=example_training(**PUBLISHED), model=example_model())
UP = ServiceView(ready=True, endpoints=1)


def decide(world: ServingWorld, serving: RecServing | None = None) -> Decision:
    return plan(serving or example_serving(), world, NOW, RUNTIME)


def respec(**changes: Any) -> RecServing:
    body = example_serving().model_dump(mode="json", by_alias=True)
    body["spec"] |= changes
    return RecServing.model_validate(body)


def held(decision: Decision) -> dict[ChildRef, str]:
    return {
        ChildRef(m["kind"], m["metadata"]["name"]): m["metadata"]["annotations"]["kuberec.dev/hash"]
        for m in decision.apply
    }


def test_nothing_is_started_before_there_is_something_to_serve() -> None:
    decision = decide(replace(WORLD, training=example_training()))
    assert (condition(decision, "Ready")["reason"], decision.apply) == ("NoPublication", ())


def test_the_first_publication_makes_a_ray_service() -> None:
    decision = decide(WORLD)
    assert [(m["kind"], m["metadata"]["name"]) for m in decision.apply] == [("RayService", "feed")]
    assert condition(decision, "Progressing")["status"] == "True"


def test_an_unchanged_service_is_not_applied_again() -> None:
    assert decide(replace(WORLD, service=UP, children=held(decide(WORLD)))).apply == ()


def test_ready_replicas_make_it_ready_with_version_and_freshness() -> None:
    world = replace(WORLD, service=UP, children=held(decide(WORLD)), replicas=Replicas("1.4", 1.44))
    decision = decide(world)
    assert condition(decision, "Ready")["status"] == "True"
    assert condition(decision, "Progressing")["status"] == "False"
    status = decision.status or {}
    assert (status["version"], status["freshness"], status["readyReplicas"]) == ("1.4", "1.4s", 1)
    assert status["url"] == "http://feed-serve-svc.shop:8000/v1/models/feed:rank"


def test_what_the_application_says_is_passed_on() -> None:
    broken = ServiceView(message="application feed is DEPLOY_FAILED: no module")
    assert "no module" in condition(decide(replace(WORLD, service=broken)), "Ready")["message"]


def test_a_serving_outlives_its_training_and_says_so() -> None:
    decision = decide(replace(WORLD, training=None, service=UP, children=held(decide(WORLD))))
    assert condition(decision, "Stale")["reason"] == "TrainingNotFound"
    assert condition(decision, "Ready")["status"] == "True"
    assert (decision.apply, decision.delete) == ((), ())


def test_each_unmet_reference_is_named() -> None:
    silent = example_training().model_copy(
        update={"spec": example_training().spec.model_copy(update={"publish": None})}
    )
    for world, reason in (
        (replace(WORLD, training=None), "TrainingNotFound"),
        (replace(WORLD, training=silent), "TrainingNotPublishing"),
        (replace(WORLD, model=None), "ModelNotFound"),
        (replace(WORLD, model=example_model(ready=False)), "ModelNotReady"),
        (replace(WORLD, kuberay=False), "KubeRayMissing"),
    ):
        assert condition(decide(world), "Ready")["reason"] == reason


def test_no_replicas_free_everything() -> None:
    decision = decide(replace(WORLD, service=UP), respec(replicas=0))
    assert decision.delete == (ChildRef("RayService", "feed"),)
    assert condition(decision, "Ready")["reason"] == "ScaledToZero"


def serve_config(serving: RecServing) -> tuple[dict[str, Any], dict[str, Any]]:
    spec = decide(WORLD, serving).apply[0]["spec"]
    config = yaml.safe_load(spec.pop("serveConfigV2"))
    return spec, config["applications"][0]


def test_a_pin_changes_the_user_config_and_nothing_else() -> None:
    before, after = serve_config(respec()), serve_config(respec(version={"policy": "Pinned", "version": "1.2"}))
    assert after[1]["deployments"][0]["user_config"] == {"version": {"policy": "Pinned", "version": "1.2"}}
    assert (before[0], before[1]["args"]) == (after[0], after[1]["args"])


def test_more_replicas_replace_no_replica() -> None:
    before, after = serve_config(respec()), serve_config(respec(replicas=3))
    assert before[1]["args"] == after[1]["args"]
    assert after[1]["deployments"][0]["num_replicas"] == 3
    assert after[0]["rayClusterConfig"]["workerGroupSpecs"][0]["replicas"] == 3


def test_the_serve_builder_accepts_the_arguments_as_rendered() -> None:
    _, application = serve_config(respec())
    assert set(application["args"]) == {"model", "serving", "redis", "namespace", "numCpus", "threads"}
    RecServing.model_validate(application["args"]["serving"])


def request_log(topic: str, bootstrap: str = "kafka:9092") -> RecServing:
    return respec(requestLog={"kafka": {"bootstrapServers": bootstrap, "topic": topic}, "sample": 0.5})


def test_a_request_log_reaches_the_replicas() -> None:
    _, application = serve_config(request_log("feed-requests"))
    served = RecServing.model_validate(application["args"]["serving"])
    assert served.spec.request_log is not None
    assert (served.spec.request_log.kafka.topic, served.spec.request_log.sample) == ("feed-requests", 0.5)


def test_requests_are_not_logged_among_the_samples_of_the_training() -> None:
    verdict = condition(decide(WORLD, request_log("feed-samples", "other:9092,kafka:9092")), "Ready")
    assert (verdict["reason"], "log to another topic" in verdict["message"]) == ("InvalidServing", True)
    assert decide(WORLD, request_log("feed-samples", "elsewhere:9092")).apply


@pytest.mark.parametrize("sample", [0, -0.1, 1.5])
def test_a_share_of_users_is_above_0_and_at_most_1(sample: float) -> None:
    with pytest.raises(ValidationError, match="sample"):
        respec(requestLog={"kafka": {"bootstrapServers": "kafka:9092", "topic": "t"}, "sample": sample})


def test_later_looks_change_nothing() -> None:
    world = replace(WORLD, service=UP, children=held(decide(WORLD)))
    first = decide(world)
    serving = example_serving(**(first.status or {}))
    assert plan(serving, world, later(60), RUNTIME).status == first.status
