"""A proxy before a real S3 server that fails on demand: refuses, loses the answer to a write, reads slowly."""

import http.client
import random
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

HOP = {"connection", "keep-alive", "transfer-encoding", "te", "upgrade", "proxy-connection"}
SLOW_CHUNKS, SLOW_PAUSE_S = 8, 0.02


@dataclass
class Faults:
    """What goes wrong, each with its own chance from 0 to 1.

    Attributes:
        refused: answered with 500 before the server hears of it.
        lost: the server does it, the answer is a dropped connection (a time-out after the write).
        slow: the body comes in pieces with pauses in between.
        delay_s: before every request.
    """

    refused: float = 0.0
    lost: float = 0.0
    slow: float = 0.0
    delay_s: float = 0.0
    seen: Counter[str] = field(default_factory=Counter)


class FaultyS3:
    """Serves on a free loopback port; `faults` may be changed at any time."""

    def __init__(self, behind: str, seed: int = 0) -> None:
        self.faults = Faults()
        self._luck, self._guard = random.Random(seed), threading.Lock()
        address = urlsplit(behind)
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _forward(self) -> None:
                proxy._forward(self, str(address.hostname), int(address.port or 80))

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _forward  # noqa: N815

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True, name="faulty-s3").start()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _chance(self, fault: str, probability: float) -> bool:
        with self._guard:
            happens = self._luck.random() < probability
            self.faults.seen[fault] += happens
            return happens

    def _forward(self, request: Any, host: str, port: int) -> None:
        faults = self.faults
        time.sleep(faults.delay_s)
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        if self._chance("refused", faults.refused):
            answer = b"<Error><Code>InternalError</Code></Error>"
            request.send_response(500)
            request.send_header("Content-Length", str(len(answer)))
            request.end_headers()
            if request.command != "HEAD":
                request.wfile.write(answer)
            return
        connection = http.client.HTTPConnection(host, port, timeout=60)
        try:
            # Headers go through as they are, `Host` too: the signature covers them.
            connection.putrequest(request.command, request.path, skip_host=True, skip_accept_encoding=True)
            for name, value in request.headers.items():
                if name.lower() not in HOP:
                    connection.putheader(name, value)
            connection.endheaders(body)
            response = connection.getresponse()
            answer = response.read()
        finally:
            connection.close()
        if request.command in ("PUT", "POST", "DELETE") and self._chance("lost", faults.lost):
            request.close_connection = True
            return
        request.send_response(response.status)
        length = response.headers.get("Content-Length") if request.command == "HEAD" else str(len(answer))
        for name, value in response.headers.items():
            if name.lower() not in HOP | {"content-length", "date", "server"}:
                request.send_header(name, value)
        request.send_header("Content-Length", length or "0")
        request.end_headers()
        if request.command == "HEAD":
            return
        pieces = SLOW_CHUNKS if request.command == "GET" and self._chance("slow", faults.slow) else 1
        size = -(-len(answer) // pieces) or 1
        for at in range(0, len(answer), size):
            time.sleep(SLOW_PAUSE_S if pieces > 1 else 0)
            request.wfile.write(answer[at : at + size])
