"""One worker's connection to one shard: sends in order, keeps what is not acknowledged, and mends itself.

Invariants:
- Whatever changes the shard (pushes, marks) is kept, in order, until the shard says that it is done; after a
  reconnection all of it is sent again before anything new. The shard drops what it had applied: each applies once.
- There is no reader thread: whoever waits for an answer reads, one at a time, and hands out what it finds.
- Reconnecting holds the send lock, so nothing overtakes what is sent again.
"""

import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kuberec_runtime.table.initial import F32
from kuberec_runtime.wire import messages
from kuberec_runtime.wire.errors import FrameError, ShardLost, WireError, WireRefused
from kuberec_runtime.wire.frames import BODY_LIMIT, Buffer, Inbox, Kind, send_frame, tune
from kuberec_runtime.wire.messages import Hello

Parts = Sequence[Buffer]


@dataclass(frozen=True)
class Patience:
    """How long a worker tries, all in seconds.

    Attributes:
        connect: for one attempt to connect and shake hands.
        reconnect: for all attempts to reach a shard again before it counts as lost.
        answer: for an answer on a connection that stands; must exceed the time a cut may take.
        backoff: before the second attempt; doubles up to one second.
    """

    connect: float = 5.0
    reconnect: float = 10.0
    answer: float = 120.0
    backoff: float = 0.02


@dataclass(frozen=True)
class _Kept:
    kind: Kind
    number: int
    parts: Parts


