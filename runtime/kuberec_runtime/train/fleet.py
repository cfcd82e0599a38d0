"""The actors of an attempt: the only module that calls Ray.

Shards and workers are plain actors without restarts: whoever dies ends the attempt, and the next one goes on from the
last committed epoch. Actors belong to the driver and die with it. Rows never travel through Ray calls.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

import ray
from ray.exceptions import RayActorError, RayTaskError

from kuberec_runtime.train.actors import ShardActor, WorkerActor
from kuberec_runtime.train.job import Job

SHARD_RESOURCE = "kuberec_shard"
WORKER_RESOURCE = "kuberec_worker"
WAIT_STEP_S = 0.2


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
        self._job = job

    def launch(self, token: bytes) -> None:
        """Asks Ray for all actors; they wait for resources until Ray (or its autoscaler) has them."""
        spec = self._job.training.spec
        shard = ray.remote(num_cpus=0, resources={SHARD_RESOURCE: 1}, max_restarts=0, max_concurrency=8)(ShardActor)
        worker = ray.remote(num_cpus=0, resources={WORKER_RESOURCE: 1}, max_restarts=0, max_concurrency=8)(WorkerActor)
        model, training, attempt = self._job.model, self._job.training, self._job.attempt
        self._shards = [
            shard.remote(model, training, attempt, i, token) for i in range(spec.parameter_servers.replicas)
        ]
        self._workers = [worker.remote(model, training, attempt, i, token) for i in range(spec.workers.replicas)]

    def run_workers(self) -> None:
        """Lets the workers train; `check` notices when one ends."""
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
        return [self._result(ref, role="actor", index=i) for i, ref in enumerate(pending)]

    def check(self) -> None:
        """Raises what ended a worker, if one has ended."""
        if not self._runs:
            return
        done, _ = ray.wait(list(self._runs), num_returns=1, timeout=0)
        for ref in done:
            index = self._runs.pop(ref)
            self._result(ref, role="worker", index=index)

    def stop(self, timeout_s: float) -> None:
        """Stops workers and shards, and waits for them."""
        running = list(self._runs)
        self._runs = {}
        self.workers("stop")
        ray.wait(running, num_returns=len(running), timeout=timeout_s) if running else None
        closing = self.shards("close")
        ray.wait(closing, num_returns=len(closing), timeout=timeout_s) if closing else None

    def _start(
        self, members: Sequence[Any], method: str, args: tuple[Any, ...], each: Sequence[tuple[Any, ...]] | None
    ) -> list[Any]:
        return [getattr(m, method).remote(*args, *(each[i] if each else ())) for i, m in enumerate(members)]

    @staticmethod
    def _result(ref: Any, role: str, index: int) -> Any:
        try:
            return ray.get(ref)
        except RayActorError as error:
            raise LostError(role, index, error) from error
        except RayTaskError as error:
            raise error.as_instanceof_cause() from None


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
