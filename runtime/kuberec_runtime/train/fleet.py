"""The actors of an attempt: the only module that calls Ray.

Shards and workers are plain actors that Ray never restarts: the driver notices who dies, replaces it, and takes
everyone back to the last committed epoch (`bringup`). Actors belong to the driver and die with it. Rows never travel
through Ray calls.
"""

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayTaskError

from kuberec_runtime import spans
from kuberec_runtime.train.actors import ShardActor, WorkerActor
from kuberec_runtime.train.job import Job
from kuberec_runtime.train.profile import keep_profile

SHARD_RESOURCE = "kuberec_shard"
WORKER_RESOURCE = "kuberec_worker"
WAIT_STEP_S = 0.2
ANSWER_S = 20.0
"""Whoever lives answers an empty call within this time."""

logger = logging.getLogger(__name__)


class LostError(Exception):
    """An actor died; `reason` is the CamelCase word for conditions."""

    def __init__(self, role: str, index: int, cause: BaseException) -> None:
        self.role, self.index = role, index
        self.reason = f"{role.capitalize()}Lost"
        super().__init__(f"{role} {index} died: {_first_line(cause)}")


class Fleet:
    """Shards and workers of one attempt."""

    def __init__(self, job: Job) -> None:
        self._shards: list[Any] = []
        self._workers: list[Any] = []
        self._runs: dict[Any, int] = {}
        self._lives: dict[int, Any] = {}
        self._job = job
        self._token = b""

    def launch(self, token: bytes) -> None:
        """Asks Ray for all actors; they wait for resources until Ray (or its autoscaler) has them."""
        spec, self._token = self._job.training.spec, token
        self._shards = [self._new_shard(i) for i in range(spec.parameter_servers.replicas)]
        self._workers = [self._new_worker(i) for i in range(spec.workers.replicas)]

    def _new_shard(self, index: int) -> Any:
        return self._new(ShardActor, SHARD_RESOURCE, index)

    def _new_worker(self, index: int) -> Any:
        return self._new(WorkerActor, WORKER_RESOURCE, index)

    def _new(self, kind: type, resource: str, index: int) -> Any:
        job, wanted = self._job, {"num_cpus": 0, "resources": {resource: 1}, **profiled()}
        actor = ray.remote(max_restarts=0, max_concurrency=8, **wanted)(kind)
        return actor.remote(job.model, job.training, job.attempt, index, self._token)

    def run_workers(self) -> None:
        """Lets the workers train; `check` notices when one ends, or a shard dies."""
        for index, shard in enumerate(self._shards):
            if index not in self._lives:
                self._lives[index] = shard.until_closed.remote()
        self._runs = {worker.run.remote(): i for i, worker in enumerate(self._workers)}

    def shards(self, method: str, *args: Any, each: Sequence[tuple[Any, ...]] | None = None) -> list[Any]:
        """Starts a method on every shard and returns the pending results in order; `each` gives arguments by shard."""
        return self._start(self._shards, method, args, each)

    def workers(self, method: str, *args: Any, each: Sequence[tuple[Any, ...]] | None = None) -> list[Any]:
        """Starts a method on every worker and returns the pending results in order; `each`: arguments by worker."""
        return self._start(self._workers, method, args, each)

    def worker(self, index: int, method: str, *args: Any) -> Any:
        """Starts a method on one worker."""
        return self._start([self._workers[index]], method, args, None)[0]

    def gather(
        self, pending: Sequence[Any], timeout_s: float, what: str, tick: Callable[[], None] = lambda: None
    ) -> list[Any]:
        """Waits for pending results, in order, while `tick` keeps being called.

        Raises:
            LostError: an actor died.
            TimeoutError: not all came in time.
            Exception: whatever a method raised.
        """
        deadline = time.monotonic() + timeout_s
        left = list(pending)
        while left:
            _, left = ray.wait(left, num_returns=len(left), timeout=WAIT_STEP_S)
            self.check()
            tick()
            if left and time.monotonic() > deadline:
                raise TimeoutError(f"{what}: {len(left)} of {len(pending)} did not answer within {timeout_s:.0f} s")
        return [self._result(ref) for ref in pending]

    def check(self) -> None:
        """Raises what ended a worker or a shard, if one has ended while workers train.

        Not while shards are restored: who waits for them must know that none of their calls is left at work.
        """
        if not self._runs:
            return
        done, _ = ray.wait([*self._runs, *self._lives.values()], num_returns=1, timeout=0)
        for ref in done:
            self._runs.pop(ref, None)
            self._result(ref)

    def halt(self, timeout_s: float) -> None:
        """Ends every worker's run, and every worker whose run does not end: nothing is pushed any more."""
        for index in self._stop_workers(timeout_s):
            logger.warning("worker %d does not end its step; its process is ended", index)
            ray.kill(self._workers[index])

    def rest(self, at_work: Sequence[Any], timeout_s: float) -> None:
        """Waits until these calls have ended, however they end.

        Raises:
            TimeoutError: one is still at work.
        """
        if busy := _unfinished(at_work, timeout_s):
            raise TimeoutError(f"{len(busy)} calls of shards did not end within {timeout_s:.0f} s")

    def mend(self) -> list[str]:
        """Replaces every actor that is dead or does not answer by a new one; returns their names, e.g. "shard 1"."""
        replaced = []
        for role, actors, new in (
            ("shard", self._shards, self._new_shard),
            ("worker", self._workers, self._new_worker),
        ):
            answers = [actor.__ray_ready__.remote() for actor in actors]
            ray.wait(answers, num_returns=len(answers), timeout=ANSWER_S)
            for index, answer in enumerate(answers):
                try:
                    ray.get(answer, timeout=0)
                except (RayActorError, GetTimeoutError):
                    ray.kill(actors[index])
                    actors[index] = new(index)
                    if role == "shard":
                        self._lives.pop(index, None)
                    replaced.append(f"{role} {index}")
        return replaced

    def stop(self, timeout_s: float) -> None:
        """Stops workers and shards, and waits for them; what they measured is kept before."""
        keep_profile(self, self._job.attempt)
        self._stop_workers(timeout_s)
        _unfinished(self.shards("close"), timeout_s)

    def _stop_workers(self, timeout_s: float) -> list[int]:
        """Asks all workers to end their runs; returns those that do not in time."""
        runs, self._runs = self._runs, {}
        self.workers("stop")
        return [runs[run] for run in _unfinished(list(runs), timeout_s)]

    def _start(
        self, members: Sequence[Any], method: str, args: tuple[Any, ...], each: Sequence[tuple[Any, ...]] | None
    ) -> list[Any]:
        return [getattr(m, method).remote(*args, *(each[i] if each else ())) for i, m in enumerate(members)]

    def _result(self, ref: Any) -> Any:
        try:
            return ray.get(ref)
        except RayActorError as error:
            raise LostError(*self._member(error.actor_id), error) from error
        except RayTaskError as error:
            raise error.as_instanceof_cause() from None

    def _member(self, actor_id: str | None) -> tuple[str, int]:
        for role, actors in (("shard", self._shards), ("worker", self._workers)):
            for index, actor in enumerate(actors):
                if actor._actor_id.hex() == actor_id:
                    return role, index
        return "actor", -1


def _unfinished(calls: Sequence[Any], timeout_s: float) -> list[Any]:
    """Waits for calls to end, however they end; returns those that have not in time."""
    return list(ray.wait(list(calls), num_returns=len(calls), timeout=timeout_s)[1]) if calls else []


def profiled() -> dict[str, Any]:
    """Options of an actor that measures where its time goes, if this process does; see `spans`."""
    folder = spans.folder()
    return {"runtime_env": {"env_vars": {spans.VARIABLE: folder}}} if folder else {}


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
