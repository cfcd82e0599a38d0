"""One worker's connection to one shard: sends in order, keeps what is not acknowledged, and mends itself.

Invariants:
- Whatever changes the shard (pushes, marks) is kept, in order, until the shard says that it is done; after a
  reconnection all of it is sent again before anything new. The shard drops what it had applied: each applies once.
- There is no reader thread: whoever waits for an answer reads, one at a time, and hands out what it finds.
- Reconnecting holds the send lock, so nothing overtakes what is sent again. It is sent again through the stream.
- Bytes under way are bounded: who would push more waits for acknowledgements first.
"""

import logging
import math
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from kuberec_api.training import RowType
from kuberec_runtime.wire import messages
from kuberec_runtime.wire.channel import Channel
from kuberec_runtime.wire.dial import Dialled, dial
from kuberec_runtime.wire.errors import FrameDamaged, FrameError, ShardLost, WireError, WireRefused
from kuberec_runtime.wire.frames import BODY_LIMIT, Header, Kind
from kuberec_runtime.wire.messages import Hello
from kuberec_runtime.wire.segment import SEGMENT_BYTES, Memory, Region
from kuberec_runtime.wire.share import PIECE, Share

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Patience:
    """How long a worker tries, all in seconds.

    Attributes:
        connect: for one attempt to connect and shake hands.
        reconnect: for all attempts to reach a shard again, and to get one answer of it, before it counts as lost.
        answer: for an answer on a connection that stands; must exceed the time a cut may take.
        backoff: before the second attempt; doubles up to one second, and half of each pause is drawn by chance, so
            that workers which lost a shard together do not come back together.
    """

    connect: float = 5.0
    reconnect: float = 10.0
    answer: float = 120.0
    backoff: float = 0.02


@dataclass(frozen=True)
class Terms:
    """What a worker asks of its connections.

    Attributes:
        values: type of rows and gradients on the wire.
        share: use shared memory with shards that are within reach of it.
        checked: a CRC-32 on every frame.
        under_way: bytes that may be sent and not acknowledged, by shard; a single push may be larger.
        segment: address space of the shared memory, bytes; only what was used is memory.
    """

    values: RowType = RowType.FLOAT32
    share: bool = True
    checked: bool = False
    under_way: int = 128 << 20
    segment: int = SEGMENT_BYTES


@dataclass(frozen=True)
class _Kept:
    kind: Kind
    number: int
    body: Region


