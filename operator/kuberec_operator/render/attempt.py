"""An attempt of a training as manifests: rights, input, RayJob, in the order in which they are applied.

The RayJob's Ray cluster has the driver on its head and one pod for every shard and worker; custom resources
(`kuberec_shard`, `kuberec_worker`) make Ray place one actor in each. The submission mode is HTTPMode: no submitter pod
or sidecar is needed (KubeRay's sidecar has no security context, which the `restricted` standard refuses), and the
annotation below keeps KubeRay from replacing a lost head, in which it would start the same attempt a second time.
"""

import json
from typing import Any

from kuberec_api import RecModel, RecTraining
from kuberec_api.environment import WARM_PREFIX
from kuberec_api.meta import Resources
from kuberec_operator.kinds import INPUT_HASH, LABEL_ATTEMPT, LABEL_TRAINING
from kuberec_operator.plan.decision import Manifest, hashed
from kuberec_operator.plan.warmstart import WarmSource
from kuberec_operator.render.files import FOLDER, mounted
from kuberec_operator.render.owned import MANAGED, metadata
from kuberec_operator.render.pod import RAY_AUTHENTICATION, ray_pod, redis_password, start_params, worker_group
from kuberec_operator.render.source import source_access
from kuberec_operator.settings import RuntimeSettings

INPUT_FILE = "input.json"
# The driver's log goes to the job's log and, for `kubectl logs`, to the container's own output.
ENTRYPOINT = f"bash -c 'exec python -m kuberec_runtime.train --input {FOLDER}/{INPUT_FILE} > >(tee /proc/1/fd/1) 2>&1'"


def attempt_name(training: str, attempt: int) -> str:
    """Returns the name of an attempt's RayJob and ConfigMap."""
    return f"{training}-a{attempt}"


def account_name(training: str) -> str:
    """Returns the name of a training's ServiceAccount, Role and RoleBinding."""
    return f"{training}-runtime"


def render_attempt(
    model: RecModel,
    training: RecTraining,
    attempt: int,
    input_hash: str,
    runtime: RuntimeSettings,
    warm: WarmSource | None = None,
) -> tuple[Manifest, ...]:
    """Returns everything an attempt needs; `warm` is what `spec.warmStart.trainingRef` has come to, if it is needed."""
    manifests = (
        *_rights(training),
        _input(model, training, attempt, warm),
        _job(model, training, attempt, input_hash, runtime, warm),
    )
    return tuple(hashed(manifest) for manifest in manifests)


def _labels(training: RecTraining) -> dict[str, str]:
    return {LABEL_TRAINING: training.metadata.name}


def _rights(training: RecTraining) -> tuple[Manifest, ...]:
    """May read its own RecTraining and write its own status; nothing else."""
    name, labels = account_name(training.metadata.name), _labels(training)
    only = {"apiGroups": ["kuberec.dev"], "resourceNames": [training.metadata.name]}
    rules = [
        {**only, "resources": ["rectrainings"], "verbs": ["get"]},
        {**only, "resources": ["rectrainings/status"], "verbs": ["get", "patch"]},
    ]
    rbac = "rbac.authorization.k8s.io"
    return (
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata(training, name, labels)},
        {"apiVersion": f"{rbac}/v1", "kind": "Role", "metadata": metadata(training, name, labels), "rules": rules},
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "RoleBinding",
            "metadata": metadata(training, name, labels),
            "roleRef": {"apiGroup": rbac, "kind": "Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": training.metadata.namespace}],
        },
    )


def _input(model: RecModel, training: RecTraining, attempt: int, warm: WarmSource | None) -> Manifest:
    resolved = _resource(training)
    if warm is not None:
        resolved["spec"]["warmStart"] = {"uri": warm.uri}
    content = {
        "model": _resource(model),
        "training": resolved,
        "attempt": attempt,
    }
    labels = {**_labels(training), LABEL_ATTEMPT: str(attempt)}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata(training, attempt_name(training.metadata.name, attempt), labels),
        "immutable": True,
        "data": {INPUT_FILE: json.dumps(content, indent=1, sort_keys=True)},
    }


def _resource(resource: RecModel | RecTraining) -> dict[str, Any]:
    meta = resource.metadata
    return {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": {"name": meta.name, "namespace": meta.namespace, "uid": meta.uid, "generation": meta.generation},
        "spec": resource.spec.model_dump(mode="json", by_alias=True, exclude_none=True),
    }


def _job(
    model: RecModel,
    training: RecTraining,
    attempt: int,
    input_hash: str,
    runtime: RuntimeSettings,
    warm: WarmSource | None,
) -> Manifest:
    spec, name = training.spec, training.metadata.name
    labels = {**_labels(training), LABEL_ATTEMPT: str(attempt)}
    pod_labels = {**MANAGED, **labels}
    env = [
        {"name": "KUBEREC_STATUS", "value": "kubernetes"},
        {"name": "KUBEREC_NAMESPACE", "value": training.metadata.namespace},
        {"name": "KUBEREC_ATTEMPT", "value": str(attempt)},
        *redis_password(spec.publish.redis.password_from if spec.publish else None),
    ]
    credentials = spec.checkpoint.credentials
    stores: list[dict[str, Any]] = [{"secretRef": {"name": credentials.secret_ref.name}}] if credentials else []
    # The driver takes dense weights and shards take rows; workers read no epoch.
    taken = [{"prefix": WARM_PREFIX, "secretRef": {"name": warm.secret}}] if warm and warm.secret else []
    servers, workers = spec.parameter_servers, spec.workers
    head = Resources(cpu=runtime.head_cpu, memory=runtime.head_memory)
    source = source_access(spec.source)
    input_and_files = {**mounted(model, attempt_name(name, attempt)), **source.volumes}

    def pod(
        container: str, resources: Resources, *, reads_source: bool, reads_epochs: bool, **more: Any
    ) -> dict[str, Any]:
        own_env, from_ = (source.env, source.env_from) if reads_source else ([], [])
        return ray_pod(
            container,
            resources,
            runtime,
            labels=pod_labels,
            env=[*env, *own_env],
            env_from=[*stores, *(taken if reads_epochs else []), *from_] or None,
            **more,
        )

    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": metadata(
            training,
            attempt_name(name, attempt),
            labels,
            {INPUT_HASH: input_hash, "ray.io/disable-provisioned-head-restart": "true"},
        ),
        "spec": {
            "entrypoint": ENTRYPOINT,
            "submissionMode": "HTTPMode",
            "backoffLimit": 0,
            "shutdownAfterJobFinishes": True,
            "ttlSecondsAfterFinished": 0,
            "rayClusterSpec": {
                "rayVersion": runtime.ray_version,
                "authOptions": RAY_AUTHENTICATION,
                "headGroupSpec": {
                    "rayStartParams": start_params(0, head=True),
                    "template": pod(
                        "driver",
                        head,
                        reads_source=True,
                        reads_epochs=True,
                        volumes=input_and_files,
                        service_account=account_name(name),
                    ),
                },
                "workerGroupSpecs": [
                    worker_group(
                        "shards",
                        servers.replicas,
                        start_params(0, {"kuberec_shard": 1}),
                        pod("shard", servers.resources, reads_source=False, reads_epochs=True),
                    ),
                    worker_group(
                        "workers",
                        workers.replicas,
                        start_params(0, {"kuberec_worker": 1}),
                        pod(
                            "worker",
                            workers.resources,
                            reads_source=True,
                            reads_epochs=False,
                            volumes={**mounted(model), **source.volumes},
                        ),
                    ),
                ],
            },
        },
    }
