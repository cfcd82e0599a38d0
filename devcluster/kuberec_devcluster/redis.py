"""A Redis server on a free loopback port; or, where Redis cannot be installed, a Valkey that speaks the same."""

import socket
from pathlib import Path

from kuberec_devcluster import toolchain
from kuberec_devcluster.processes import LOOPBACK, LocalServer, free_port


class Redis(LocalServer):
    """A real server; `url` is what clients on this machine connect to.

    Args:
        folder: its working folder; a temporary one without it.
        port: the port; a free one without it.
        hosts: addresses to listen on besides loopback.
        persistent: keep the data over a restart (append-only file); the embedding tier needs none.
    """

    name = "redis"
    grace_seconds = 5.0

    def __init__(
        self, folder: Path | None = None, port: int | None = None, hosts: tuple[str, ...] = (), persistent: bool = False
    ) -> None:
        super().__init__(folder)
        self.port = port or free_port()
        self.hosts = hosts
        self.persistent = persistent

    @property
    def url(self) -> str:
        """`redis://host:port/0`."""
        return f"redis://{LOOPBACK}:{self.port}/0"

    def command(self) -> list[str]:
        append = "yes" if self.persistent else "no"
        return [
            str(toolchain.ensure("redis-server")),
            *("--bind", LOOPBACK, *self.hosts, "--port", str(self.port), "--dir", str(self.folder)),
            *("--protected-mode", "no", "--save", "", "--appendonly", append, "--daemonize", "no"),
        ]

    def answers(self) -> bool:
        try:
            with socket.create_connection((LOOPBACK, self.port), timeout=1) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False
