"""Thousands of mutated frames on both ways: a shard answers, refuses or hangs up, stays small, and goes on."""

import os
import socket
import struct
import threading

import numpy as np
import pytest

from kuberec_api.training import RowType
from kuberec_runtime.wire import Shard, ShardPool, Terms, WireError, messages
from kuberec_runtime.wire.channel import Channel
from kuberec_runtime.wire.dial import dial
from kuberec_runtime.wire.frames import BODY_LIMIT, SHARED, Kind, pack_header
from kuberec_runtime.wire.messages import Fetch, Hello, Placed
from kuberec_runtime.wire.segment import Memory
from tests.component.test_shard_network import QUICK, eventually, resident_bytes
from tests.unit.wire.shards import DIGEST, TOKEN, config

SEED = int(os.environ.get("WIRE_FUZZ_SEED", "20"))
FRAMES = int(os.environ.get("WIRE_FUZZ_FRAMES", "3000"))
EXTREMES = [0, 1, 2, 63, 64, 255, 2**15, 2**16, 2**30, 2**31, 2**32 - 1, 2**40, 2**61, 2**62, 2**63, 2**64 - 1]
FULL = RowType.FLOAT32


def hello(worker: int, incarnation: int, share: bool) -> Hello:
    return Hello(0, 1, worker, incarnation, DIGEST, TOKEN, FULL, share)


def example(rng: np.random.Generator, sequence: int, memory: Memory | None) -> tuple[Kind, np.ndarray]:
    """A frame as a worker would send it; keys and positions of a fetch are mutated where they lie."""
    keys = {2: rng.integers(0, 500, int(rng.integers(0, 40))), 3: rng.integers(0, 500, 3)}
    counts = {width: array.size for width, array in keys.items()}
    which = int(rng.integers(4 if memory is not None else 3))
    if which == 0:
        return Kind.PULL, np.frombuffer(b"".join(bytes(p) for p in messages.pack_pull(sequence, keys)), np.uint8)
    if which == 3 and memory is not None:
        return Kind.FETCH, np.frombuffer(messages.pack_fetch(placed(rng, sequence, keys, memory)), np.uint8)
    if which == 1:
        body = np.empty(messages.push_size(counts, 2, 4, FULL), np.uint8)
        places = messages.write_push(body, sequence, 5, keys, {0: 1, 7: 2}, np.zeros(4, np.float32), FULL)
        for place in places.values():
            place[:] = 0
        return Kind.PUSH, body
    return Kind(int(rng.choice([k.value for k in Kind]))), rng.integers(0, 256, int(rng.integers(0, 64))).astype(
        np.uint8
    )


def placed(rng: np.random.Generator, request: int, keys: dict[int, np.ndarray], memory: Memory) -> Fetch:
    """A fetch, half of them with positions, and with one of four wrong keys or positions where they lie."""
    blocks = []
    for number, (width, array) in enumerate(keys.items()):
        start, n = (1 + number) << 14, array.size
        memory.arena.segment.span(start, 8 * n).view(np.int64)[:] = array
        order = memory.arena.segment.span(start + 4096, 4 * n).view(np.int32)
        order[:] = rng.permutation(n)
        if n and rng.integers(4) == 0:
            order[int(rng.integers(n))] = int(rng.choice([-1, n, 2**31 - 1, -(2**31)]))
        in_order = bool(rng.integers(2))
        blocks.append(Placed(width, n, start, 0 if in_order else start + 4096, start + 8192, n))
    return Fetch(request, 0, int(rng.integers(0, 5)), tuple(blocks))


