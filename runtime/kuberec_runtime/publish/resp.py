"""Redis' wire protocol for many rows at once: commands and replies as numpy arrays, never one Python object per row.

redis-py builds and parses one object per key, which costs more than the server does (performance.md 4d). Rows of a
table all have one key length and one value length, so a batch of commands is a template copied n times with the ids
and values laid over it, and a reply is one scan by a compiled loop. Only rows go this way; everything else in the tier
uses redis-py.
"""

import socket
import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

import hiredis
import numpy as np
from numba import njit
from numpy.typing import NDArray

from kuberec_runtime.publish.errors import TierError, TierRefused, TierUnreachable

U8 = NDArray[np.uint8]
I64 = NDArray[np.int64]

_FIRST_BUFFER = 1 << 18


@dataclass(frozen=True)
class Address:
    """Where a server listens; `display` is the URL as errors name it, never with a password."""

    display: str
    host: str
    port: int
    database: int
    tls: bool
    path: str = ""


def parse_address(url: str) -> Address:
    """Returns the address of `redis://host:port/db`, `rediss://host:port/db` or `unix:///path?db=0`.

    Raises:
        TierError: if the URL is of another form or holds a password.
    """
    parts = urlsplit(url)
    if "@" in parts.netloc:
        raise TierError("a Redis URL must not hold a password: give the password on its own (spec: passwordFrom)")
    try:
        if parts.scheme == "unix":
            database = int(parse_qs(parts.query).get("db", ["0"])[0])
            return Address(url, "", 0, database, False, parts.path)
        if parts.scheme not in ("redis", "rediss") or not parts.hostname:
            raise ValueError(url)
        database = int(parts.path.strip("/") or 0)
        return Address(url, parts.hostname, parts.port or 6379, database, parts.scheme == "rediss")
    except ValueError:
        raise TierError(f"'{url}' is not a Redis URL: write redis://host:6379/0 or rediss://host:6379/0") from None


def encode_mget(groups: Sequence[tuple[bytes, I64]]) -> bytes:
    """Returns one MGET of the keys `prefix + id` (8 bytes, little endian) of all groups, in order."""
    return _of_keys(b"MGET", groups)


def encode_unlink(prefix: bytes, ids: I64) -> bytes:
    """Returns one UNLINK of the keys `prefix + id`."""
    return _of_keys(b"UNLINK", [(prefix, ids)])


def _of_keys(command: bytes, groups: Sequence[tuple[bytes, I64]]) -> bytes:
    total = sum(ids.size for _, ids in groups)
    parts = [b"*%d\r\n$%d\r\n%b\r\n" % (total + 1, len(command), command)]
    for prefix, ids in groups:
        head = b"$%d\r\n%b" % (len(prefix) + 8, prefix)
        lines = _template(head + bytes(8) + b"\r\n", ids.size)
        lines[:, len(head) : len(head) + 8] = _id_bytes(ids)
        parts.append(lines.tobytes())
    return b"".join(parts)


def encode_mset(prefix: bytes, ids: I64, values: U8) -> bytes:
    """Returns one MSET of the keys `prefix + id` to the rows of `values` uint8[n, size]."""
    size = values.shape[1]
    head = b"$%d\r\n%b" % (len(prefix) + 8, prefix)
    middle = b"\r\n$%d\r\n" % size
    lines = _template(head + bytes(8) + middle + bytes(size) + b"\r\n", ids.size)
    at = len(head)
    lines[:, at : at + 8] = _id_bytes(ids)
    at += 8 + len(middle)
    lines[:, at : at + size] = values
    return b"*%d\r\n$4\r\nMSET\r\n" % (2 * ids.size + 1) + lines.tobytes()


def encode_command(*words: bytes) -> bytes:
    """Returns one command."""
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(w), w) for w in words)


def _template(line: bytes, count: int) -> U8:
    out = np.empty((count, len(line)), np.uint8)
    out[:] = np.frombuffer(line, np.uint8)
    return out


def _id_bytes(ids: I64) -> U8:
    return np.ascontiguousarray(ids, "<i8").view(np.uint8).reshape(ids.size, 8)


