"""Frames over a socket pair: what is sent is what is received, and with checksums a changed bit is noticed."""

import socket
import threading
import zlib
from collections.abc import Iterator

import numpy as np
import pytest

from kuberec_runtime.wire.channel import Channel
from kuberec_runtime.wire.errors import FrameDamaged, FrameError
from kuberec_runtime.wire.frames import CHECKED, HEADER, SUMS, Kind, checksum, pack_header
from kuberec_runtime.wire.segment import Arena, create

BODY = bytes(range(256)) * 3


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    left, right = socket.socketpair()
    right.settimeout(5)
    yield left, right
    left.close()
    right.close()


def recorded(pair: tuple[socket.socket, socket.socket], kind: Kind = Kind.PUSH) -> bytes:
    Channel(pair[0], checked=True).send(kind, [BODY[:100], BODY[100:]])
    return pair[1].recv(1 << 16)


@pytest.mark.parametrize("checked", [False, True])
def test_a_frame_arrives_as_it_was_sent(pair: tuple[socket.socket, socket.socket], checked: bool) -> None:
    Channel(pair[0], checked).send(Kind.PUSH, [BODY[:100], b"", BODY[100:]])
    frame = Channel(pair[1], checked).receive(1 << 16)
    assert (frame.kind, frame.body.tobytes(), frame.shared) == (Kind.PUSH, BODY, False)


@pytest.mark.parametrize("checked", [False, True])
def test_frames_of_all_sizes_that_come_at_once_or_byte_by_byte_stay_apart(
    pair: tuple[socket.socket, socket.socket], checked: bool
) -> None:
    sizes = [0, 8, 983, 984, 985, 999, 1000, 1008, 1024, 1, 2048, 0, 5000, 3]
    bodies = [np.random.default_rng(size).bytes(size) for size in sizes]
    near, far = Channel(pair[0], checked), Channel(pair[1], checked)
    for body in bodies:
        near.send(Kind.PUSH, [body[:3], body[3:]])
    raw = pair[1].recv(1 << 20, socket.MSG_PEEK)
    assert [far.receive(1 << 16).body.tobytes() for _ in bodies] == bodies

    def trickle() -> None:
        for at in range(len(raw)):
            pair[0].sendall(raw[at : at + 1])

    sender = threading.Thread(target=trickle)
    sender.start()
    assert [far.receive(1 << 16).body.tobytes() for _ in bodies] == bodies
    sender.join()


def test_the_sums_are_those_of_zlib() -> None:
    head = pack_header(Kind.PUSH, len(BODY), CHECKED)
    assert SUMS.unpack(checksum(head, [BODY[:7], BODY[7:]])) == (zlib.crc32(head), zlib.crc32(BODY))


def test_any_flipped_bit_of_header_sums_and_body_is_noticed(pair: tuple[socket.socket, socket.socket]) -> None:
    raw = recorded(pair)
    rng = np.random.default_rng(0)
    head = (HEADER.size + SUMS.size) * 8
    for bit in [*range(head), *rng.integers(head, len(raw) * 8, 200).tolist()]:
        damaged = bytearray(raw)
        damaged[bit // 8] ^= 1 << bit % 8
        left, right = socket.socketpair()
        with left, right:
            left.sendall(damaged)
            left.shutdown(socket.SHUT_WR)
            with pytest.raises(FrameDamaged):
                Channel(right, checked=True).receive(1 << 16)


def test_the_first_frame_tells_whether_a_connection_is_checked(pair: tuple[socket.socket, socket.socket]) -> None:
    pair[0].sendall(recorded(pair, Kind.HELLO))
    channel = Channel(pair[1], checked=None)
    assert channel.receive(1 << 16).kind is Kind.HELLO and channel.checked is True
    Channel(pair[0], checked=False).send(Kind.PULL, [BODY])
    with pytest.raises(FrameDamaged, match="without the checksum"):
        channel.receive(1 << 16)


def test_a_checksum_that_nobody_agreed_on_is_refused(pair: tuple[socket.socket, socket.socket]) -> None:
    pair[0].sendall(recorded(pair))
    with pytest.raises(FrameError, match="not agreed"):
        Channel(pair[1], checked=False).receive(1 << 16)


@pytest.mark.parametrize("checked", [False, True])
def test_a_body_in_shared_memory_is_read_where_it_lies(
    pair: tuple[socket.socket, socket.socket], checked: bool
) -> None:
    _, segment = create(1 << 16)
    near, far = Channel(pair[0], checked, segment), Channel(pair[1], checked, segment)
    near.arena = Arena(segment)
    near.arena.take(500)
    region = near.arena.take(len(BODY))
    assert region is not None
    region.bytes[:] = np.frombuffer(BODY, np.uint8)
    near.send_region(Kind.PUSH, region)
    frame = far.receive(1 << 16)
    assert (frame.body.tobytes(), frame.shared) == (BODY, True)
    assert np.shares_memory(frame.body, segment.bytes)
    near.send_region(Kind.PUSH, region)
    region.bytes[5] ^= 1
    if checked:
        with pytest.raises(FrameDamaged):
            far.receive(1 << 16)


def test_a_region_of_another_connection_goes_through_the_stream(pair: tuple[socket.socket, socket.socket]) -> None:
    _, old = create(1 << 16)
    _, new = create(1 << 16)
    region = Arena(old).take(100)
    assert region is not None
    region.bytes[:] = 9
    near = Channel(pair[0], False, new)
    near.arena = Arena(new)
    near.send_region(Kind.PUSH, region)
    frame = Channel(pair[1], False, new).receive(1 << 16)
    assert not frame.shared and frame.body.tobytes() == bytes([9]) * 100


def test_shared_bodies_need_shared_memory(pair: tuple[socket.socket, socket.socket]) -> None:
    _, segment = create(1 << 16)
    Channel(pair[0], False, segment).send_place(Kind.PUSH, 0, segment.part(0, 64))
    with pytest.raises(FrameError, match="this connection has none"):
        Channel(pair[1], False).receive(1 << 16)
