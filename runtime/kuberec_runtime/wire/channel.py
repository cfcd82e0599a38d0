"""One end of a connection: frames in order over a socket, their bodies in it or in a segment that both sides map.

The socket orders everything and wakes the reader, whichever way a body goes, so the protocol, its limits and what
happens when a peer dies are the same on both ways, and each push may take either.
"""

import socket
from typing import NamedTuple

from kuberec_runtime.wire.errors import FrameError
from kuberec_runtime.wire.frames import (
    CHECKED,
    SHARED,
    Body,
    Buffer,
    Header,
    Inbox,
    Kind,
    checksum,
    pack_header,
    send_all,
    send_frame,
)
from kuberec_runtime.wire.segment import Arena, Region, Segment

_ZEROS = bytes(1 << 16)


class Frame(NamedTuple):
    """A received frame; `body` is valid until the next one. `shared`: it lies in the segment."""

    kind: Kind
    body: Body
    shared: bool


class Sending:
    """A frame whose body of `size` bytes is sent in pieces; whole, at the end, if it is checked."""

    def __init__(self, channel: "Channel", kind: Kind, size: int) -> None:
        self._channel, self._kind, self._left = channel, kind, size
        self._head: bytes | None = pack_header(kind, size)
        self._whole: list[Buffer] = []

    def send(self, parts: list[Buffer]) -> None:
        """Sends further bytes, which may be changed afterwards; raises OSError."""
        self._left -= sum(map(len, parts))
        if self._channel.checked:
            self._whole += map(bytes, parts)
            if not self._left:
                self._channel.send(self._kind, self._whole)
            return
        if self._head is not None:
            parts, self._head = [self._head, *parts], None
        send_all(self._channel.sock, [memoryview(part) for part in parts if len(part)])

    def fill_up(self) -> None:
        """If the frame has begun, sends zeros for what is missing, so that another can follow; raises OSError."""
        while self._head is None and self._left:
            self.send([_ZEROS[: self._left]])


class Channel:
    """Sends from one thread at a time and receives from one; `hang_up` may come from any."""

    def __init__(self, sock: socket.socket, checked: bool | None = False, segment: Segment | None = None) -> None:
        self.sock = sock
        self.checked = checked
        self.segment = segment
        self.arena: Arena | None = None
        self._inbox = Inbox()

    def send(self, kind: Kind, parts: list[Buffer]) -> None:
        """Sends a frame with its body in the stream; raises OSError."""
        send_frame(self.sock, kind, parts, bool(self.checked))

    def send_region(self, kind: Kind, region: Region) -> None:
        """Sends a body from where it lies: by place if that is this connection's segment, else in the stream."""
        if region.arena is None or region.arena is not self.arena:
            self.send(kind, [region.bytes.data])
        else:
            self.send_place(kind, region.place, region.bytes)

    def send_place(self, kind: Kind, place: int, body: Body) -> None:
        """Sends only the header of a body that lies at line `place` of this connection's segment; raises OSError."""
        head = pack_header(kind, body.size, SHARED | (CHECKED if self.checked else 0), place)
        send_all(self.sock, [memoryview(head + checksum(head, [body.data]) if self.checked else head)])

    def sending(self, kind: Kind, size: int) -> Sending:
        """Begins a frame with a body of `size` bytes."""
        return Sending(self, kind, size)

    def header(self, limit: int) -> Header:
        """Waits for the next header; `body` or `rest` must follow. Raises as `receive`."""
        header = self._inbox.header(self.sock, limit, self.checked)
        if self.checked is None:
            self.checked = bool(header.flags & CHECKED)
        return header

    def rest(self, out: Body) -> None:
        """Receives further bytes of a body that lies in the stream and is not checked; raises OSError."""
        self._inbox.fill(self.sock, out.data)

    def body(self, header: Header) -> Frame:
        """Receives what follows a header; raises as `receive`."""
        shared = bool(header.flags & SHARED)
        if not shared:
            body = self._inbox.body(self.sock, header.length)
        elif self.segment is None:
            raise FrameError(f"a {header.kind.name} body in shared memory, of which this connection has none")
        else:
            body = self.segment.part(header.place, header.length)
        if self.checked:
            self._inbox.verify(body)
        return Frame(header.kind, body, shared)

    def receive(self, limit: int) -> Frame:
        """Waits for the next frame.

        Raises:
            OSError: the connection is broken, or the receive timeout passed.
            FrameDamaged: bits changed on the way.
            FrameError: it is no frame of this protocol, or reaches beyond a limit.
        """
        return self.body(self.header(limit))

    def hang_up(self) -> None:
        """Breaks the connection; whoever uses it wakes up."""
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # not connected any more

    def close(self) -> None:
        """Hangs up and gives the descriptor back; the segment goes with the last array on it."""
        self.hang_up()
        self.sock.close()
        self.segment = self.arena = None
