"""Decides what a RecServing needs: a RayService once there is something to serve, and what its status says of it.

A serving that runs is never taken down because its training or model went away or turned bad: what was published
is still in Redis. It says so in `Stale` and keeps serving.
"""

from datetime import datetime
from typing import Any

from kuberec_api import RecServing
from kuberec_api.validation import ServingError, check_serving
from kuberec_operator import events
from kuberec_operator.plan.decision import ChildRef, Decision, Manifest, Note, Problem, Verdict, conditions, missing
from kuberec_operator.plan.observed import ServingWorld
from kuberec_operator.render.rayservice import render_service, service_url
from kuberec_operator.settings import RuntimeSettings

READY, PROGRESSING, STALE = "Ready", "Progressing", "Stale"
POLL_S = 5.0
REFRESH_S = 10.0  # for version and freshness, which no event tells
REFERENCE_RETRY_S = 30.0


def plan(serving: RecServing, world: ServingWorld, now: datetime, runtime: RuntimeSettings) -> Decision:
    """Returns what to do next; see the module."""
    if serving.metadata.deletion_timestamp:
        return Decision()
    if not world.kuberay:
        problem = Problem(events.KUBERAY_MISSING, "the API server knows no RayService (ray.io/v1): install KubeRay")
        return _waiting(serving, world, problem, now)
    if serving.spec.replicas == 0:
        held = (ChildRef("RayService", serving.metadata.name),) if world.service else ()
        asleep = Problem(events.SCALED_TO_ZERO, "spec.replicas is 0")
        return _waiting(serving, world, asleep, now, delete=held, warning=False)
    problem_now = _unmet(serving, world)
    if problem_now and world.service is None:
        return _waiting(serving, world, problem_now, now)
    apply: tuple[Manifest, ...] = ()
    if problem_now is None:
        assert world.training is not None and world.model is not None  # _unmet has seen to it
        apply = missing(render_service(world.model, world.training, serving, runtime), world.children)
    return _mirror(serving, world, problem_now, now, apply)


def _unmet(serving: RecServing, world: ServingWorld) -> Problem | None:
    training, name = world.training, serving.spec.training_ref.name
    if training is None:
        return Problem(events.TRAINING_NOT_FOUND, f"rectraining/{name} does not exist in {serving.metadata.namespace}")
    if training.spec.publish is None:
        return Problem(events.TRAINING_NOT_PUBLISHING, f"rectraining/{name} has no spec.publish")
    if world.model is None:
        model = training.spec.model_ref.name
        return Problem(events.MODEL_NOT_FOUND, f"recmodel/{model} of rectraining/{name} does not exist")
    ready = next((c for c in world.model.status.conditions if c.type == "Ready"), None)
    if ready is None or ready.observed_generation < world.model.metadata.generation:
        return Problem(events.MODEL_NOT_READY, f"recmodel/{world.model.metadata.name} is not compiled yet", soon=True)
    if ready.status != "True":
        return Problem(events.MODEL_NOT_READY, f"recmodel/{world.model.metadata.name}: {ready.reason}: {ready.message}")
    try:
        check_serving(serving.spec, training.spec)
    except ServingError as error:
        return Problem(events.INVALID_SERVING, str(error))
    if training.status.publication is None and world.service is None:
        return Problem(events.NO_PUBLICATION, f"rectraining/{name} has not published yet", soon=True)
    return None


def _waiting(
    serving: RecServing,
    world: ServingWorld,
    problem: Problem,
    now: datetime,
    *,
    delete: tuple[ChildRef, ...] = (),
    warning: bool = True,
) -> Decision:
    verdicts = [
        Verdict(READY, False, problem.reason, problem.message),
        Verdict(PROGRESSING, False, problem.reason),
        Verdict(STALE, False, events.FOLLOWING),
    ]
    notes = () if problem.soon else _news(serving, verdicts[0], warning)
    status = _status(serving, verdicts, now, {"readyReplicas": 0, "replicas": 0})
    return Decision(status, delete=delete, events=notes, requeue_after_s=REFERENCE_RETRY_S)


def _mirror(
    serving: RecServing, world: ServingWorld, problem: Problem | None, now: datetime, apply: tuple[Manifest, ...]
) -> Decision:
    service, wanted = world.service, serving.spec.replicas
    endpoints = service.endpoints if service else 0
    ready = service is not None and service.ready and endpoints > 0
    settled = ready and endpoints >= wanted and not apply and service is not None and not service.upgrading
    message = service.message if service else "the RayService is being created"
    reason = events.SERVING if ready else events.STARTING
    moving = events.UPGRADING if service is not None and service.upgrading else events.STARTING
    verdicts = [
        Verdict(READY, ready, reason, f"{endpoints} of {wanted} replicas" if ready else message),
        Verdict(PROGRESSING, not settled, events.SERVING if settled else moving, "" if settled else message),
        Verdict(
            STALE,
            problem is not None,
            problem.reason if problem else events.FOLLOWING,
            problem.message if problem else "",
        ),
    ]
    facts: dict[str, Any] = {
        "readyReplicas": min(endpoints, wanted),
        "replicas": wanted,
        "url": f"{service_url(serving)}:rank",
    }
    if world.replicas.version is not None:
        facts["version"] = world.replicas.version
    if world.replicas.freshness_s is not None:
        facts["freshness"] = f"{world.replicas.freshness_s:.1f}s"
    notes = _news(serving, verdicts[0], False)
    return Decision(
        _status(serving, verdicts, now, facts),
        apply=apply,
        events=notes,
        requeue_after_s=REFRESH_S if settled else POLL_S,
    )


def _news(serving: RecServing, verdict: Verdict, warning: bool) -> tuple[Note, ...]:
    said = next((c for c in serving.status.conditions if c.type == verdict.type), None)
    if said is not None and said.reason == verdict.reason:
        return ()
    return (Note(verdict.reason, verdict.message or verdict.reason, warning),)


def _status(serving: RecServing, verdicts: list[Verdict], now: datetime, facts: dict[str, Any]) -> dict[str, Any]:
    generation = serving.metadata.generation
    return {
        "conditions": conditions(serving.status.conditions, verdicts, generation, now),
        "observedGeneration": generation,
        **facts,
    }
