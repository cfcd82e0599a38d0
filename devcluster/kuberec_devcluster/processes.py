"""Starts servers, waits until they answer, and makes sure that they end.

Two ways to hold a process: *tethered* (dies with this program, see `tether`), for tests; and *detached* (own
session and a record of its pid and start time, see `daemons`), for the cluster that outlives the command.
"""

import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

LOOPBACK = "127.0.0.1"
# Above Ray's worker ports (10002-19999), below Linux's ephemeral ports (32768-): no outgoing connection takes one.
PORTS = range(20000, 32000)
_TETHER = Path(__file__).with_name("tether.py")
_handed_out: set[int] = set()


class ServerError(RuntimeError):
    """A server did not start, did not answer in time, or ended on its own."""


def free_port(host: str = LOOPBACK) -> int:
    """Returns a TCP port that is free on `host` now and that this process has not been given before."""
    for _ in range(1000):
        port = random.choice(PORTS)
        if port in _handed_out:
            continue
        with socket.socket() as probe:
            try:
                probe.bind((host, port))
            except OSError:
                continue
        _handed_out.add(port)
        return port
    raise ServerError(f"no free port between {PORTS.start} and {PORTS.stop} on {host}")


def wait_until(
    condition: Callable[[], bool],
    what: str,
    seconds: float,
    *,
    every: float = 0.05,
    alive: Callable[[], str] | None = None,
) -> None:
    """Returns as soon as `condition()` is true.

    Args:
        condition: polled every `every` seconds.
        what: names the condition in the error.
        seconds: the deadline.
        every: seconds between two polls.
        alive: returns why waiting is pointless, or the empty string.

    Raises:
        ServerError: the deadline passed, or `alive` gave a reason.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if alive is not None and (reason := alive()):
            raise ServerError(f"{what}: {reason}")
        if time.monotonic() > deadline:
            raise ServerError(f"{what}: not so after {seconds:g} s")
        time.sleep(every)


def listening(port: int, host: str = LOOPBACK) -> bool:
    """Tells whether something accepts TCP connections there."""
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError:
        return False
    return True


def tail(log: Path, lines: int = 15) -> str:
    """Returns the last lines of a log, or a note that there is none."""
    if not log.exists():
        return f"(no {log})"
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])


class Tethered:
    """A child process that ends with this one, its output in a log file."""

    def __init__(self, command: Sequence[str], log: Path, env: Mapping[str, str] | None = None) -> None:
        self.command = list(command)
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as out:
            self._child = subprocess.Popen(
                [sys.executable, "-I", "-S", str(_TETHER), str(os.getpid()), *self.command],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env={**os.environ, **(env or {})},
            )

    @property
    def pid(self) -> int:
        return self._child.pid

    def ended(self) -> str:
        """Returns why the process is gone, with the end of its log, or the empty string while it runs."""
        code = self._child.poll()
        if code is None:
            return ""
        return f"{Path(self.command[0]).name} ended with code {code}; {self.log} says:\n{tail(self.log)}"

    def stop(self, grace_seconds: float) -> None:
        """Asks it to end (SIGTERM), and kills it if it is still there after the grace."""
        self._child.send_signal(signal.SIGTERM)
        try:
            self._child.wait(grace_seconds)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """Ends it as a crash would (SIGKILL)."""
        self._child.kill()
        self._child.wait()


class LocalServer(ABC):
    """A server on loopback, as a context manager.

    Subclasses say what to run and how to tell that it answers; this class starts, stops, kills and restarts it on
    the same ports and the same folder. Without a folder it works in a temporary one that goes away with it.
    """

    name = "server"
    ready_seconds = 30.0
    grace_seconds = 10.0

    def __init__(self, folder: Path | None = None) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix=f"kuberec-{self.name}-") if folder is None else None
        self.folder = Path(self._temporary.name) if self._temporary is not None else Path(folder or "").absolute()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.log = self.folder / f"{self.name}.log"
        self._process: Tethered | None = None

    @abstractmethod
    def command(self) -> list[str]:
        """Returns the command line that runs the server in the foreground."""

    @abstractmethod
    def answers(self) -> bool:
        """Tells whether the server serves requests now."""

    def prepare(self) -> None:  # noqa: B027 - most servers have nothing to prepare
        """Writes what the command reads; called before each start and safe to repeat."""

    def provision(self) -> None:  # noqa: B027
        """Creates what users expect to exist, once the server answers; safe to repeat."""

    def environment(self) -> dict[str, str]:
        """Returns what the command gets besides this process's environment (secrets belong here)."""
        return {}

    @property
    def pid(self) -> int:
        """The server's process id.

        Raises:
            ServerError: it is not running.
        """
        if self._process is None:
            raise ServerError(f"{self.name} is not running; call start()")
        return self._process.pid

    def start(self) -> Self:
        """Starts the server and returns once it answers.

        Raises:
            ServerError: it ended, or did not answer in time; the message holds the end of its log.
        """
        if self._process is not None:
            return self
        if self.answers():
            raise ServerError(f"{self.name}: another server answers on that port already; stop it or choose another")
        self.prepare()
        self._process = Tethered(self.command(), self.log, self.environment())
        try:
            wait_until(self.answers, f"{self.name} answers", self.ready_seconds, alive=self._process.ended)
            self.provision()
        except BaseException:
            self.kill()
            raise
        return self

    def stop(self) -> None:
        """Ends the server in order; its folder and ports stay for `start`."""
        if self._process is not None:
            self._process.stop(self.grace_seconds)
            self._process = None

    def kill(self) -> None:
        """Ends the server as a crash would; its folder and ports stay for `start`."""
        if self._process is not None:
            self._process.kill()
            self._process = None

    def restart(self) -> None:
        """Stops the server and starts it again, on the same ports and data."""
        self.stop()
        self.start()

    def close(self) -> None:
        """Ends the server for good and removes its temporary folder."""
        if self._temporary is not None:
            self.kill()  # nobody will read the data again, so no time is spent on an orderly end
            self._temporary.cleanup()
        else:
            self.stop()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
