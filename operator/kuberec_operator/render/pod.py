"""Ray pods that the `restricted` Pod Security Standard accepts: no root, no capabilities, a read-only root file system.

CPU is requested, not limited: idle cores are worth having while TensorFlow and numba compile. Memory is limited to what
is requested, for a process that outgrows it must not take its node along.
"""

import math
from typing import Any

from kuberec_api.environment import REDIS_PASSWORD
from kuberec_api.meta import Resources
from kuberec_operator.settings import RuntimeSettings

Volumes = dict[str, dict[str, Any]]

CONTAINER_SECURITY = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
}
POD_SECURITY = {
    "runAsNonRoot": True,
    "runAsUser": 1000,
    "runAsGroup": 1000,
    "fsGroup": 1000,
    "seccompProfile": {"type": "RuntimeDefault"},
}
# Rows never travel through Ray's object store, so a small one is enough.
OBJECT_STORE_BYTES = 100_000_000
# Whoever reaches a Ray head without a token can run code in it: KubeRay makes one token for each cluster.
RAY_AUTHENTICATION = {"mode": "token"}
_SCRATCH: Volumes = {
    "/tmp": {"emptyDir": {}},
    "/home/ray": {"emptyDir": {}},
    "/dev/shm": {"emptyDir": {"medium": "Memory", "sizeLimit": "256Mi"}},
}
_MILLI = 1000


def cores(cpu: str) -> int:
    """Returns the whole cores behind a CPU quantity, at least 1."""
    amount = float(cpu[:-1]) / _MILLI if cpu.endswith("m") else float(cpu)
    return max(1, math.ceil(amount))


def ray_pod(
    container: str,
    resources: Resources,
    runtime: RuntimeSettings,
    *,
    labels: dict[str, str],
    env: list[dict[str, Any]],
    env_from: list[dict[str, Any]] | None = None,
    volumes: Volumes | None = None,
    service_account: str | None = None,
) -> dict[str, Any]:
    """Returns the template of a Ray pod; `volumes` maps mount paths to volume sources, mounted read-only."""
    mounts, sources = [], []
    for path, source in {**_SCRATCH, **(volumes or {})}.items():
        name = path.strip("/").replace("/", "-").replace(".", "-")
        mounts.append({"name": name, "mountPath": path, **({} if path in _SCRATCH else {"readOnly": True})})
        sources.append({"name": name, **source})
    threads = str(cores(resources.cpu))
    base_env = [
        {"name": "OMP_NUM_THREADS", "value": threads},
        {"name": "TF_NUM_INTRAOP_THREADS", "value": threads},
        {"name": "TF_NUM_INTEROP_THREADS", "value": "1"},
        {"name": "TF_CPP_MIN_LOG_LEVEL", "value": "2"},
        {"name": "NUMBA_CACHE_DIR", "value": "/tmp/numba"},
        {"name": "HOME", "value": "/home/ray"},
        {"name": "RAY_USAGE_STATS_ENABLED", "value": "0"},
    ]
    gpus = {"nvidia.com/gpu": str(resources.gpus)} if resources.gpus else {}
    main: dict[str, Any] = {
        "name": container,
        "image": runtime.image,
        "imagePullPolicy": runtime.pull_policy,
        "env": [*base_env, *env],
        "resources": {
            "requests": {"cpu": resources.cpu, "memory": resources.memory, **gpus},
            "limits": {"memory": resources.memory, **gpus},
        },
        "securityContext": CONTAINER_SECURITY,
        "volumeMounts": mounts,
    }
    if env_from:
        main["envFrom"] = env_from
    spec: dict[str, Any] = {
        "containers": [main],
        "enableServiceLinks": False,
        "restartPolicy": "Never",
        "securityContext": POD_SECURITY,
        "terminationGracePeriodSeconds": 10,
        "volumes": sources,
    }
    if service_account:
        spec["serviceAccountName"] = service_account
    spec["automountServiceAccountToken"] = service_account is not None
    if runtime.pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in runtime.pull_secrets]
    return {"metadata": {"labels": labels}, "spec": spec}


def start_params(cpus: int, resources: dict[str, int] | None = None, *, head: bool = False) -> dict[str, str]:
    """Returns Ray's start parameters; `resources` are custom ones, which actors ask for by name."""
    params = {"num-cpus": str(cpus), "object-store-memory": str(OBJECT_STORE_BYTES)}
    if head:
        params["dashboard-host"] = "0.0.0.0"  # in the pod's network; KubeRay asks it how the job is
    if resources:
        inner = ", ".join(f'\\"{name}\\": {amount}' for name, amount in resources.items())
        params["resources"] = f'"{{{inner}}}"'
    return params


def worker_group(name: str, replicas: int, params: dict[str, str], template: dict[str, Any]) -> dict[str, Any]:
    """Returns a worker group of fixed size."""
    return {
        "groupName": name,
        "replicas": replicas,
        "minReplicas": replicas,
        "maxReplicas": replicas,
        "rayStartParams": params,
        "template": template,
    }


def redis_password(secret: Any) -> list[dict[str, Any]]:
    """Returns the environment entry of a password reference (a SecretKeyRef or None)."""
    if secret is None:
        return []
    reference = {"name": secret.name, "key": secret.key}
    return [{"name": REDIS_PASSWORD, "valueFrom": {"secretKeyRef": reference}}]
