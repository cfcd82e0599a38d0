"""Attempts that begin as forks of a process which has imported everything: TensorFlow is loaded once, not per attempt.

A fork has the parent's modules and nothing else of it: no thread, no connection, no kernel that ran. Ended by a signal
or by itself, it looks to a test as any process does.
"""

import multiprocessing
import os
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

IMPORTED = (
    "kuberec_runtime.models.network",
    "kuberec_runtime.stream.files",
    "kuberec_runtime.stream.kafka",
    "kuberec_runtime.stream.opening",
    "kuberec_runtime.train.worker",
    "kuberec_runtime.wire.client",
    "tensorflow",
    "tests.component.one_process",
)
ROOT = Path(__file__).parents[2]

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload([*IMPORTED])


class ForkedAttempt:
    """One attempt of `one_process`; what tests use of `subprocess.Popen`, and like it in meaning.

    Args:
        given: its input file.
        log: takes what it prints, behind what is there.
        env: its whole environment.
    """

    def __init__(self, given: Path, log: Path, env: Mapping[str, str]) -> None:
        self._process = _context.Process(target=_attempt, args=(given, log, dict(env)))
        # The server of forks is started by the first of them, and finds our modules by this.
        before = os.environ.get("PYTHONPATH")
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), before)))
        try:
            self._process.start()
        finally:
            os.environ.pop("PYTHONPATH")
            if before is not None:
                os.environ["PYTHONPATH"] = before

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired("one_process", timeout or 0)
        return self._process.exitcode

    def send_signal(self, number: signal.Signals) -> None:
        if self._process.exitcode is None and self._process.pid is not None:
            os.kill(self._process.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def _attempt(given: Path, log: Path, env: dict[str, str]) -> None:
    os.environ.clear()
    os.environ.update(env)
    written = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for standard in (1, 2):
        os.dup2(written, standard)
    os.close(written)
    from tests.component.one_process import run

    run(given)
