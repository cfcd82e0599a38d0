"""What a plan may know of the world: small views of children, read from the API server's JSON and nothing else."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kuberec_api import RecModel, RecTraining
from kuberec_operator.kinds import HASH, INPUT_HASH, LABEL_ATTEMPT, LABEL_NODE
from kuberec_operator.plan.decision import ChildRef


@dataclass(frozen=True)
class JobView:
    """The RayJob of an attempt, as KubeRay reports it."""

    name: str
    attempt: int
    input_hash: str = ""
    deleting: bool = False
    job_status: str = ""
    deployment_status: str = ""
    message: str = ""

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> "JobView":
        """Reads a RayJob."""
        meta, status = body["metadata"], body.get("status") or {}
        return cls(
            name=meta["name"],
            attempt=int(meta.get("labels", {}).get(LABEL_ATTEMPT, "0")),
            input_hash=meta.get("annotations", {}).get(INPUT_HASH, ""),
            deleting="deletionTimestamp" in meta,
            job_status=status.get("jobStatus", ""),
            deployment_status=status.get("jobDeploymentStatus", ""),
            message=status.get("message", ""),
        )


@dataclass(frozen=True)
class HeadView:
    """The head pod of an attempt: where the driver runs."""

    name: str
    phase: str = "Pending"
    deleting: bool = False
    message: str = ""

    @property
    def lost(self) -> bool:
        """True once the driver in it cannot be alive for long."""
        return self.deleting or self.phase in ("Failed", "Succeeded")

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> "HeadView":
        """Reads a Pod."""
        status = body.get("status") or {}
        return cls(
            name=body["metadata"]["name"],
            phase=status.get("phase", "Pending"),
            deleting="deletionTimestamp" in body["metadata"],
            message=_pod_message(status),
        )


@dataclass(frozen=True)
class TrainingWorld:
    """Everything a RecTraining's plan looks at.

    Attributes:
        warm: the training that spec.warmStart refers to.
        kuberay: KubeRay's RayJob is a known kind.
        job: the RayJob of status.attempt.
        head: the newest head pod of status.attempt.
        jobs: all RayJobs of this training, of any attempt.
        pods: number of its pods, of any attempt.
        waiting: why a pod does not start, if one does not.
        children: hash annotation by child.
    """

    model: RecModel | None = None
    warm: RecTraining | None = None
    kuberay: bool = True
    job: JobView | None = None
    head: HeadView | None = None
    jobs: tuple[JobView, ...] = ()
    pods: int = 0
    waiting: str = ""
    children: Mapping[ChildRef, str] = field(default_factory=dict)


def heads(pods: Sequence[Mapping[str, Any]], attempt: int) -> HeadView | None:
    """Returns the head pod of an attempt: a lost one if there is one (its driver is gone), else the newest."""
    mine = [
        p
        for p in pods
        if p["metadata"].get("labels", {}).get(LABEL_NODE) == "head"
        and p["metadata"]["labels"].get(LABEL_ATTEMPT) == str(attempt)
    ]
    views = [HeadView.of(p) for p in sorted(mine, key=lambda p: str(p["metadata"].get("creationTimestamp", "")))]
    return next((v for v in views if v.lost), views[-1] if views else None)


def waiting_reason(pods: Sequence[Mapping[str, Any]]) -> str:
    """Returns why the first pod that cannot start does not."""
    for pod in pods:
        if message := _pod_message(pod.get("status") or {}):
            return f"pod {pod['metadata']['name']}: {message}"
    return ""


def child_hashes(bodies: Sequence[Mapping[str, Any]]) -> dict[ChildRef, str]:
    """Returns the hash annotation of each child that exists."""
    return {
        ChildRef(body["kind"], body["metadata"]["name"]): body["metadata"].get("annotations", {}).get(HASH, "")
        for body in bodies
    }


def _pod_message(status: Mapping[str, Any]) -> str:
    for condition in status.get("conditions") or []:
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return f"{condition.get('reason', '')}: {condition.get('message', '')}"
    for container in [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]:
        state = container.get("state") or {}
        if (ended := state.get("terminated")) and ended.get("exitCode"):
            return f"container {container['name']} ended with {ended['exitCode']}: {ended.get('reason', '')}"
        why = (state.get("waiting") or {}).get("reason", "")
        if why not in ("", "PodInitializing", "ContainerCreating"):
            return f"container {container['name']}: {why}: {state['waiting'].get('message', '')}"
    return str(status.get("message", "")) if status.get("phase") == "Failed" else ""


@dataclass(frozen=True)
class ServiceView:
    """The RayService of a RecServing, as KubeRay reports it."""

    ready: bool = False
    upgrading: bool = False
    endpoints: int = 0
    message: str = ""

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> "ServiceView":
        """Reads a RayService."""
        status = body.get("status") or {}
        held = {c["type"]: c for c in status.get("conditions") or []}
        active = status.get("activeServiceStatus") or {}
        pending = status.get("pendingServiceStatus") or {}
        return cls(
            ready=held.get("Ready", {}).get("status") == "True",
            upgrading=held.get("UpgradeInProgress", {}).get("status") == "True",
            endpoints=int(status.get("numServeEndpoints") or 0),
            message=_application_message(active)
            or _application_message(pending)
            or str(held.get("Ready", {}).get("message", "")),
        )


def _application_message(service: Mapping[str, Any]) -> str:
    for name, application in (service.get("applicationStatuses") or {}).items():
        if application.get("status") not in ("RUNNING", None, ""):
            return f"application {name} is {application['status']}: {application.get('message', '')}".strip(": ")
    return ""


@dataclass(frozen=True)
class Replicas:
    """What the replicas themselves say: the version they serve and how old its newest sample is."""

    version: str | None = None
    freshness_s: float | None = None


@dataclass(frozen=True)
class ServingWorld:
    """Everything a RecServing's plan looks at."""

    training: RecTraining | None = None
    model: RecModel | None = None
    kuberay: bool = True
    service: ServiceView | None = None
    replicas: Replicas = Replicas()
    children: Mapping[ChildRef, str] = field(default_factory=dict)
