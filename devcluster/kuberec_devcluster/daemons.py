"""Processes that outlive the command that started them, found again by pid and start time.

A pid alone may belong to somebody else by now; the kernel's start time of the process tells. Each daemon leads its
own session, so that Ctrl-C in the terminal does not reach it.
"""

import hashlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kuberec_devcluster.pki import write_private
from kuberec_devcluster.processes import tail, wait_until

_LOG_LIMIT = 64 << 20


@dataclass(frozen=True)
class Daemon:
    """What to run under a name, and where its records are.

    Attributes:
        name: names its log and its record.
        command: the command line.
        folder: the cluster's state folder.
        env: variables that it gets besides ours; kept out of the record and of the command line.
    """

    name: str
    command: tuple[str, ...]
    folder: Path
    env: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, name: str, command: Sequence[str], folder: Path, env: Mapping[str, str] | None = None) -> "Daemon":
        return cls(name, tuple(command), folder, tuple((env or {}).items()))

    @property
    def log(self) -> Path:
        return self.folder / "logs" / f"{self.name}.log"

    def ensure_running(self) -> bool:
        """Starts it unless it runs with this very command already; returns whether it was started."""
        known = Record.read(self.folder, self.name)
        if known is not None and known.alive():
            if known.wanted == self._wanted():
                return False
            known.stop()
        self.log.parent.mkdir(parents=True, exist_ok=True)
        if self.log.exists() and self.log.stat().st_size > _LOG_LIMIT:
            self.log.replace(self.log.with_suffix(".log.1"))
        with self.log.open("ab") as out:
            child = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                cwd=self.folder,
                env={**os.environ, **dict(self.env)},
                start_new_session=True,
            )
        Record(self.folder, self.name, child.pid, _started(child.pid), self._wanted()).write()
        return True

    def ended(self) -> str:
        """Returns why it is gone, with the end of its log, or the empty string while it runs."""
        known = Record.read(self.folder, self.name)
        if known is not None and known.alive():
            return ""
        return f"{self.name} ended; {self.log} says:\n{tail(self.log)}"

    def _wanted(self) -> str:
        text = json.dumps([self.command, self.env])
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Record:
    """A started daemon: its pid, and the start time that proves the pid is still its."""

    folder: Path
    name: str
    pid: int
    started: int
    wanted: str

    @classmethod
    def read(cls, folder: Path, name: str) -> "Record | None":
        path = folder / "pids" / f"{name}.json"
        if not path.exists():
            return None
        known = json.loads(path.read_text())
        return cls(folder, name, known["pid"], known["started"], known["wanted"])

    @classmethod
    def all(cls, folder: Path) -> "list[Record]":
        """Returns every record, in the order of their starts."""
        names = [path.stem for path in (folder / "pids").glob("*.json")]
        return sorted((it for name in names if (it := cls.read(folder, name))), key=lambda record: record.started)

    def write(self) -> None:
        content = {"pid": self.pid, "started": self.started, "wanted": self.wanted}
        write_private(self.folder / "pids" / f"{self.name}.json", json.dumps(content))

    def alive(self) -> bool:
        """Tells whether that very process still runs."""
        return _started(self.pid) == self.started

    def uptime_seconds(self) -> float:
        ticks = os.sysconf("SC_CLK_TCK")
        return time.clock_gettime(time.CLOCK_BOOTTIME) - self.started / ticks

    def stop(self, grace_seconds: float = 10) -> None:
        """Asks it to end, kills it after the grace, and forgets it."""
        for sign, patience in ((signal.SIGTERM, grace_seconds), (signal.SIGKILL, 10)):
            if not self.alive():
                break
            os.kill(self.pid, sign)
            deadline = time.monotonic() + patience
            while self.alive() and time.monotonic() < deadline:
                time.sleep(0.05)
        wait_until(lambda: not self.alive(), f"{self.name} (pid {self.pid}) is gone", 5)
        (self.folder / "pids" / f"{self.name}.json").unlink(missing_ok=True)


def _started(pid: int) -> int:
    """Returns the start time of a process in clock ticks since boot, -1 if it is gone or only a zombie."""
    try:
        os.waitpid(pid, os.WNOHANG)  # a child of ours that ended would stay a zombie
    except ChildProcessError:
        pass
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return -1
    return -1 if fields[0] == "Z" else int(fields[19])