class Link:
    """Connection of a worker to the shard that `hello` names. Methods may be called from several threads."""

    def __init__(
        self,
        address: tuple[str, int],
        hello: Hello,
        patience: Patience,
        terms: Terms | None = None,
        memory: Memory | None = None,
    ) -> None:
        self.address = address
        self.shard = hello.shard
        self.terms = terms or Terms()
        self._hello = hello
        self._patience = patience
        self._sending = threading.RLock()
        self._reading = threading.Lock()
        self._state = threading.Condition()
        self._kept: deque[_Kept] = deque()
        self._pushes = 0
        self._under_way = 0
        self._asked: Share | None = None
        self._memory = memory
        self._scratch = np.empty(PIECE, np.uint8)
        self._generation = 0
        self._failure: WireError | None = None
        self._breaks = 0
        self._trouble = self._mended = -math.inf
        self._closed = False
        self.reconnects = 0
        self._channel = self._connect_by(time.monotonic() + patience.reconnect)

    @property
    def way(self) -> str:
        """How rows travel now: "shared memory", "unix socket" or "tcp"."""
        channel = self._channel
        if channel.arena is not None:
            return "shared memory"
        return "unix socket" if channel.sock.family.name == "AF_UNIX" else "tcp"

    @property
    def shares(self) -> bool:
        """Whether the shard maps this worker's memory now."""
        return self._channel.arena is not None

    # -- sending --------------------------------------------------------------------------------------------------

    def outbox(self, size: int) -> Region:
        """Memory for the body of one push, to be filled and handed to `push`; waits while too much is under way."""
        self._read_until(lambda: not self._kept or self._under_way + size <= self.terms.under_way)
        return self._region(size)

    def _region(self, size: int) -> Region:
        if size > BODY_LIMIT:
            raise FrameError(f"a body of {size} bytes for shard {self.shard} exceeds the limit of {BODY_LIMIT}")
        arena = self._channel.arena
        region = arena.take(size) if arena is not None else None
        return region or Region(np.empty(size, np.uint8))

    def push(self, sequence: int, body: Region) -> None:
        """Sends a push and keeps it until it is acknowledged; its memory belongs to the link from here on."""
        with self._state:
            self._pushes += 1
        self._keep_and_send(_Kept(Kind.PUSH, sequence, body))

    def mark(self, epoch: int) -> None:
        """Sends MARK(epoch) and keeps it until the shard says that the epoch is closed."""
        body = np.frombuffer(messages.pack_number(epoch)[0], np.uint8)
        self._keep_and_send(_Kept(Kind.MARK, epoch, Region(body)))

    def _keep_and_send(self, kept: _Kept) -> None:
        with self._sending:
            self._check()
            with self._state:
                self._kept.append(kept)
                self._under_way += kept.body.bytes.size
            self._send(kept.kind, kept.body)

    def ask(self, share: Share) -> None:
        """Sends a pull; `answered` waits for its answer."""
        with self._sending:
            self._check()
            with self._state:
                self._asked = share
            channel = self._channel
            try:
                share.ask(channel)
            except OSError as error:
                self._mend(self._generation, channel, error)

    def _send(self, kind: Kind, body: Region) -> None:
        channel = self._channel
        try:
            channel.send_region(kind, body)
        except OSError as error:
            self._mend(self._generation, channel, error)

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
        generation, channel = self._generation, self._channel
        try:
            header = channel.header(BODY_LIMIT)
            self._receive(channel, header)
            self._breaks = 0
        except TimeoutError:
            raise self._fail(ShardLost(self.shard, self.address, f"no answer in {self._patience.answer:g} s")) from None
        except (OSError, FrameDamaged) as error:
            self._mend(generation, channel, error)
        except FrameError as error:
            raise self._fail(error) from error

    def _receive(self, channel: Channel, header: Header) -> None:
        kind = header.kind
        if kind is Kind.ROWS:
            with self._state:
                asked = self._asked
            if asked is None:
                channel.body(header)  # of a pull that was given up
            elif asked.receive(channel, header, self._scratch):
                with self._state:
                    self._asked = None
            return
        body = channel.body(header).body
        if kind is Kind.ACK:
            self._done(Kind.PUSH, messages.parse_number(body, "ACK"))
        elif kind is Kind.MARKED:
            self._done(Kind.MARK, messages.parse_marked(body)[0])
        elif kind is Kind.REFUSED:
            raise self._fail(WireRefused(f"shard {self.shard}: {messages.parse_reason(body)}"))
        else:
            raise self._fail(FrameError(f"shard {self.shard} sent a {kind.name} frame to a worker"))

    def _done(self, kind: Kind, number: int) -> None:
        with self._state:
            if not self._kept or self._kept[0].kind is not kind or self._kept[0].number != number:
                raise self._fail(FrameError(f"shard {self.shard} acknowledged {kind.name} {number} out of turn"))
            done = self._kept.popleft()
            self._under_way -= done.body.bytes.size
            if kind is Kind.PUSH:
                self._pushes -= 1
        done.body.free()

    # -- connecting -----------------------------------------------------------------------------------------------

    def _mend(self, generation: int, broken: Channel, cause: Exception) -> None:
        """Reconnects, unless someone else did, and sends again all that is kept and the pull that waits."""
        broken.hang_up()  # whoever else uses it wakes up
        with self._sending:
            self._check()
            if generation != self._generation:
                return
            # A shard must not only be reached in time but also answer, or a way that breaks every frame would be tried
            # for ever.
            now = time.monotonic()
            if not self._breaks or now - self._mended > self._patience.reconnect:
                self._breaks, self._trouble = 0, now
            deadline = self._trouble + self._patience.reconnect
            if self._breaks:
                pause = self._pause(self._breaks)
                if now + pause > deadline:
                    reason = f"{self._breaks} connections in a row broke before an answer came: {cause}"
                    raise self._fail(ShardLost(self.shard, self.address, reason)) from cause
                time.sleep(pause)
            self._breaks += 1
            while generation == self._generation:
                try:
                    channel = self._connect_by(deadline, cause)
                except WireError as error:
                    raise self._fail(error) from cause
                self.reconnects += 1
                try:
                    self._send_again(channel)
                except OSError as error:
                    cause = error
                    channel.close()
                    continue
                old, self._channel = self._channel, channel
                self._generation += 1
                self._mended = time.monotonic()
                old.close()

    def _send_again(self, channel: Channel) -> None:
        with self._state:
            again, asked = list(self._kept), self._asked
        for kept in again:
            channel.send(kept.kind, [kept.body.bytes.data])
        if asked is not None:
            asked.ask(channel)

    def _connect_by(self, deadline: float, cause: Exception | None = None) -> Channel:
        tries, began = 0, time.monotonic()
        while True:
            if self._closed:
                raise ShardLost(self.shard, self.address, "the pool is closed")
            try:
                dialled = dial(
                    self.address,
                    self._hello,
                    self._patience.connect,
                    self._patience.answer,
                    self.terms.checked,
                    self._memory,
                )
                self._tell(dialled)
                return dialled.channel
            except (OSError, FrameDamaged) as error:
                cause = error
            except FrameError as error:
                raise WireRefused(f"shard {self.shard}: {error}") from error
            tries += 1
            wait = self._pause(tries)
            if time.monotonic() + wait > deadline:
                reason = f"no connection within {max(deadline - began, 0):.1f} s: {cause}"
                raise ShardLost(self.shard, self.address, reason) from cause
            time.sleep(wait)

    def _pause(self, tries: int) -> float:
        longest = min(self._patience.backoff * 2 ** min(tries - 1, 30), 1.0)
        return longest * (0.5 + 0.5 * random.random())

    def _tell(self, dialled: Dialled) -> None:
        place = f"shard {self.shard} at {self.address[0]}:{self.address[1]}"
        if dialled.channel.arena is not None:
            log.info("%s: rows travel through shared memory", place)
        elif self._hello.share:
            log.info("%s: rows travel through a socket: %s", place, dialled.reason)

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _fail(self, error: WireError) -> WireError:
        with self._state:
            if self._failure is None:
                self._failure = error
            self._state.notify_all()
        self._channel.hang_up()
        return self._failure

    def close(self) -> None:
        """Hangs up; what is not acknowledged may or may not have been applied."""
        self._closed = True
        self._fail(ShardLost(self.shard, self.address, "the pool is closed"))
        self._channel.close()
        self._memory = None
