"""A shard on the network: its listeners, one thread per connection, and the methods that the driver calls.

A thread per connection is enough: receiving, kernels and sending all run without the GIL, and the order of one
connection is then the order of one thread, on which the exact cut rests. While a connection stands at the barrier its
thread reads nothing, so TCP holds the worker back by itself.
"""

import hmac
import logging
import socket
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from kuberec_api.training import RowType
from kuberec_runtime.spans import span
from kuberec_runtime.table import DenseState, Rows, TableError
from kuberec_runtime.table.buckets import I64
from kuberec_runtime.table.initial import F32
from kuberec_runtime.table.table import Consumer
from kuberec_runtime.wire import messages
from kuberec_runtime.wire.answers import Answers
from kuberec_runtime.wire.channel import Channel
from kuberec_runtime.wire.errors import FrameDamaged, FrameError, WireRefused
from kuberec_runtime.wire.frames import BODY_LIMIT, HELLO_LIMIT, Kind, tune
from kuberec_runtime.wire.segment import SEGMENT_BYTES, door_name, take_over
from kuberec_runtime.wire.shardconfig import Cut, DedupeMark, ShardConfig
from kuberec_runtime.wire.shardstate import Session, ShardState, Superseded

log = logging.getLogger(__name__)

HELLO_TIMEOUT_S = 10.0
MOST_STRANGERS = 64
"""Connections that have not shown the token yet; more are closed at once."""


@dataclass(frozen=True)
class ShardReport:
    """Figures of a shard.

    Attributes:
        index: number of the shard.
        rows: by width.
        memory_bytes: of tables and index, by width.
        dirty: rows that the next checkpoint and the next publication would copy, by consumer.
        pushes: applied.
        duplicates: pushes that had been applied before and were dropped.
        pulls: answered.
        cuts: taken.
        aborted: epochs aborted.
        refused: peers turned away, or closed for bytes that made no sense.
        damaged: connections closed as a checksum did not match.
        connections: open now.
        applied: samples by partition.
    """

    index: int
    rows: dict[int, int]
    memory_bytes: dict[int, int]
    dirty: dict[str, int]
    pushes: int
    duplicates: int
    pulls: int
    cuts: int
    aborted: int
    refused: int
    damaged: int
    connections: int
    applied: dict[int, int] = field(default_factory=dict)


