"""Reads the world, asks the plan, carries out its decision in order: status, children, deletions, events."""

import hashlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar

from pydantic import ValidationError

from kuberec_api import RecModel, RecServing, RecTraining
from kuberec_api.meta import Condition, timestamp
from kuberec_operator import events
from kuberec_operator.cluster import Body, Cluster, Conflict, KindUnknown
from kuberec_operator.kinds import (
    CHILDREN,
    CONFIGMAP,
    LABEL_ATTEMPT,
    LABEL_SERVING,
    LABEL_TRAINING,
    MODEL,
    POD,
    RAYJOB,
    RAYSERVICE,
    ROLE,
    ROLEBINDING,
    SERVICEACCOUNT,
    SERVING,
    TRAINING,
    Key,
    Kind,
)
from kuberec_operator.metrics import CONDITIONS, RECONCILE_ERRORS, RECONCILE_SECONDS, RESTARTS
from kuberec_operator.plan import model as model_plan
from kuberec_operator.plan import serving as serving_plan
from kuberec_operator.plan import training as training_plan
from kuberec_operator.plan import warmstart
from kuberec_operator.plan.decision import ChildRef, Decision, Note, Verdict, conditions
from kuberec_operator.plan.observed import (
    JobView,
    Replicas,
    ServiceView,
    ServingWorld,
    TrainingWorld,
    child_hashes,
    heads,
    waiting_reason,
)
from kuberec_operator.settings import RuntimeSettings
from kuberec_operator.status import needs_write

logger = logging.getLogger(__name__)
Resource = TypeVar("Resource", RecModel, RecTraining, RecServing)
Ask = Callable[[RecServing], Awaitable[Replicas]]


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


async def _ask_nobody(_: RecServing) -> Replicas:
    return Replicas()


