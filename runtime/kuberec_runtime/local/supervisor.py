"""Attempts of a local training, one process after the other: what the operator does on Kubernetes, without Kubernetes.

The attempt number is one above the newest in the commit log; the log fences an older process that is still alive.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from kuberec_api.training import Outcome, RecTrainingStatus
from kuberec_runtime.checkpoint import open_store, read_log
from kuberec_runtime.local.resources import Resources
from kuberec_runtime.train.job import TrainingInput

BACKOFF_S = (1.0, 2.0, 4.0, 8.0, 15.0)
_GROUP_ENDS_S = 10.0


class TrainingFailedError(Exception):
    """The training ended for good without success."""


def start_attempt(
    given: Path, status: Path, log: Path, env: Mapping[str, str] | None = None
) -> "subprocess.Popen[bytes]":
    """Starts an attempt as the RayJob's entrypoint does, with a Ray of its own; it leads a session.

    Args:
        given: its input, see `TrainingInput`.
        status: takes the newest status as JSON.
        log: takes what it prints, behind what is there.
        env: variables besides those of this process.
    """
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "kuberec_runtime.train", "--input", str(given), "--local"],
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "KUBEREC_STATUS": f"file:{status}", "PYTHONUNBUFFERED": "1", **(env or {})},
            start_new_session=True,
        )


class TrainingProcess:
    """Runs attempts until the training ends, is stopped, or has failed too often.

    Args:
        resources: what to run.
        folder: for the input, the status file and the log; created if needed.
    """

    def __init__(self, resources: Resources, folder: Path) -> None:
        self._resources, self._folder = resources, folder
        folder.mkdir(parents=True, exist_ok=True)
        self._process: subprocess.Popen[bytes] | None = None
        self._lost = 0
        self._fenced_by = 0
        self._retry_at: float | None = None
        self.attempt = 0

    @property
    def log_path(self) -> Path:
        """Everything the attempts print."""
        return self._folder / "training.log"

    @property
    def status_path(self) -> Path:
        """The newest status as JSON."""
        return self._folder / "status.json"

    def start(self) -> None:
        """Starts the next attempt."""
        uri = self._resources.training.spec.checkpoint.uri
        self.attempt = max(read_log(open_store(uri)).attempt, self._fenced_by, 0) + 1
        given = TrainingInput(model=self._resources.model, training=self._resources.training, attempt=self.attempt)
        path = self._folder / "input.json"
        path.write_text(given.model_dump_json(by_alias=True, exclude_unset=True))
        self._process = start_attempt(path, self.status_path, self.log_path)

    def poll(self) -> bool:
        """Looks after the attempt; returns True while the training goes on, False when it has ended well.

        Raises:
            TrainingFailedError: it cannot or must not be tried again.
        """
        if self._process is None:
            return False
        if self._retry_at is not None:
            if time.monotonic() >= self._retry_at:
                self._retry_at = None
                self.start()
            return True
        code = self._process.poll()
        if code is None:
            return True
        if code == 0:
            return False
        outcome = self._outcome()
        why = f"{outcome.reason}: {outcome.message}" if outcome else f"exit code {code}"
        limit = self._resources.training.spec.failure_policy.backoff_limit
        self._fenced_by = (outcome.newest_attempt or 0) if outcome else 0
        if (64 <= code <= 78 and not self._fenced_by) or self._lost >= limit:
            raise TrainingFailedError(f"attempt {self.attempt} ended with {why}\n  see {self.log_path}")
        self._retry_at = time.monotonic() + BACKOFF_S[min(self._lost, len(BACKOFF_S) - 1)]
        self._lost += 1
        return True

    def status(self) -> RecTrainingStatus | None:
        """The newest status, None before the first."""
        try:
            return RecTrainingStatus.model_validate(json.loads(self.status_path.read_text()))
        except (FileNotFoundError, json.JSONDecodeError):
            return None

    def kill(self) -> None:
        """Kills the attempt's whole process group at once, as a lost node would."""
        if self._process is not None:
            _kill_group(self._process.pid)
            self._process.wait()

    def stop(self, timeout_s: float = 60.0) -> None:
        """Asks for a last cut and waits; kills what does not end in time, and what it leaves behind."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout_s)
        self.kill()

    def _outcome(self) -> Outcome | None:
        status = self.status()
        outcome = status.outcome if status else None
        return outcome if outcome and outcome.attempt == self.attempt else None


def _kill_group(group: int) -> None:
    """Kills a process group and waits until none of it lives: a killed process first gives its memory back."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
    deadline = time.monotonic() + _GROUP_ENDS_S
    while _lives(group) and time.monotonic() < deadline:
        time.sleep(0.02)


def _lives(group: int) -> bool:
    """Says whether a process of a group lives. Those that nobody waits for stay behind as zombies, which do not."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, of_group = stat.read_text().rpartition(")")[2].split()[:3]
            if int(of_group) == group and state not in "ZX":
                return True
    return False
