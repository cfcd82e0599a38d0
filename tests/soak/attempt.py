"""One attempt as the RayJob's entrypoint runs it, with a Ray of its own: the driver, and all that descends from it."""

import contextlib
import json
import os
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from kuberec_api.training import RecTrainingStatus
from kuberec_runtime.local.supervisor import start_attempt

GONE_S = 60.0


class Attempt:
    """Starts the process; it leads a session, by which its descendants are known even when it is dead.

    Args:
        number: of the attempt.
        documents: the RecModel and the RecTraining, by kind.
        folder: for input, status and log; each attempt has files of its own.
        env: besides this process's environment.
    """

    def __init__(self, number: int, documents: Mapping[str, Any], folder: Path, env: Mapping[str, str]) -> None:
        self.number = number
        self.log = folder / f"attempt-{number}.log"
        self._status = folder / f"status-{number}.json"
        given = folder / f"input-{number}.json"
        given.write_text(
            json.dumps({"model": documents["RecModel"], "training": documents["RecTraining"], "attempt": number})
        )
        self.driver = start_attempt(given, self._status, self.log, env)

    def poll(self) -> int | None:
        """The driver's exit code, None while it runs."""
        return self.driver.poll()

    def status(self) -> RecTrainingStatus | None:
        """The newest status, None before the first."""
        try:
            return RecTrainingStatus.model_validate(json.loads(self._status.read_text()))
        except (FileNotFoundError, json.JSONDecodeError):
            return None

    def shards(self) -> list[int]:
        """Process ids of the shards that live."""
        return self._actors("ShardActor")

    def workers(self) -> list[int]:
        """Process ids of the workers that live."""
        return self._actors("WorkerActor")

    def kill(self) -> None:
        """Kills whatever is left of the attempt, as the loss of its nodes would."""
        for pid, _ in self._processes():
            send(pid, signal.SIGKILL)
        if self.driver.poll() is None:
            self.driver.kill()
        self.driver.wait()

    def left(self, patience_s: float = GONE_S) -> list[str]:
        """Waits until nothing of the attempt runs any more; returns the command lines of what still does."""
        deadline = time.monotonic() + patience_s
        while left := [command for _, command in self._processes()]:
            if time.monotonic() > deadline:
                break
            time.sleep(0.1)
        return left

    def _actors(self, name: str) -> list[int]:
        return sorted(pid for pid, command in self._processes() if command.startswith(f"ray::{name}"))

    def _processes(self) -> Iterator[tuple[int, str]]:
        """Process ids and command lines of the session, without the dead that nobody has waited for."""
        for entry in Path("/proc").iterdir():
            if not entry.name.isdecimal():
                continue
            with contextlib.suppress(OSError):
                # `pid (name) state ppid group session ...`; the name may hold anything, parentheses too.
                state, _, _, session = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
                if int(session) == self.driver.pid and state != "Z":
                    command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                    yield int(entry.name), command


def send(pid: int, number: signal.Signals) -> bool:
    """Sends a signal; False if there is no such process any more."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True