class Link:
    """Connection of a worker to the shard that `hello` names. Methods may be called from several threads."""

    def __init__(self, address: tuple[str, int], hello: Hello, patience: Patience) -> None:
        self.address = address
        self.shard = hello.shard
        self._hello = hello
        self._patience = patience
        self._sending = threading.RLock()
        self._reading = threading.Lock()
        self._state = threading.Condition()
        self._kept: deque[_Kept] = deque()
        self._pushes = 0
        self._asked: tuple[int, Parts] | None = None
        self._deliver: Callable[[dict[int, F32], F32], None] | None = None
        self._inbox = Inbox()
        self._generation = 0
        self._failure: WireError | None = None
        self._closed = False
        self.reconnects = 0
        self._sock = self._connect_within(patience.reconnect)

    # -- sending --------------------------------------------------------------------------------------------------

    def push(self, sequence: int, parts: Parts) -> None:
        """Sends a push and keeps it until it is acknowledged; its arrays must not change before that."""
        with self._state:
            self._pushes += 1
        self._keep_and_send(_Kept(Kind.PUSH, sequence, parts))

    def mark(self, epoch: int) -> None:
        """Sends MARK(epoch) and keeps it until the shard says that the epoch is closed."""
        self._keep_and_send(_Kept(Kind.MARK, epoch, messages.pack_number(epoch)))

    def _keep_and_send(self, kept: _Kept) -> None:
        with self._sending:
            self._check()
            with self._state:
                self._kept.append(kept)
            self._send(kept.kind, kept.parts)

    def ask(self, request: int, parts: Parts, deliver: Callable[[dict[int, F32], F32], None]) -> None:
        """Sends a pull; `deliver(rows, dense)` is called by `answered`, its arrays are valid only during the call."""
        with self._sending:
            self._check()
            with self._state:
                self._asked, self._deliver = (request, parts), deliver
            self._send(Kind.PULL, parts)

    def _send(self, kind: Kind, parts: Parts) -> None:
        sock = self._sock
        try:
            send_frame(sock, kind, parts)
        except OSError as error:
            self._mend(self._generation, sock, error)

    # -- waiting --------------------------------------------------------------------------------------------------

    def answered(self) -> None:
        """Waits for the answer to `ask`."""
        self._read_until(lambda: self._asked is None)

    def wait(self, outstanding: int) -> None:
        """Waits until at most `outstanding` pushes are not acknowledged."""
        self._read_until(lambda: self._pushes <= outstanding)

    def settle(self) -> None:
        """Waits until nothing is kept: every push applied, every marked epoch closed."""
        self._read_until(lambda: not self._kept)

    @property
    def outstanding(self) -> int:
        """Pushes not acknowledged, as far as answers were read."""
        return self._pushes

    def _read_until(self, done: Callable[[], bool]) -> None:
        while True:
            with self._state:
                if done():
                    return
                self._check()
            if self._reading.acquire(blocking=False):
                try:
                    with self._state:
                        if done():
                            return
                    self._read_one()
                finally:
                    self._reading.release()
                    with self._state:
                        self._state.notify_all()
            else:
                with self._state:
                    if not done() and self._reading.locked():
                        self._state.wait(0.05)

    def _read_one(self) -> None:
        generation, sock = self._generation, self._sock
        try:
            header = self._inbox.header(sock, BODY_LIMIT)
            body = self._inbox.body(sock, header.length)
        except TimeoutError:
            raise self._fail(ShardLost(self.shard, self.address, f"no answer in {self._patience.answer:g} s")) from None
        except OSError as error:
            self._mend(generation, sock, error)
            return
        except FrameError as error:
            raise self._fail(error) from error
        self._receive(header.kind, body)

    def _receive(self, kind: Kind, body: messages.Body) -> None:
        if kind is Kind.ACK:
            self._done(Kind.PUSH, messages.parse_number(body, "ACK"))
        elif kind is Kind.MARKED:
            self._done(Kind.MARK, messages.parse_marked(body)[0])
        elif kind is Kind.ROWS:
            request, rows, dense = messages.parse_rows(body)
            with self._state:
                if self._asked is None or self._asked[0] != request or self._deliver is None:
                    return
                deliver = self._deliver
            deliver(rows, dense)
            with self._state:
                self._asked = self._deliver = None
        elif kind is Kind.REFUSED:
            raise self._fail(WireRefused(f"shard {self.shard}: {messages.parse_reason(body)}"))
        else:
            raise self._fail(FrameError(f"shard {self.shard} sent a {kind.name} frame to a worker"))

    def _done(self, kind: Kind, number: int) -> None:
        with self._state:
            if not self._kept or self._kept[0].kind is not kind or self._kept[0].number != number:
                raise self._fail(FrameError(f"shard {self.shard} acknowledged {kind.name} {number} out of turn"))
            self._kept.popleft()
            if kind is Kind.PUSH:
                self._pushes -= 1

    # -- connecting -----------------------------------------------------------------------------------------------

    def _mend(self, generation: int, broken: socket.socket, cause: OSError) -> None:
        """Reconnects, unless someone else did, and sends again all that is kept and the pull that waits."""
        _hang_up(broken)  # whoever else uses it wakes up
        with self._sending:
            self._check()
            deadline = time.monotonic() + self._patience.reconnect
            while generation == self._generation:
                try:
                    sock = self._connect_within(deadline - time.monotonic(), cause)
                except WireError as error:
                    raise self._fail(error) from cause
                self.reconnects += 1
                try:
                    with self._state:
                        again, asked = list(self._kept), self._asked
                    for kept in again:
                        send_frame(sock, kept.kind, kept.parts)
                    if asked is not None:
                        send_frame(sock, Kind.PULL, asked[1])
                except OSError as error:
                    cause = error
                    sock.close()
                    continue
                old, self._sock = self._sock, sock
                self._generation += 1
                old.close()

    def _connect_within(self, seconds: float, cause: Exception | None = None) -> socket.socket:
        deadline = time.monotonic() + seconds
        pause = self._patience.backoff
        while True:
            if self._closed:
                raise ShardLost(self.shard, self.address, "the pool is closed")
            try:
                return self._connect()
            except OSError as error:
                cause = error
            except FrameError as error:
                raise WireRefused(f"shard {self.shard}: {error}") from error
            if time.monotonic() + pause > deadline:
                raise ShardLost(self.shard, self.address, f"no connection within {seconds:.1f} s: {cause}") from cause
            time.sleep(pause)
            pause = min(2 * pause, 1.0)

    def _connect(self) -> socket.socket:
        sock = socket.create_connection(self.address, self._patience.connect)
        try:
            tune(sock)
            send_frame(sock, Kind.HELLO, messages.pack_hello(self._hello))
            inbox = Inbox()
            header = inbox.header(sock, 1 << 16)
            body = inbox.body(sock, header.length)
            if header.kind is Kind.REFUSED:
                raise WireRefused(f"shard {self.shard}: {messages.parse_reason(body)}")
            if header.kind is not Kind.WELCOME:
                raise FrameError(f"the answer to HELLO is {header.kind.name}")
            # A receive timeout of the kernel, not of Python: a blocking socket needs one call per read instead of two.
            sock.settimeout(None)
            whole, rest = divmod(self._patience.answer, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", int(whole), int(rest * 1e6)))
            return sock
        except BaseException:
            sock.close()
            raise

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _fail(self, error: WireError) -> WireError:
        with self._state:
            if self._failure is None:
                self._failure = error
            self._state.notify_all()
        _hang_up(self._sock)
        return self._failure

    def close(self) -> None:
        """Hangs up; what is not acknowledged may or may not have been applied."""
        self._closed = True
        self._fail(ShardLost(self.shard, self.address, "the pool is closed"))
        self._sock.close()


def _hang_up(sock: socket.socket) -> None:
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # not connected any more