def mutate(rng: np.random.Generator, raw: bytearray) -> bytearray:
    """Flipped bits, extreme numbers, cuts and repetitions."""
    for _ in range(int(rng.integers(0, 4))):
        if not raw:
            break
        at = int(rng.integers(len(raw)))
        what = int(rng.integers(4))
        if what == 0:
            raw[at] ^= 1 << int(rng.integers(8))
        elif what == 1:
            start = at // 4 * 4
            raw[start : start + 8] = struct.pack("<Q", EXTREMES[int(rng.integers(len(EXTREMES)))])
        elif what == 2:
            del raw[at : at + int(rng.integers(1, 20))]
        else:
            raw[at:at] = raw[at : at + int(rng.integers(1, 20))]
    return raw


def poke(channel: Channel, raw: bytes) -> None:
    """Sends bytes and reads whatever comes until the shard hangs up or has nothing to say."""
    sock = channel.sock
    sock.settimeout(1)
    try:
        sock.sendall(raw)
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(1 << 16):
            pass
    except ConnectionError:
        pass
    except TimeoutError:
        pass  # by chance a MARK: it waits for its cut until the next incarnation takes this one's place
    finally:
        channel.close()


@pytest.mark.parametrize("share", [False, True], ids=["tcp", "shared"])
def test_mutated_frames_never_hurt_a_shard(share: bool) -> None:
    """A connection that is left at the end would be a thread that hangs, a refused push a shard that broke."""
    shard = Shard(config(0, 1, workers=2, dense_size=4, widths=(2, 3)))
    memory = Memory(1 << 20) if share else None
    address = shard.listen()
    rng = np.random.default_rng([SEED, share])
    good = ShardPool.connect([address], TOKEN, DIGEST, 1, 0, QUICK, Terms(share=share))
    before = resident_bytes()
    for number in range(FRAMES):
        channel = dial(address, hello(0, number, share), 5, 20, checked=False, memory=memory).channel
        assert (channel.arena is not None) == share
        kind, body = example(rng, number, memory)
        if memory is not None and kind is not Kind.FETCH:
            # The body is mutated where it lies; its place and length go through the socket, and are mutated there.
            segment = memory.arena.segment
            place = int(rng.integers(0, segment.size // 64 - body.size // 64 - 1))
            changed = np.frombuffer(bytes(mutate(rng, bytearray(body))), np.uint8)[: segment.size - place * 64]
            segment.part(place, changed.size)[:] = changed
            raw = bytes(mutate(rng, bytearray(pack_header(kind, body.size, SHARED, place))))
        else:
            raw = bytes(mutate(rng, bytearray(pack_header(kind, body.size) + body.tobytes())))
        poke(channel, raw)
        if number % 200 == 0:
            assert (good.pull({2: np.arange(10)}).rows[2].shape) == (10, 2)
            assert resident_bytes() - before < 100 << 20
    dial(address, hello(0, FRAMES, share), 5, 20, checked=False).channel.close()
    eventually(lambda: shard.report().connections == 1)
    good.push(0, {2: np.arange(10)}, {2: np.ones((10, 2), np.float32)}, np.zeros(0, np.float32), {0: 1})
    good.wait(0)
    report = shard.report()
    assert report.refused > FRAMES // 20 and report.pulls > FRAMES // 20 and report.pushes > 0
    assert report.rows[2] < 100_000 and report.damaged == 0
    good.close()
    shard.close()


def test_a_length_alone_costs_no_memory() -> None:
    shard = Shard(config(0, 1, dense_size=4))
    address = shard.listen()
    before = resident_bytes()
    held = [dial(address, hello(0, i, False), 5, 20, checked=False).channel for i in range(5)]
    for channel in held:
        try:
            channel.sock.sendall(pack_header(Kind.PUSH, BODY_LIMIT) + b"x" * 1000)
        except ConnectionError:
            pass  # a later incarnation took its place
    eventually(lambda: shard.report().connections == 1)
    assert resident_bytes() - before < 40 << 20
    for channel in held:
        channel.close()
    shard.close()


def test_positions_that_change_while_rows_are_placed_lead_nowhere_else() -> None:
    """Rows may land anywhere among those of the fetch, and not one float beside them."""
    shard = Shard(config(0, 1, dense_size=0))
    memory, n = Memory(1 << 20), 2000
    segment = memory.arena.segment
    keys, order = segment.span(0, 8 * n).view(np.int64), segment.span(1 << 16, 4 * n).view(np.int32)
    around = segment.span(1 << 18, 3 * 8 * n).view(np.float32)
    fetch = Fetch(1, 0, 0, (Placed(2, n, 0, 1 << 16, (1 << 18) + 8 * n, n),))
    address = shard.listen()
    over = threading.Event()

    def scribble() -> None:
        rng = np.random.default_rng(SEED)
        while not over.is_set():
            order[int(rng.integers(n))] = int(rng.choice([-1, n, -n, 2 * n - 1, 2**31 - 1, -(2**31), 5]))
            keys[int(rng.integers(n))] = int(rng.choice([-1, 2**62, 77]))

    scribbler = threading.Thread(target=scribble)
    scribbler.start()
    answered = 0
    try:
        for incarnation in range(400):
            keys[:], order[:], around[:] = np.arange(n), np.arange(n), 7
            channel = dial(address, hello(0, incarnation, True), 5, 20, checked=False, memory=memory).channel
            keys[:], order[:] = np.arange(n), np.arange(n)
            try:
                channel.send(Kind.FETCH, [messages.pack_fetch(fetch)])
                answered += channel.receive(1 << 16).kind is Kind.ROWS
            except ConnectionError:
                pass
            finally:
                channel.close()
            eventually(lambda: shard.report().connections == 0)
            assert (around[: 2 * n] == 7).all() and (around[4 * n :] == 7).all()
    finally:
        over.set()
        scribbler.join()
    assert shard.report().refused > 0
    pool = ShardPool.connect([address], TOKEN, DIGEST, 0, 400, QUICK)
    assert pool.pull({2: np.arange(n)}).rows[2].shape == (n, 2)
    pool.close()
    shard.close()


def test_memory_that_changes_while_it_is_read_never_hurts_a_shard() -> None:
    """What a shard checks is a copy: keys that change after the check must not lead out of its tables."""
    shard = Shard(config(0, 1, dense_size=0))
    memory = Memory(1 << 20)
    address = shard.listen()
    over = threading.Event()
    answered = incarnation = 0
    keys = {2: np.arange(2000)}
    size = messages.push_size({2: 2000}, 1, 0, FULL)
    body = np.empty(size, np.uint8)
    messages.write_push(body, 0, 0, keys, {0: 1}, np.zeros(0, np.float32), FULL)[2][:] = 0
    target: list[np.ndarray] = [np.zeros(size, np.uint8)]

    def scribble() -> None:
        rng = np.random.default_rng(SEED)
        while not over.is_set():
            at = int(rng.integers(0, size // 8)) * 8
            target[0][at : at + 8].view(np.int64)[0] = int(rng.choice([-1, 2**62, 2**31, -(2**63), 77]))

    scribbler = threading.Thread(target=scribble)
    scribbler.start()
    try:
        for round_ in range(400):
            channel = dial(address, hello(0, incarnation, True), 5, 20, checked=False, memory=memory).channel
            incarnation += 1
            target[0] = memory.arena.segment.part(0, size)
            try:
                for sequence in range(20):
                    target[0][:] = body
                    target[0][:8].view(np.int64)[0] = round_ * 100 + sequence
                    channel.send_place(Kind.PUSH, 0, target[0])
                    if channel.receive(1 << 16).kind is Kind.REFUSED:
                        break
                    answered += 1
            except (WireError, ConnectionError):
                pass
            finally:
                channel.close()
    finally:
        over.set()
        scribbler.join()
    pool = ShardPool.connect([address], TOKEN, DIGEST, 0, incarnation, QUICK)
    assert pool.pull(keys).rows[2].shape == (2000, 2)
    report = shard.report()
    assert answered > 0 and report.refused > 0
    pool.close()
    shard.close()
