"""The frame: a 16-byte header, and a body that follows it or lies in memory that both sides map.

Header: magic `KRW2`, version, kind, flags, body length, place. With flag `CHECKED` 8 bytes follow it: the CRC-32 of the
header and that of the body. With flag `SHARED` the body is not in the stream but at `place` (in lines of 64 bytes) of
the connection's segment. The header always travels through the kernel, so a peer can not change it once it is read.

A peer's length is believed only up to a limit, which is a few KiB until it has shown the token; and memory for a body
grows with the bytes that arrive, so a header alone costs nothing. No pickle, no compression: a body is parsed by
offsets that are checked against its length.
"""

import socket
import struct
import zlib
from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from kuberec_runtime.wire.errors import FrameDamaged, FrameError

MAGIC = 0x3257524B  # "KRW2", little endian
VERSION = 3
HEADER = struct.Struct("<IBBHII")
SUMS = struct.Struct("<II")
CHECKED, SHARED = 1, 2
LINE = 64
HELLO_LIMIT = 4096
BODY_LIMIT = 1 << 30
_STEP = 4 << 20
_AHEAD = 1024
_SMALL = 4096

Buffer = bytes | bytearray | memoryview
Body = npt.NDArray[np.uint8]


class Kind(IntEnum):
    """What a frame is. Requests of a worker are below 16, answers of a shard from 16 on."""

    HELLO = 1
    PULL = 2
    PUSH = 3
    MARK = 4
    FETCH = 5
    WELCOME = 16
    REFUSED = 17
    ROWS = 18
    ACK = 19
    MARKED = 20


_KINDS = {int(kind): kind for kind in Kind}


class Header(NamedTuple):
    """Kind, flags and body length (bytes) of a frame, and the line at which a shared body begins."""

    kind: Kind
    length: int
    flags: int = 0
    place: int = 0


class Disconnected(ConnectionError):  # noqa: N818 - named for what happened
    """The peer closed the connection, between frames or inside one."""


def pack_header(kind: Kind, length: int, flags: int = 0, place: int = 0) -> bytes:
    """The 16 bytes before a body of `length` bytes."""
    return HEADER.pack(MAGIC, VERSION, kind, flags, length, place)


def parse_header(raw: Buffer, limit: int) -> Header:
    """Reads a header.

    Args:
        raw: 16 bytes.
        limit: largest body that is accepted, bytes.

    Raises:
        FrameError: another magic, another version, an unknown kind, flags that mean nothing, or too long a body.
    """
    magic, version, kind, flags, length, place = HEADER.unpack(raw)
    if magic != MAGIC:
        raise FrameError(f"not a KubeRec frame: it begins with {bytes(raw[:4])!r} instead of b'KRW2'")
    if version != VERSION:
        raise FrameError(f"the peer speaks wire version {version}, this side {VERSION}: run the same release on both")
    if flags & ~(CHECKED | SHARED) or (place and not flags & SHARED):
        raise FrameError(f"unknown frame flags {flags:#x}, or a place without them")
    known = _KINDS.get(kind)
    if known is None:
        raise FrameError(f"unknown frame kind {kind}")
    if length > limit:
        raise FrameError(f"a {known.name} body of {length} bytes exceeds the limit of {limit}")
    return Header(known, length, flags, place)


def checksum(header: bytes, parts: Sequence[Buffer]) -> bytes:
    """The 8 bytes that follow a checked header: CRC-32 of the header, CRC-32 of all parts of the body."""
    body = 0
    for piece in parts:
        body = zlib.crc32(piece, body)
    return SUMS.pack(zlib.crc32(header), body)