class Connection:
    """One blocking connection, authenticated and on its database. For one thread at a time.

    After a `TierUnreachable` the connection is closed: replies may still be under way and would be read as others.
    """

    def __init__(self, address: Address, password: str | None = None, timeout_s: float = 5.0) -> None:
        self.address = address
        self._buffer = bytearray(_FIRST_BUFFER)
        self._reader: Any = hiredis.Reader()
        self._socket = self._connect(timeout_s)
        greeting = []
        if password:
            greeting.append(encode_command(b"AUTH", password.encode()))
        if address.database:
            greeting.append(encode_command(b"SELECT", b"%d" % address.database))
        if not greeting:
            greeting.append(encode_command(b"PING"))
        try:
            self.send(b"".join(greeting), timeout_s)
            self.replies(len(greeting), timeout_s)
        except TierError:
            self.close()
            raise

    def send(self, data: bytes, timeout_s: float) -> None:
        """Sends encoded commands.

        Raises:
            TierUnreachable: the connection broke or did not take the bytes in time; it is closed.
        """
        try:
            self._socket.settimeout(timeout_s)
            self._socket.sendall(data)
        except OSError as error:
            raise self._broken(error) from None

    def replies(self, count: int, timeout_s: float) -> list[Any]:
        """Reads `count` replies of any kind.

        Raises:
            TierUnreachable: they did not come in time; the connection is closed.
            TierRefused: one of them is an error; all have been read.
        """
        out: list[Any] = []
        deadline = time.monotonic() + timeout_s
        while len(out) < count:
            reply = self._reader.gets()
            if reply is not False:
                out.append(reply)
                continue
            got = self._receive(self._buffer, 0, deadline)
            self._reader.feed(self._buffer, 0, got)
        for reply in out:
            if isinstance(reply, hiredis.ReplyError):
                raise refused(self.address.display, str(reply))
        return out

    def bulks(self, count: int, timeout_s: float) -> tuple[U8, I64, I64]:
        """Reads one array of `count` bulk strings, such as MGET's reply.

        Returns:
            the reply's bytes (valid until the next read), the start of each value, and its size: -1 where nil.

        Raises:
            TierUnreachable: it did not come in time; the connection is closed.
            TierRefused: the reply is an error.
        """
        starts, sizes = np.empty(count, np.int64), np.empty(count, np.int64)
        deadline = time.monotonic() + timeout_s
        filled, position, done = 0, 0, -1
        while done < count:
            if filled == len(self._buffer):
                bigger = bytearray(2 * filled)  # a new one: the caller may still look at the old one
                bigger[:filled] = self._buffer
                self._buffer = bigger
            filled += self._receive(self._buffer, filled, deadline)
            data = np.frombuffer(self._buffer, np.uint8)
            if done < 0:
                if data[0] == ord("-"):
                    self._reader.feed(self._buffer, 0, filled)
                    self.replies(1, max(deadline - time.monotonic(), 1e-3))
                position = _array_header(data, filled, count)
                if position < 0:
                    raise self._broken(ValueError("a reply that is not MGET's"))
                done = 0 if position else -1
            if done >= 0:
                done, position = _scan_bulks(data, position, filled, starts, sizes, done)
                if done < 0:
                    raise self._broken(ValueError("a reply that is not MGET's"))
        return np.frombuffer(self._buffer, np.uint8), starts, sizes

    def close(self) -> None:
        """Closes the connection; what was under way is lost."""
        self._socket.close()

    @property
    def closed(self) -> bool:
        """True after `close` or a `TierUnreachable`."""
        return self._socket.fileno() < 0

    def _connect(self, timeout_s: float) -> socket.socket:
        try:
            if self.address.path:
                sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                sock.settimeout(timeout_s)
                sock.connect(self.address.path)
                return sock
            sock = socket.create_connection((self.address.host, self.address.port), timeout_s)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.address.tls:
                sock = ssl.create_default_context().wrap_socket(sock, server_hostname=self.address.host)
            return sock
        except OSError as error:
            raise unreachable(self.address.display, error) from None

    def _receive(self, buffer: bytearray, at: int, deadline: float) -> int:
        left = deadline - time.monotonic()
        try:
            if left <= 0:
                raise TimeoutError("timed out")
            self._socket.settimeout(left)
            with memoryview(buffer) as view:
                got = self._socket.recv_into(view[at:])
            if not got:
                raise ConnectionResetError("the server closed the connection")
            return got
        except OSError as error:
            raise self._broken(error) from None

    def _broken(self, error: Exception) -> TierUnreachable:
        self.close()
        return unreachable(self.address.display, error)


def unreachable(url: str, error: Exception) -> TierUnreachable:
    """The error of a server that does not answer."""
    return TierUnreachable(f"no answer from Redis at {url}: {error}\n  is it running, and is the URL right?")


def refused(url: str, message: str) -> TierRefused:
    """The error of a server that answers with an error."""
    hint = ""
    if message.startswith(("NOAUTH", "WRONGPASS", "ERR AUTH", "ERR invalid password")):
        hint = "\n  check the password (spec: passwordFrom; local: KUBEREC_REDIS_PASSWORD)"
    elif message.startswith("OOM"):
        hint = "\n  the server's maxmemory is reached: raise it, or publish BFloat16 instead of Float32"
    return TierRefused(f"Redis at {url} refused: {message}{hint}")


@njit(cache=True, nogil=True)
def _array_header(data: U8, filled: int, count: int) -> int:
    """Returns where the first element starts, 0 if the line is not complete, -1 if it is not `*<count>`."""
    if data[0] != 42:
        return -1
    value = 0
    for i in range(1, filled):
        if data[i] == 13:
            if i + 1 >= filled:
                return 0
            return i + 2 if value == count else -1
        value = value * 10 + (int(data[i]) - 48)
    return 0


@njit(cache=True, nogil=True)
def _scan_bulks(data: U8, position: int, filled: int, starts: I64, sizes: I64, done: int) -> tuple[int, int]:
    """Finds complete bulk strings from `position` on; returns how many are found in all (-1: not bulks) and where."""
    while done < starts.size:
        at = position
        if at >= filled:
            break
        if data[at] != 36:
            return -1, at
        at += 1
        negative = False
        value = 0
        complete = False
        while at < filled:
            byte = data[at]
            if byte == 13:
                complete = at + 1 < filled
                break
            if byte == 45:
                negative = True
            else:
                value = value * 10 + (int(byte) - 48)
            at += 1
        if not complete:
            break
        at += 2
        if negative:
            starts[done] = at
            sizes[done] = -1
            position = at
        else:
            if at + value + 2 > filled:
                break
            starts[done] = at
            sizes[done] = value
            position = at + value + 2
        done += 1
    return done, position


@njit(cache=True, nogil=True)
def gather_values(data: U8, starts: I64, sizes: I64, first: int, out: U8, found: NDArray[np.bool_]) -> int:
    """Copies values [first, first + n) of the right size to `out` uint8[n, size]; others become zeros, found=False.

    Returns the number of values that were there.
    """
    size = out.shape[1]
    hits = 0
    for i in range(out.shape[0]):
        if sizes[first + i] == size:
            start = starts[first + i]
            for j in range(size):
                out[i, j] = data[start + j]
            found[i] = True
            hits += 1
        else:
            for j in range(size):
                out[i, j] = 0
            found[i] = False
    return hits