class Shard:
    """One parameter-server process' share of the model. Methods may be called from any thread."""

    def __init__(self, config: ShardConfig, segment_bytes: int = SEGMENT_BYTES) -> None:
        """Makes the tables.

        Args:
            config: what this shard is.
            segment_bytes: largest memory that is mapped of a worker of this machine; 0 for none.
        """
        self.config = config
        self.state = ShardState(config)
        self._segment_bytes = segment_bytes
        self._listeners: list[socket.socket] = []
        self._open: set[socket.socket] = set()
        self._guard = threading.Lock()
        self._strangers = 0
        self._closed = False
        self._pulls = 0
        self._refused = self._damaged = 0

    # -- what the driver calls ------------------------------------------------------------------------------------

    def listen(self, host: str = "127.0.0.1", port: int = 0) -> tuple[str, int]:
        """Starts to serve; returns (host, port) as bound."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(128)
        bound = listener.getsockname()
        address = str(bound[0]), int(bound[1])
        self._serve_at(listener)
        if self._segment_bytes:
            try:
                self._serve_at(_door(self.config.token, address))
            except (OSError, AttributeError) as error:
                log.info("shard %d shares no memory: %s", self.config.index, error)
        return address

    def _serve_at(self, listener: socket.socket) -> None:
        self._listeners.append(listener)
        threading.Thread(target=self._accept, args=(listener,), name=f"shard{self.config.index}", daemon=True).start()

    def await_cut(self, epoch: int, consumer: Consumer, full: bool = False, timeout_s: float = 30.0) -> Cut:
        """See `ShardState.await_cut`."""
        return self.state.await_cut(epoch, consumer, full, timeout_s)

    def abort_cut(self, epoch: int) -> bool:
        """See `ShardState.abort_cut`."""
        return self.state.abort_cut(epoch)

    def redirty(self, consumer: Consumer, keys: Mapping[int, I64]) -> None:
        """See `ShardState.redirty`."""
        self.state.redirty(consumer, keys)

    def mark_all_dirty(self, consumer: Consumer) -> None:
        """See `ShardState.mark_all_dirty`."""
        self.state.mark_all_dirty(consumer)

    def restore(
        self,
        rows: Iterable[tuple[int, Rows]],
        dense: DenseState | None,
        applied: Mapping[int, int],
        dedupe: Mapping[int, DedupeMark] | None = None,
        epoch: int = -1,
    ) -> int:
        """See `ShardState.restore`; open connections are closed."""
        taken = self.state.restore(rows, dense, applied, dedupe, epoch)
        self._hang_up()
        return taken

    def set_dense(self, initial: F32) -> None:
        """First dense weights: float32, this shard's slice."""
        self.state.dense.set(np.ascontiguousarray(initial, np.float32))

    @property
    def rows(self) -> int:
        """Rows of all tables; unlike `report` it looks at no row, so it may be asked often."""
        return sum(len(table) for table in self.state.tables.values())

    def report(self) -> ShardReport:
        """Figures as of now."""
        state = self.state
        with self._guard:
            connections = len(self._open)
        return ShardReport(
            index=self.config.index,
            rows={width: len(table) for width, table in state.tables.items()},
            memory_bytes={width: table.memory_bytes for width, table in state.tables.items()},
            dirty={
                "checkpoint": sum(table.dirty("checkpoint") for table in state.tables.values()),
                "publication": sum(table.dirty("publication") for table in state.tables.values()),
            },
            pushes=state.pushes,
            duplicates=state.duplicates,
            pulls=self._pulls,
            cuts=state.cuts,
            aborted=state.aborted,
            refused=self._refused,
            damaged=self._damaged,
            connections=connections,
            applied=state.applied(),
        )

    def close(self) -> None:
        """Stops serving; a waiting cut raises CutAborted."""
        self._closed = True
        self.state.close()
        for listener in self._listeners:
            _shut(listener)
        self._hang_up()

    # -- connections ----------------------------------------------------------------------------------------------

    def _hang_up(self) -> None:
        with self._guard:
            open_ = list(self._open)
        for sock in open_:
            _shut(sock, close=False)

    def _accept(self, listener: socket.socket) -> None:
        while not self._closed:
            try:
                sock, _ = listener.accept()
            except OSError:
                if self._closed:
                    return
                # Out of descriptors, most likely: connections that end will free some.
                time.sleep(0.05)
                continue
            with self._guard:
                crowded = self._strangers >= MOST_STRANGERS
                if not crowded:
                    self._strangers += 1
                    self._open.add(sock)
            if crowded:
                sock.close()
                continue
            threading.Thread(
                target=self._connection, args=(sock,), name=f"shard{self.config.index}-peer", daemon=True
            ).start()

    def _connection(self, sock: socket.socket) -> None:
        channel = Channel(sock, checked=None)
        try:
            try:
                session, values = self._welcome(channel)
            finally:
                with self._guard:
                    self._strangers -= 1
            self._serve(channel, session, values)
        except FrameDamaged:
            with self._guard:
                self._damaged += 1  # the worker notices that the connection is closed, and sends again
        except (FrameError, WireRefused, TableError) as error:
            with self._guard:
                self._refused += 1
            _refuse(channel, str(error))
        except (OSError, Superseded):
            pass  # the peer is gone or replaced; what it had not been acknowledged, it sends again
        finally:
            with self._guard:
                self._open.discard(sock)
            channel.close()

    def _welcome(self, channel: Channel) -> tuple[Session, RowType]:
        """Checks token, digest and topology, in this order: a stranger learns nothing but that the token is wrong."""
        sock = channel.sock
        tune(sock)
        sock.settimeout(HELLO_TIMEOUT_S)
        frame = channel.receive(HELLO_LIMIT)
        if frame.kind is not Kind.HELLO:
            raise FrameError(f"a connection begins with HELLO, not {frame.kind.name}")
        hello = messages.parse_hello(frame.body)
        c = self.config
        if not hmac.compare_digest(hello.token, c.token):
            raise WireRefused("the token is not this attempt's: the peer belongs to another attempt or training")
        if hello.digest != c.digest:
            raise WireRefused(
                f"shard {c.index} serves feature plan {c.digest[:12]}, the peer computes {hello.digest[:12]}: "
                f"both must be started from the same RecModel"
            )
        if (hello.shard, hello.shards) != (c.index, c.shards):
            raise WireRefused(
                f"this is shard {c.index} of {c.shards}, the peer looks for shard {hello.shard} of {hello.shards}"
            )
        session = self.state.enter(hello.worker, hello.incarnation, lambda: _shut(sock, close=False))
        self._greet(channel, hello.share)
        sock.settimeout(None)
        return session, hello.values

    def _greet(self, channel: Channel, share: bool) -> None:
        """Sends WELCOME, and maps the worker's memory if it came through the Unix socket and wants to share some."""
        share = share and channel.sock.family == socket.AF_UNIX
        channel.send(Kind.WELCOME, messages.pack_number(share))
        if not share:
            return
        try:
            channel.segment = take_over(channel.sock, self._segment_bytes)
        except OSError as error:
            log.info("shard %d shares no memory: %s", self.config.index, error)
        channel.send(Kind.WELCOME, messages.pack_number(channel.segment is not None))

    def _serve(self, channel: Channel, session: Session, values: RowType) -> None:
        answers = Answers(self.state, channel, session, values)
        while not session.closed:
            frame = channel.receive(BODY_LIMIT)
            if session.closed:
                return
            if frame.shared and frame.kind is not Kind.PUSH:
                raise FrameError(f"a {frame.kind.name} body in shared memory, where it could change")
            if frame.kind is Kind.PULL:
                with span("pull"):
                    answers.pull(messages.parse_pull(frame.body))
                self._pulls += 1
            elif frame.kind is Kind.FETCH:
                with span("pull"):
                    answers.fetch(messages.parse_fetch(frame.body))
                self._pulls += 1
            elif frame.kind is Kind.PUSH:
                push = messages.parse_push(frame.body, values, frame.shared)
                with span("push"):
                    self.state.push(session, push)
                channel.send(Kind.ACK, messages.pack_number(push.sequence))
            elif frame.kind is Kind.MARK:
                epoch = messages.parse_number(frame.body, "MARK")
                with span("wait: cut"):
                    taken = self.state.mark(session, epoch)
                channel.send(Kind.MARKED, messages.pack_marked(epoch, taken))
            else:
                raise FrameError(f"a shard takes no {frame.kind.name} frames")


def _door(token: bytes, address: tuple[str, int]) -> socket.socket:
    """The Unix socket through which workers of this machine come."""
    door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        door.bind(door_name(token, address))
        door.listen(128)
        return door
    except BaseException:
        door.close()
        raise


def _refuse(channel: Channel, reason: str) -> None:
    """Says why, then hangs up without cutting the answer off."""
    sock = channel.sock
    try:
        sock.settimeout(1.0)
        channel.send(Kind.REFUSED, messages.pack_reason(reason))
        sock.shutdown(socket.SHUT_WR)
        # Closing with unread bytes would reset the connection and destroy the reason on its way.
        deadline = time.monotonic() + 1.0
        while time.monotonic() < deadline and sock.recv(1 << 16):
            pass
    except OSError:
        pass  # the peer is gone and needs no reason


def _shut(sock: socket.socket, close: bool = True) -> None:
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # not connected any more
    if close:
        sock.close()
