"""A RecServing as a RayService: one Serve application, one replica in each worker pod.

What may change without a new process goes where Ray Serve changes it in place: the version policy into `user_config`,
the number of replicas into `num_replicas`. It is therefore left out of the application's arguments, since any change of
those replaces replicas; a change of the pods' template makes KubeRay build a second cluster and switch over.
"""

from typing import Any

import yaml

from kuberec_api import RecModel, RecServing, RecTraining
from kuberec_api.meta import Resources
from kuberec_operator.kinds import LABEL_SERVING
from kuberec_operator.plan.decision import Manifest, hashed
from kuberec_operator.render.files import mounted
from kuberec_operator.render.owned import MANAGED, metadata
from kuberec_operator.render.pod import RAY_AUTHENTICATION, cores, ray_pod, redis_password, start_params, worker_group
from kuberec_operator.settings import RuntimeSettings

PORT = 8000
IMPORT_PATH = "kuberec_runtime.serve.app:build"
DEPLOYMENT = "Ranker"


def service_url(serving: RecServing) -> str:
    """Returns the address of the serving inside the cluster."""
    meta = serving.metadata
    return f"http://{meta.name}-serve-svc.{meta.namespace}:{PORT}/v1/models/{meta.name}"


def render_service(
    model: RecModel, training: RecTraining, serving: RecServing, runtime: RuntimeSettings
) -> tuple[Manifest, ...]:
    """Returns the RayService of a serving. The training must publish."""
    publish = training.spec.publish
    assert publish is not None  # the plan has seen to it
    labels = {LABEL_SERVING: serving.metadata.name}
    pod_labels = {**MANAGED, **labels}
    spec = serving.spec
    env = [
        # Port 8000, as KubeRay's Service expects, by an HAProxy in each pod: ten times faster than Serve's own proxy.
        {"name": "RAY_SERVE_ENABLE_HA_PROXY", "value": "1"},
        {"name": "RAY_SERVE_THROUGHPUT_OPTIMIZED", "value": "1"},
        {"name": "KUBEREC_NAMESPACE", "value": serving.metadata.namespace},
        *redis_password(publish.redis.password_from),
    ]
    head = Resources(cpu=runtime.head_cpu, memory=runtime.head_memory)

    def pod(container: str, resources: Resources) -> dict[str, Any]:
        # Ray builds the application on any of the pods, and that is where a wrong file shows first.
        return ray_pod(container, resources, runtime, labels=pod_labels, env=env, volumes=mounted(model))

    manifest: Manifest = {
        "apiVersion": "ray.io/v1",
        "kind": "RayService",
        "metadata": metadata(serving, serving.metadata.name, labels),
        "spec": {
            "serveConfigV2": yaml.safe_dump(_serve_config(model, serving, publish.redis.url), sort_keys=False),
            "excludeHeadPodFromServeSvc": True,
            "rayClusterConfig": {
                "rayVersion": runtime.ray_version,
                "authOptions": RAY_AUTHENTICATION,
                "headGroupSpec": {
                    "rayStartParams": start_params(0, head=True),
                    "template": pod("head", head),
                },
                "workerGroupSpecs": [
                    worker_group(
                        "replicas",
                        spec.replicas,
                        start_params(1),
                        pod("replica", spec.resources),
                    )
                ],
            },
        },
    }
    return (hashed(manifest),)


def _serve_config(model: RecModel, serving: RecServing, redis_url: str) -> dict[str, Any]:
    spec = serving.spec
    arguments = {
        "model": _identity(model) | {"spec": model.spec.model_dump(mode="json", by_alias=True, exclude_none=True)},
        "serving": _identity(serving)
        | {
            "spec": spec.model_dump(
                mode="json", by_alias=True, exclude_none=True, exclude={"version", "replicas", "resources"}
            )
        },
        "redis": {"url": redis_url},
        "namespace": serving.metadata.namespace,
        "numCpus": 1,
        "threads": cores(spec.resources.cpu),
    }
    version = spec.version.model_dump(mode="json", by_alias=True, exclude_none=True)
    actor: dict[str, Any] = {"num_cpus": 1}
    if spec.resources.gpus:
        actor["num_gpus"] = spec.resources.gpus
    return {
        "applications": [
            {
                "name": serving.metadata.name,
                "import_path": IMPORT_PATH,
                "route_prefix": "/",
                "args": arguments,
                "deployments": [
                    {
                        "name": DEPLOYMENT,
                        "num_replicas": spec.replicas,
                        "ray_actor_options": actor,
                        "user_config": {"version": version},
                    }
                ],
            }
        ]
    }


def _identity(resource: RecModel | RecServing) -> dict[str, Any]:
    meta = resource.metadata
    return {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "metadata": {"name": meta.name, "namespace": meta.namespace},
    }
