"""Proxies between a worker and a shard that break connections or flip bits, at random places that a seed decides."""

import socket
import threading

import numpy as np


class _Proxy:
    """Forwards every connection to `target`, each direction in a thread of its own, until `stop`."""

    def __init__(self, target: tuple[str, int], seed: int) -> None:
        self._target, self._rng = target, np.random.default_rng(seed)
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] = self._listener.getsockname()
        self.stop = self._listener.close
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection(self._target)
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._carry, args=(source, sink), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            self._forward(source, sink)
        except OSError:
            pass
        for sock in (source, sink):
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            sock.close()  # with bytes unread, so that a sender who waits for room is told

    def _forward(self, source: socket.socket, sink: socket.socket) -> None:
        raise NotImplementedError


class BreakingProxy(_Proxy):
    """Breaks each connection after a random number of bytes in either direction, as long as breaks are left."""

    def __init__(self, target: tuple[str, int], seed: int, breaks: int) -> None:
        self.left = breaks
        super().__init__(target, seed)

    def _forward(self, source: socket.socket, sink: socket.socket) -> None:
        with self._lock:
            budget = int(self._rng.integers(150, 60_000)) if self.left else 1 << 62
        while budget > 0 and (data := source.recv(min(budget, 4096))):
            sink.sendall(data)
            budget -= len(data)
        if budget <= 0:
            with self._lock:
                self.left = max(self.left - 1, 0)


class FlippingProxy(_Proxy):
    """Flips one bit of each direction of a connection, at a random byte, as long as flips are left."""

    def __init__(self, target: tuple[str, int], flips: float, seed: int) -> None:
        self.left = flips
        super().__init__(target, seed)

    def _forward(self, source: socket.socket, sink: socket.socket) -> None:
        with self._lock:
            at, bit = int(self._rng.integers(0, 60_000)), int(self._rng.integers(8))
        while data := bytearray(source.recv(4096)):
            with self._lock:
                if 0 <= at < len(data) and self.left > 0:
                    data[at] ^= 1 << bit
                    self.left -= 1
            at -= len(data)
            sink.sendall(data)