class Reconciler:
    """Reconciles one object at a time.

    Args:
        cluster: the API server.
        runtime: how Ray pods are made.
        wake: called for objects that depend on the one that changed.
        ask: asks a serving's replicas for version and freshness.
        clock: the time, in UTC.
    """

    def __init__(
        self,
        cluster: Cluster,
        runtime: RuntimeSettings,
        wake: Callable[[Key], None] = lambda key: None,
        ask: Ask = _ask_nobody,
        clock: Callable[[], datetime] = _now,
    ) -> None:
        self._cluster, self._runtime, self._wake, self._ask, self._clock = cluster, runtime, wake, ask, clock

    async def __call__(self, key: Key) -> float | None:
        """Reconciles; returns seconds until it should be looked at again, or None.

        Raises:
            ClusterError: the API server did not do something; try again later.
        """
        with RECONCILE_SECONDS.labels(key.kind).time():
            try:
                return await self._reconcile(key)
            except Conflict as conflict:
                logger.debug("%s: %s; deciding again", key, conflict)
                return 0.05
            except Exception:
                RECONCILE_ERRORS.labels(key.kind).inc()
                raise

    async def _reconcile(self, key: Key) -> float | None:
        match key.kind:
            case MODEL.name:
                return await self._model(key)
            case TRAINING.name:
                return await self._training(key)
            case _:
                return await self._serving(key)

    async def _model(self, key: Key) -> float | None:
        body = await self._cluster.get(MODEL, key.namespace, key.name)
        model = await self._parsed(MODEL, body, RecModel, "Ready")
        if body is None or model is None:
            await self._wake_trainings(key)
            return None
        decision = model_plan.plan(model, self._clock())
        changed = await self._carry_out(MODEL, body, decision)
        if changed:
            await self._wake_trainings(key)
        return decision.requeue_after_s

    async def _training(self, key: Key) -> float | None:
        body = await self._cluster.get(TRAINING, key.namespace, key.name)
        training = await self._parsed(TRAINING, body, RecTraining, "Running")
        if body is None or training is None:
            return None
        world = await self._training_world(training)
        decision = training_plan.plan(training, world, self._clock(), self._runtime)
        await self._carry_out(TRAINING, body, decision)
        # The driver's first epoch and first publication are no changes that this operator wrote.
        await self._wake_warm_starts(key)
        await self._wake_servings(key)
        return decision.requeue_after_s

    async def _serving(self, key: Key) -> float | None:
        body = await self._cluster.get(SERVING, key.namespace, key.name)
        serving = await self._parsed(SERVING, body, RecServing, "Ready")
        if body is None or serving is None:
            return None
        world = await self._serving_world(serving)
        decision = serving_plan.plan(serving, world, self._clock(), self._runtime)
        await self._carry_out(SERVING, body, decision)
        return decision.requeue_after_s

    async def _training_world(self, training: RecTraining) -> TrainingWorld:
        namespace, mine = training.metadata.namespace, f"{LABEL_TRAINING}={training.metadata.name}"
        model = await self._read(MODEL, namespace, training.spec.model_ref.name, RecModel)
        name = warmstart.awaited(training)
        warm = await self._read(TRAINING, namespace, name, RecTraining) if name is not None else None
        children: list[Body] = []
        kuberay, jobs = True, []
        try:
            jobs = await self._cluster.list(RAYJOB, namespace, mine)
        except KindUnknown:
            kuberay = False
        for kind in (SERVICEACCOUNT, ROLE, ROLEBINDING, CONFIGMAP):
            children += await self._cluster.list(kind, namespace, mine)
        pods = await self._cluster.list(POD, namespace, mine)
        views = tuple(JobView.of(job) for job in jobs)
        attempt = training.status.attempt
        current = [p for p in pods if p["metadata"].get("labels", {}).get(LABEL_ATTEMPT) == str(attempt)]
        return TrainingWorld(
            model=model,
            warm=warm,
            kuberay=kuberay,
            job=next((view for view in views if view.attempt == attempt), None),
            head=heads(pods, attempt),
            jobs=views,
            pods=len(pods),
            waiting=waiting_reason(current),
            children=child_hashes([*children, *jobs]),
        )

    async def _serving_world(self, serving: RecServing) -> ServingWorld:
        namespace, name = serving.metadata.namespace, serving.metadata.name
        training = await self._read(TRAINING, namespace, serving.spec.training_ref.name, RecTraining)
        model = None
        if training is not None:
            model = await self._read(MODEL, namespace, training.spec.model_ref.name, RecModel)
        try:
            services = await self._cluster.list(RAYSERVICE, namespace, f"{LABEL_SERVING}={name}")
        except KindUnknown:
            return ServingWorld(training, model, kuberay=False)
        view = ServiceView.of(services[0]) if services else None
        replicas = await self._ask(serving) if view is not None and view.endpoints else Replicas()
        return ServingWorld(training, model, True, view, replicas, child_hashes(services))

    async def _read(self, kind: Kind, namespace: str, name: str, model: type[Resource]) -> Resource | None:
        """Reads a resource that another one refers to; one that does not parse counts as not there."""
        body = await self._cluster.get(kind, namespace, name)
        try:
            return model.model_validate(body) if body is not None else None
        except ValidationError:
            return None

    async def _parsed(self, kind: Kind, body: Body | None, model: type[Resource], condition: str) -> Resource | None:
        """Parses a resource; what CEL let through and our types refuse is said in its main condition."""
        if body is None:
            return None
        try:
            return model.model_validate(body)
        except ValidationError as error:
            message = "; ".join(f"{'.'.join(str(p) for p in e['loc'])}: {e['msg']}" for e in error.errors()[:5])
        held = [Condition.model_validate(c) for c in (body.get("status") or {}).get("conditions") or []]
        generation = int(body["metadata"].get("generation", 0))
        verdict = Verdict(condition, False, events.INVALID_SPEC, message)
        status = {
            "conditions": conditions(held, [verdict], generation, self._clock()),
            "observedGeneration": generation,
        }
        if needs_write({**body, "metadata": {**body["metadata"], "managedFields": []}}, status):
            note = Note(events.INVALID_SPEC, message, warning=True)
            await self._carry_out(kind, body, Decision(_keeping(body, status), events=(note,)))
        return None

    async def _carry_out(self, kind: Kind, body: Body, decision: Decision) -> bool:
        """Does what was decided, in order; returns whether the status changed."""
        resource: Body = {"apiVersion": kind.api_version, "kind": kind.name, **body}
        namespace = body["metadata"]["namespace"]
        changed = decision.status is not None and needs_write(resource, decision.status)
        if changed and decision.status is not None:
            await self._cluster.apply_status(kind, resource, decision.status)
            _count(kind, body, decision.status)
        for manifest in decision.apply:
            await self._cluster.apply(manifest)
        for child in decision.delete:
            await self._cluster.delete(CHILDREN[child.kind], namespace, child.name)
        for note in decision.events:
            await self._event(resource, note)
        return changed

    async def _event(self, resource: Body, note: Note) -> None:
        now = timestamp(self._clock())
        version = resource["metadata"]["resourceVersion"]
        unique = hashlib.sha256(f"{note.reason}{note.message}{version}".encode()).hexdigest()[:12]
        name = f"{resource['metadata']['name']}.{unique}"
        logger.info("%s/%s: %s: %s", resource["kind"].lower(), resource["metadata"]["name"], note.reason, note.message)
        await self._cluster.record(resource, name, note.reason, note.message, note.warning, now)

    async def _wake_trainings(self, model: Key) -> None:
        for body in await self._cluster.list(TRAINING, model.namespace):
            if (body["spec"].get("modelRef") or {}).get("name") == model.name:
                self._wake(Key(TRAINING.name, model.namespace, body["metadata"]["name"]))

    async def _wake_warm_starts(self, training: Key) -> None:
        for body in await self._cluster.list(TRAINING, training.namespace):
            if ((body["spec"].get("warmStart") or {}).get("trainingRef") or {}).get("name") == training.name:
                self._wake(Key(TRAINING.name, training.namespace, body["metadata"]["name"]))

    async def _wake_servings(self, training: Key) -> None:
        for body in await self._cluster.list(SERVING, training.namespace):
            if (body["spec"].get("trainingRef") or {}).get("name") == training.name:
                self._wake(Key(SERVING.name, training.namespace, body["metadata"]["name"]))


def _keeping(body: Body, status: Mapping[str, Any]) -> dict[str, Any]:
    """Keeps what the operator knows about attempts when it can say no more than that the spec is wrong."""
    kept = ("state", "attempt", "inputHash", "failures", "workers", "restarts")
    present = body.get("status") or {}
    return {**{name: present[name] for name in kept if name in present}, **status}


def _count(kind: Kind, body: Body, status: Mapping[str, Any]) -> None:
    meta, before = body["metadata"], (body.get("status") or {}).get("restarts") or []
    for condition in status.get("conditions", []):
        value = 1.0 if condition["status"] == "True" else 0.0
        CONDITIONS.labels(kind.name, meta["namespace"], meta["name"], condition["type"]).set(value)
    restarts = status.get("restarts") or []
    if restarts and restarts[-1] not in before:
        RESTARTS.labels(restarts[-1]["reason"]).inc()


__all__ = ["ChildRef", "Reconciler"]
