"""The Ray Serve application: one deployment, one process a replica, features and network in the same hop.

`kuberec_runtime.serve.app:build` is an application builder: RayService names it as `import_path`, `serve run` takes the
same arguments. A new version or pin is a `user_config` change, never a new process.

The constructor waits a while for the first version, so that an upgrade switches traffic only to warm replicas; where
nothing has been published yet, the replica comes up, answers `/readyz` with 503 and says why.
"""

import logging
import os
import threading
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from ray import serve
from starlette.requests import Request
from starlette.responses import Response

from featuregen.compiler import compile_plan
from featuregen.files import read_files
from kuberec_api.environment import REDIS_PASSWORD
from kuberec_api.layout import build_layout
from kuberec_api.model import RecModel
from kuberec_api.serving import RecServing, ServedVersion
from kuberec_runtime.serve.http import HttpApi
from kuberec_runtime.serve.replica import POLL_S, Replica, ReplicaConfig

_LOG = logging.getLogger("kuberec.serve")


class RedisArgs(BaseModel):
    """Where the tier and the feature store are; the password comes from the environment."""

    model_config = ConfigDict(extra="forbid")
    url: str


class ServeArgs(BaseModel):
    """Arguments of `build`: the resources as they are in Kubernetes, resolved.

    Dump the resources with `exclude_unset`: which fields of a feature are set is part of its meaning.
    `numCpus` is what Ray counts for a replica (0: nothing), `threads` are its model threads, `startWaitSeconds` bounds
    the constructor's wait for the first version.
    """

    model_config = ConfigDict(extra="forbid", populate_by_name=True)
    model: RecModel
    serving: RecServing
    redis: RedisArgs
    namespace: str = "default"
    num_cpus: float = Field(default=1.0, alias="numCpus", ge=0)
    threads: int = Field(default=1, ge=1, le=64)
    start_wait_seconds: float = Field(default=30.0, alias="startWaitSeconds", ge=0)


class UserConfig(BaseModel):
    """What changes in place: the version policy."""

    model_config = ConfigDict(extra="forbid")
    version: ServedVersion = ServedVersion()


def build(args: dict[str, Any]) -> serve.Application:
    """Builds the application from `ServeArgs` as a dictionary.

    Raises:
        pydantic.ValidationError, FeatureError, NetworkError: name what is wrong with the arguments or the model; here
            and not in a replica, where Ray would hide it in a log.
    """
    parsed = ServeArgs.model_validate(args)
    spec = parsed.serving.spec
    plan = compile_plan(parsed.model.spec.features)
    build_layout(parsed.model.spec, plan)
    read_files(plan)
    actor: dict[str, Any] = {"num_cpus": parsed.num_cpus}
    if spec.resources.gpus:
        actor["num_gpus"] = spec.resources.gpus
    deployment = Ranker.options(  # type: ignore[attr-defined]
        num_replicas=max(1, spec.replicas),
        ray_actor_options=actor,
        user_config={"version": spec.version.model_dump(mode="json", by_alias=True)},
    )
    return deployment.bind(args)


@serve.deployment(
    name="Ranker",
    max_ongoing_requests=128,
    max_queued_requests=512,
    health_check_period_s=5,
    graceful_shutdown_timeout_s=10,
    logging_config={"enable_access_log": False},
)
class Ranker:
    """One replica behind Ray Serve."""

    def __init__(self, args: dict[str, Any]) -> None:
        _one_thread_per_request()
        parsed = ServeArgs.model_validate(args)
        config = ReplicaConfig(
            parsed.model, parsed.serving, parsed.redis.url, os.environ.get(REDIS_PASSWORD), parsed.namespace
        )
        self._replica = Replica(config)
        self._api = HttpApi(self._replica, parsed.threads)
        self._stop = threading.Event()
        self._warm = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="follow", daemon=True)
        self._thread.start()
        if not self._warm.wait(parsed.start_wait_seconds):
            _LOG.warning("not ready after %s s: %s", parsed.start_wait_seconds, self._replica.versions.status.reason)

    def reconfigure(self, user_config: dict[str, Any]) -> None:
        """Takes a new version policy over in place."""
        self._replica.reconfigure(UserConfig.model_validate(user_config).version)

    def check_health(self) -> None:
        """Fails when nobody follows the tier any more: Ray then replaces the replica."""
        if not self._thread.is_alive():
            raise RuntimeError("the thread that follows publications has ended")

    async def __call__(self, request: Request) -> Response:
        """Answers one HTTP request."""
        body = await request.body() if request.method == "POST" else b""
        path = request.scope["path"].removeprefix(request.scope.get("root_path", "").rstrip("/"))
        answer = await self._api.handle(request.method, path or "/", dict(request.headers), body)
        return Response(answer.body, answer.status, answer.headers, answer.media)

    def __del__(self) -> None:
        if hasattr(self, "_stop"):
            self._stop.set()
            self._replica.close()

    def _follow(self) -> None:
        while not self._stop.is_set():
            try:
                self._replica.follow()
            except Exception:  # a defect must not stop the replica from following the next version
                _LOG.exception("following publications failed; going on")
            if self._replica.versions.ready:
                self._warm.set()
            self._stop.wait(POLL_S)


def _one_thread_per_request() -> None:
    """Replicas scale by processes: a second thread in one matrix product costs more than it gives."""
    import tensorflow as tf

    try:
        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    except RuntimeError:
        _LOG.warning("TensorFlow was already running; its threads stay as they are")


__all__ = ["RedisArgs", "ServeArgs", "UserConfig", "build"]
