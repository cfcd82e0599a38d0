"""A whole attempt in one process: the real driver, shards and workers over real sockets, without Ray's processes.

`ThreadFleet` is `Fleet` with threads for actors. Attempts start sooner without Ray, so that a crash sweep can afford
many; a kill -9 then takes driver, shards and workers down together.
"""

import logging
import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, NoReturn

from kuberec_runtime.train import actors
from kuberec_runtime.train.__main__ import attempt_of
from kuberec_runtime.train.fleet import Fleet
from kuberec_runtime.train.job import Job

actors.node_address = lambda: "127.0.0.1"


class ThreadFleet(Fleet):
    """Implements `Fleet` with threads of this process."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self._threads = ThreadPoolExecutor(max_workers=64)

    def launch(self, token: bytes) -> None:
        spec, job = self._job.training.spec, self._job
        arguments = (job.model, job.training, job.attempt)
        self._shards = [actors.ShardActor(*arguments, i, token) for i in range(spec.parameter_servers.replicas)]
        self._workers = [actors.WorkerActor(*arguments, i, token) for i in range(spec.workers.replicas)]

    def run_workers(self) -> None:
        self._runs = {self._threads.submit(worker.run): i for i, worker in enumerate(self._workers)}

    def gather(
        self, pending: Sequence[Any], timeout_s: float, what: str, tick: Callable[[], None] = lambda: None
    ) -> list[Any]:
        left: set[Future[Any]] = set(pending)
        for _ in range(int(timeout_s / 0.02) + 1):
            _, left = wait(left, timeout=0.02)
            self.check()
            tick()
            if not left:
                return [f.result() for f in pending]
        raise TimeoutError(f"{what}: {len(left)} of {len(pending)} did not answer within {timeout_s:.0f} s")

    def check(self) -> None:
        for future in [f for f in self._runs if f.done()]:
            self._runs.pop(future)
            future.result()

    def halt(self, timeout_s: float) -> None:
        running, self._runs = list(self._runs), {}
        wait(self.workers("stop"), timeout=timeout_s)
        wait(running, timeout=timeout_s)

    def rest(self, at_work: Sequence[Any], timeout_s: float) -> None:
        wait(at_work, timeout=timeout_s)

    def mend(self) -> list[str]:
        return []  # threads die together

    def stop(self, timeout_s: float) -> None:
        self.halt(timeout_s)
        wait(self.shards("close"), timeout=timeout_s)
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _start(
        self, members: Sequence[Any], method: str, args: tuple[Any, ...], each: Sequence[tuple[Any, ...]] | None
    ) -> list[Any]:
        return [
            self._threads.submit(getattr(member, method), *args, *(each[i] if each else ()))
            for i, member in enumerate(members)
        ]


def run(given: Path) -> NoReturn:
    """Runs the attempt of an input file, and ends this process with its exit code."""
    code = attempt_of(given, fleet=ThreadFleet)
    # Threads of a worker that failed may still wait for a cut, for a minute, or be inside a library that is not made
    # for an interpreter that ends under it: as with actors, whose process dies, nobody waits for them.
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