class Inbox:
    """A reusable receive buffer; grows with what arrives, never beyond the limit given to `header`.

    Of small pieces it reads what has come, up to a KiB, so that a small frame takes one call of the kernel.
    """

    def __init__(self) -> None:
        self._ahead = memoryview(bytearray(_AHEAD))
        self._first = self._last = 0
        self._head = bytearray(HEADER.size)
        self._sums = bytearray(SUMS.size)
        self._body = np.empty(1 << 16, np.uint8)

    def fill(self, sock: socket.socket, view: memoryview) -> None:
        """Fills `view`, of bytes, from what was read ahead and from the socket; raises as `receive_exactly`."""
        size, ready = len(view), self._last - self._first
        if ready < size:
            view[:ready] = self._ahead[self._first : self._last]
            self._first = self._last = 0
            if size - ready >= _AHEAD:
                receive_exactly(sock, view[ready:])
                return
            while self._last < size - ready:
                self._last += _receive(sock, self._ahead[self._last :])
            view = view[ready:]
        self._first += len(view)
        view[:] = self._ahead[self._first - len(view) : self._first]

    def header(self, sock: socket.socket, limit: int, checked: bool | None = False) -> Header:
        """Receives and checks the next header.

        Args:
            sock: the connection.
            limit: largest body that is accepted, bytes.
            checked: whether frames of this connection carry checksums; None if the first frame will tell.

        Raises:
            Disconnected: the stream ended.
            FrameDamaged: a bit of the header changed on the way.
            FrameError: see `parse_header`.
        """
        self.fill(sock, memoryview(self._head))
        flagged = bool(self._head[6] & CHECKED)
        if checked is None:
            checked = flagged and self._head[5] == Kind.HELLO
        if not checked:
            header = parse_header(self._head, limit)
            if flagged:
                raise FrameError("a checksum that was not agreed on")
            return header
        if not flagged:
            raise FrameDamaged("a frame without the checksum that was agreed on")
        self.fill(sock, memoryview(self._sums))
        if zlib.crc32(self._head) != SUMS.unpack(self._sums)[0]:
            raise FrameDamaged("the header of a frame is not the one that was sent")
        return parse_header(self._head, limit)

    def verify(self, body: Body) -> None:
        """Compares a body with the checksum that came with the last header; raises FrameDamaged."""
        if zlib.crc32(body.data) != SUMS.unpack(self._sums)[1]:
            raise FrameDamaged(f"a body of {body.size} bytes is not the one that was sent")

    def body(self, sock: socket.socket, length: int) -> Body:
        """Receives a body; the array is valid until the next call.

        Raises:
            Disconnected: the stream ended.
        """
        got = 0
        while got < length:
            if self._body.size == got:
                larger = np.empty(min(length, max(2 * got, _STEP)), np.uint8)
                larger[:got] = self._body[:got]
                self._body = larger
            upto = min(length, self._body.size)
            self.fill(sock, self._body[got:upto].data)
            got = upto
        return self._body[:length]


def tune(sock: socket.socket) -> None:
    """Options of both ends: no delay of small frames, and a peer whose machine is gone is noticed within a minute."""
    if sock.family == socket.AF_UNIX:
        return
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        ("TCP_USER_TIMEOUT", 60_000),
        ("TCP_KEEPIDLE", 20),
        ("TCP_KEEPINTVL", 10),
        ("TCP_KEEPCNT", 4),
    ):
        if hasattr(socket, option):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def receive_exactly(sock: socket.socket, view: memoryview) -> None:
    """Fills `view` from the socket.

    Raises:
        Disconnected: the stream ended first.
        TimeoutError: the socket's receive timeout passed.
    """
    got = 0
    while got < len(view):
        got += _receive(sock, view[got:], socket.MSG_WAITALL)


def _receive(sock: socket.socket, view: memoryview, flags: int = 0) -> int:
    try:
        n = sock.recv_into(view, 0, flags)
    except BlockingIOError as error:
        raise TimeoutError("no bytes within the receive timeout") from error
    if n == 0:
        raise Disconnected("the peer closed the connection")
    return n


def send_frame(sock: socket.socket, kind: Kind, parts: Sequence[Buffer], checked: bool = False) -> None:
    """Sends a header and the parts of a body, joined only if they are small; returns when the kernel has everything.

    Raises:
        OSError: the connection is broken; how much arrived is unknown.
    """
    views = [memoryview(part).cast("B") for part in parts if len(part)]
    size = sum(map(len, views))
    head = pack_header(kind, size, CHECKED if checked else 0)
    if checked:
        head += checksum(head, views)
    if size <= _SMALL:
        sock.sendall(b"".join((head, *views)))
    else:
        send_all(sock, [memoryview(head), *views])


def send_all(sock: socket.socket, queue: list[memoryview]) -> None:
    """Sends byte views in order; `queue` is used up. Raises OSError."""
    while queue:
        sent = sock.sendmsg(queue[:64])
        while queue and sent >= len(queue[0]):
            sent -= len(queue[0])
            queue.pop(0)
        if queue and sent:
            queue[0] = queue[0][sent:]


def part(array: npt.NDArray[np.generic]) -> memoryview:
    """The bytes of a C-ordered array, uncopied."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
