"""The operator's reconciler on a real API server; KubeRay and the driver are played; the transport can fail."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from kuberec_operator.cluster import Body, Cluster, ClusterError, Transport
from kuberec_operator.kinds import CONFIGMAP, MODEL, OWN, POD, RAYJOB, RAYSERVICE, TRAINING, Key, Kind
from kuberec_operator.reconcile import Reconciler
from kuberec_operator.settings import RuntimeSettings

EXAMPLE = Path(__file__).parents[2] / "examples" / "feed.yaml"
RUNTIME = RuntimeSettings(image="example.org/kuberec/runtime:test")
APPLY = "application/apply-patch+yaml"


class Crash(BaseException):
    """The operator dies here: not an Exception, so nothing in it can catch it."""


@dataclass
class Faulty:
    """Counts the operator's writes; dies right before or right after the k-th, or answers it with an error."""

    inner: Transport
    die_at: int | None = None
    after: bool = False
    answer: dict[int, int] = field(default_factory=dict)
    writes: list[str] = field(default_factory=list)

    async def __call__(
        self, method: str, path: str, query: Mapping[str, str], body: Body | None, content_type: str
    ) -> tuple[int, Body]:
        if method == "GET":
            return await self.inner(method, path, query, body, content_type)
        self.writes.append(f"{method} {path}")
        number = len(self.writes)
        if number == self.die_at and not self.after:
            raise Crash(self.writes[-1])
        if number in self.answer:
            if self.answer[number] == 0:
                raise ClusterError(path, 0, "connection reset")
            return self.answer[number], {"reason": "Injected", "message": "injected"}
        result = await self.inner(method, path, query, body, content_type)
        if number == self.die_at:
            raise Crash(self.writes[-1])
        return result


class World:
    """One namespace."""

    def __init__(self, transport: Transport, namespace: str) -> None:
        self.transport, self.namespace = transport, namespace
        self.api = Cluster(transport)

    async def send(self, method: str, path: str, body: Body | None = None, manager: str = "user") -> Body:
        query = {"fieldManager": manager, "force": "true"} if method == "PATCH" else {}
        content = APPLY if method == "PATCH" else "application/json"
        code, answer = await self.transport(method, path, query, body, content)
        if code >= 300:
            raise ClusterError(f"{method} {path}", code, str(answer.get("message")))
        return answer

    async def put(self, body: Body) -> Body:
        """Applies one of our resources as a user would."""
        kind = next(k for k in OWN if k.name == body["kind"])
        body = {**body, "metadata": {**body["metadata"], "namespace": self.namespace}}
        return await self.send("PATCH", kind.path(self.namespace, body["metadata"]["name"]), body)

    async def apply_example(self) -> None:
        for body in examples():
            await self.put(body)

    async def get(self, kind: Kind, name: str = "feed") -> Body:
        found = await self.api.get(kind, self.namespace, name)
        assert found is not None, f"{kind.name} {name} does not exist"
        return found

    async def status(self, kind: Kind = TRAINING, name: str = "feed") -> Body:
        return dict((await self.get(kind, name)).get("status") or {})

    async def write_status(self, kind: Kind, name: str, status: Body, manager: str) -> None:
        """Applies a part of a status as another field manager: the driver, or KubeRay."""
        body = {
            "apiVersion": kind.api_version,
            "kind": kind.name,
            "metadata": {"name": name, "namespace": self.namespace},
            "status": status,
        }
        await self.send("PATCH", kind.path(self.namespace, name, "status"), body, manager)

    async def names(self, kind: Kind) -> list[str]:
        bodies = await self.api.list(kind, self.namespace, "app.kubernetes.io/managed-by=kuberec")
        return sorted(b["metadata"]["name"] for b in bodies)

    async def kuberay_runs(self, attempt: int) -> None:
        """KubeRay and the kubelet, as far as the operator sees them: a RUNNING job and a running head pod."""
        job = f"feed-a{attempt}"
        running = {"jobStatus": "RUNNING", "jobDeploymentStatus": "Running", "rayClusterName": f"{job}-x"}
        await self.write_status(RAYJOB, job, running, "kuberay")
        labels = {
            "ray.io/node-type": "head",
            "kuberec.dev/training": "feed",
            "kuberec.dev/attempt": str(attempt),
            "app.kubernetes.io/managed-by": "kuberec",
        }
        owner = {
            "apiVersion": "ray.io/v1",
            "kind": "RayJob",
            "name": job,
            "uid": (await self.get(RAYJOB, job))["metadata"]["uid"],
        }
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": f"{job}-head", "labels": labels, "ownerReferences": [owner]},
            "spec": {"containers": [{"name": "driver", "image": "x"}], "terminationGracePeriodSeconds": 0},
        }
        await self.send("PATCH", POD.path(self.namespace, f"{job}-head"), pod)

    async def delete(self, kind: Kind, name: str) -> None:
        await self.api.delete(kind, self.namespace, name)

    def reconciler(self, transport: Transport | None = None) -> Reconciler:
        return Reconciler(Cluster(transport or self.transport), RUNTIME)

    async def settle(self, transport: Transport | None = None, rounds: int = 30) -> Faulty:
        """Reconciles everything until a whole round writes nothing.

        Raises:
            AssertionError: the operator never comes to rest.
        """
        counted = transport if isinstance(transport, Faulty) else Faulty(transport or self.transport)
        reconcile = self.reconciler(counted)
        for _ in range(rounds):
            before = len(counted.writes)
            for kind in OWN:
                for body in await self.api.list(kind, self.namespace):
                    try:
                        await reconcile(Key(kind.name, self.namespace, body["metadata"]["name"]))
                    except ClusterError:
                        continue
            if len(counted.writes) == before:
                return counted
        raise AssertionError(f"never at rest; last writes: {counted.writes[-6:]}")

    async def picture(self) -> dict[str, Any]:
        """What must be equal however often the operator died on the way there."""
        training = await self.status()
        return {
            "state": training.get("state"),
            "attempt": training.get("attempt"),
            "failures": training.get("failures"),
            "restarts": len(training.get("restarts", [])),
            "conditions": sorted((c["type"], c["status"], c["reason"]) for c in training.get("conditions", [])),
            "jobs": await self.names(RAYJOB),
            "maps": await self.names(CONFIGMAP),
            "services": await self.names(RAYSERVICE),
            "model": sorted((c["type"], c["status"]) for c in (await self.status(MODEL)).get("conditions", [])),
        }


def examples() -> list[Body]:
    return list(yaml.safe_load_all(EXAMPLE.read_text()))


def example(kind: str, **spec: Any) -> Body:
    body = next(b for b in examples() if b["kind"] == kind)
    body["spec"] |= spec
    return body
