"""A shard and its workers over real sockets: who is refused, what breaks, and that nothing is applied twice or lost."""

import socket
import struct
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from kuberec_runtime.table import shard_of
from kuberec_runtime.wire import CutTimeout, Patience, Shard, ShardLost, ShardPool, WireRefused
from kuberec_runtime.wire.frames import HEADER, MAGIC, VERSION, Inbox, Kind, pack_header, send_frame
from kuberec_runtime.wire.messages import Hello, pack_hello, parse_reason
from tests.component.breaking_proxies import BreakingProxy
from tests.unit.wire.shards import DIGEST, TOKEN, config

DENSE = 5
QUICK = Patience(connect=2, reconnect=5, answer=20)
NONE = np.empty(0, np.float32)


@pytest.fixture
def shards() -> Iterator[Callable[..., list[Shard]]]:
    started: list[Shard] = []

    def start(count: int = 2, workers: int = 1) -> list[Shard]:
        new = [Shard(config(i, count, workers=workers, dense_size=DENSE, widths=(2, 3))) for i in range(count)]
        started.extend(new)
        return new

    yield start
    for shard in started:
        shard.close()


def connect(addresses: list[tuple[str, int]], worker: int = 0, incarnation: int = 0, **kw: object) -> ShardPool:
    arguments = {"token": TOKEN, "digest": DIGEST, "patience": QUICK} | kw
    return ShardPool.connect(addresses, worker=worker, incarnation=incarnation, **arguments)  # type: ignore[arg-type]


def push_ones(pool: ShardPool, sequence: int, keys: dict[int, np.ndarray], partition: int = 0) -> None:
    grads = {width: np.ones((array.size, width), np.float32) for width, array in keys.items()}
    pool.push(sequence, keys, grads, np.ones(DENSE, np.float32), {partition: 1})


def eventually(what: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)


def test_rows_and_dense_weights_come_back_in_the_order_asked_for(shards: Callable[..., list[Shard]]) -> None:
    ours = shards(3)
    for shard, part in zip(ours, np.array_split(np.arange(DENSE, dtype=np.float32), 3), strict=True):
        shard.set_dense(part)
    pool = connect([shard.listen() for shard in ours])
    keys = {2: np.random.default_rng(0).permutation(1000), 3: np.array([7])}
    for sequence in range(4):
        push_ones(pool, sequence, {2: keys[2][keys[2] % 4 >= sequence], 3: keys[3]})
    pool.wait(0)
    pulled = pool.pull(keys)
    assert np.array_equal(-pulled.rows[2][:, 0], keys[2] % 4 + 1)
    assert pulled.rows[3].tolist() == [[-4] * 3]
    assert pulled.dense.tolist() == [-4, -3, -2, -1, 0]
    assert [shard.report().applied for shard in ours] == [{0: 4}] * 3
    pool.close()


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"token": b"x" * len(TOKEN)}, "token is not this attempt's"),
        ({"token": b""}, "token is not this attempt's"),
        ({"digest": "b" * 64}, "serves feature plan aaaaaaaaaaaa, the peer computes bbbbbbbbbbbb"),
        ({"worker": 9}, "workers 0 to 0, not 9"),
    ],
)
def test_a_peer_that_does_not_belong_here_is_told_why(
    shards: Callable[..., list[Shard]], changed: dict[str, object], reason: str
) -> None:
    addresses = [shard.listen() for shard in shards(1)]
    with pytest.raises(WireRefused, match=reason):
        connect(addresses, **changed)  # type: ignore[arg-type]
    connect(addresses).close()


def test_shards_in_the_wrong_order_are_noticed(shards: Callable[..., list[Shard]]) -> None:
    addresses = [shard.listen() for shard in shards(2)]
    with pytest.raises(WireRefused, match="this is shard 1 of 2, the peer looks for shard 0 of 2"):
        connect(addresses[::-1])


def test_another_wire_version_is_refused_with_a_reason(shards: Callable[..., list[Shard]]) -> None:
    (shard,) = shards(1)
    with socket.create_connection(shard.listen(), 5) as sock:
        sock.sendall(HEADER.pack(MAGIC, VERSION + 1, Kind.HELLO, 0, 10, 0) + b"0123456789")
        inbox = Inbox()
        header = inbox.header(sock, 4096)
        assert header.kind is Kind.REFUSED
        assert "wire version 4, this side 3" in parse_reason(inbox.body(sock, header.length))


def test_a_stale_incarnation_is_refused_even_while_connected(shards: Callable[..., list[Shard]]) -> None:
    addresses = [shard.listen() for shard in shards(2)]
    old = connect(addresses, incarnation=1)
    new = connect(addresses, incarnation=2)
    with pytest.raises(WireRefused, match="incarnation 1 of worker 0 is stale: 2"):
        old.pull({2: np.arange(3)})
    with pytest.raises(WireRefused, match="stale"):
        connect(addresses, incarnation=1)
    assert new.pull({2: np.arange(3)}).rows[2].shape == (3, 2)
    new.close()


def test_garbage_never_hurts_a_shard(shards: Callable[..., list[Shard]]) -> None:
    """Random bytes, huge lengths and wrong kinds, before and after the handshake; the shard goes on and stays small."""
    (shard,) = shards(1)
    address = shard.listen()
    rng = np.random.default_rng(0)
    hello = pack_hello(Hello(0, 1, 0, 1, DIGEST, TOKEN))
    attacks: list[tuple[bool, bytes]] = [
        (True, pack_header(Kind.PUSH, 2**29) + b"x" * 100),
        (True, pack_header(Kind.PUSH, 2**32 - 1)),
        (True, pack_header(Kind.HELLO, 8) + b"x" * 8),
        (True, pack_header(Kind.ROWS, 8) + b"x" * 8),
        (True, pack_header(Kind.PULL, 32) + struct.pack("<QIIQQ", 1, 1, 0, 2, 2**60)),
        (True, pack_header(Kind.PULL, 40) + struct.pack("<QIIQQq", 1, 1, 0, 2, 1, -4)),
        (False, pack_header(Kind.HELLO, 2**31)),
        (False, pack_header(Kind.PULL, 0)),
        (False, b""),
    ]
    attacks += [(bool(i % 2), rng.bytes(int(rng.integers(1, 300)))) for i in range(40)]
    before = resident_bytes()
    for greeted, raw in attacks:
        with socket.create_connection(address, 5) as sock:
            if greeted:
                send_frame(sock, Kind.HELLO, hello)
                assert Inbox().header(sock, 4096).kind is Kind.WELCOME
            sock.sendall(raw)
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(4096):
                pass
    assert resident_bytes() - before < 200 << 20
    pool = connect([address], incarnation=2)
    push_ones(pool, 0, {2: np.arange(10)})
    pool.wait(0)
    eventually(lambda: shard.report().connections == 1)
    assert shard.report().pushes == 1
    assert shard.report().refused > 10
    pool.close()


def resident_bytes() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * 4096


@pytest.mark.parametrize("seed", range(3))
def test_connections_that_break_anywhere_apply_every_push_once(shards: Callable[..., list[Shard]], seed: int) -> None:
    ours = shards(2)
    proxies = [BreakingProxy(shard.listen(), seed * 2 + i, breaks=25) for i, shard in enumerate(ours)]
    pool = connect([proxy.address for proxy in proxies])
    rng = np.random.default_rng(seed)
    expected, steps, epochs = np.zeros(500), 0, 0
    with ThreadPoolExecutor(2) as driver:
        while steps < 100 or any(proxy.left for proxy in proxies):
            keys = np.unique(rng.integers(0, 500, 120))
            expected[keys] += 1
            push_ones(pool, steps, {2: keys, 3: keys[:5]})
            steps += 1
            if steps % 3 == 0:
                pool.pull({2: keys})
            pool.wait(4)
            if steps % 20 == 0:
                pool.mark(epochs)
                taken = [driver.submit(shard.await_cut, epochs, "checkpoint", True, 20.0) for shard in ours]
                pool.settle()
                total = np.zeros(500)
                for cut in (done.result() for done in taken):
                    total[cut.rows[2].keys] = -cut.rows[2].raw[:, 0]
                    assert cut.applied == {0: steps} and cut.dense.step == steps
                assert np.array_equal(total, expected)
                epochs += 1
            assert steps < 5000
    pool.wait(0)
    assert np.array_equal(-pool.pull({2: np.arange(500)}).rows[2][:, 0], expected)
    assert pool.reconnects >= 25
    assert sum(shard.report().duplicates for shard in ours) > 0
    assert [shard.report().pushes for shard in ours] == [steps, steps]
    pool.close()
    for proxy in proxies:
        proxy.stop()


def test_cuts_of_two_shards_stand_between_the_same_pushes_of_every_worker(
    shards: Callable[..., list[Shard]],
) -> None:
    workers, epochs = 3, 6
    ours = shards(2, workers)
    addresses = [shard.listen() for shard in ours]
    pushed = np.zeros((epochs, workers), np.int64)

    def work(worker: int) -> None:
        pool = connect(addresses, worker)
        rng = np.random.default_rng(worker)
        steps = 0
        for epoch in range(epochs):
            for _ in range(int(rng.integers(1, 20))):
                push_ones(pool, steps, {2: np.arange(200)}, partition=worker)
                pool.wait(2)
                steps += 1
            pushed[epoch, worker] = steps
            pool.mark(epoch)
        pool.settle()
        pool.close()

    with ThreadPoolExecutor(workers + 2) as threads:
        running = [threads.submit(work, worker) for worker in range(workers)]
        for epoch in range(epochs):
            cuts = [threads.submit(shard.await_cut, epoch, "checkpoint", False, 20.0) for shard in ours]
            for cut in (done.result() for done in cuts):
                assert cut.applied == {w: int(n) for w, n in enumerate(pushed[epoch])}
                assert (-cut.rows[2].raw[:, 0] == pushed[epoch].sum()).all()
                assert cut.dense.step == pushed[epoch].sum()
        for done in running:
            done.result(20)


def test_a_marked_connection_is_not_read_until_the_epoch_is_closed(shards: Callable[..., list[Shard]]) -> None:
    (shard,) = shards(1, workers=2)
    pool = connect([shard.listen()])
    push_ones(pool, 0, {2: np.arange(10)})
    pool.mark(0)
    push_ones(pool, 1, {2: np.arange(10)})
    eventually(lambda: shard.report().pushes == 1)
    with pytest.raises(CutTimeout, match=r"worker\(s\) 1"):
        shard.await_cut(0, "checkpoint", False, 0.1)
    pool.wait(0)
    assert shard.report().pushes == 2
    assert shard.report().dirty["checkpoint"] == 10
    pool.close()


def test_a_restored_shard_takes_nothing_from_before(shards: Callable[..., list[Shard]]) -> None:
    ours = shards(2)
    addresses = [shard.listen() for shard in ours]
    pool = connect(addresses)
    push_ones(pool, 0, {2: np.arange(10)})
    pool.wait(0)
    for shard in ours:
        shard.restore([], None, {})
    with pytest.raises(WireRefused, match="stale"):
        pool.pull({2: np.arange(10)})
    again = connect(addresses, incarnation=1)
    assert not again.pull({2: np.arange(10)}).rows[2].any()
    again.close()


def test_a_shard_that_closes_is_lost_by_name(shards: Callable[..., list[Shard]]) -> None:
    ours = shards(2)
    addresses = [shard.listen() for shard in ours]
    pool = connect(addresses, patience=Patience(connect=1, reconnect=0.3, answer=5))
    ours[1].close()
    with pytest.raises(ShardLost, match=rf"shard 1 at 127.0.0.1:{addresses[1][1]} is lost") as lost:
        pool.pull({2: np.arange(100)})
    assert lost.value.shard == 1
    assert shard_of(np.arange(100), 2).any()
    with pytest.raises(ShardLost):
        pool.wait(0)
        push_ones(pool, 0, {2: np.arange(100)})
    pool.close()


def test_threads_may_pull_and_push_at_once(shards: Callable[..., list[Shard]]) -> None:
    pool = connect([shard.listen() for shard in shards(2)])
    keys = np.arange(20_000)

    def pull() -> None:
        for _ in range(40):
            assert pool.pull({2: keys}).rows[2].shape == (20_000, 2)

    def push() -> None:
        for sequence in range(40):
            push_ones(pool, sequence, {2: keys, 3: keys})
            pool.wait(2)

    with ThreadPoolExecutor(3) as threads:
        for done in [threads.submit(work) for work in (pull, push, pull)]:
            done.result(30)
    pool.wait(0)
    assert (pool.pull({3: keys}).rows[3] == -40).all()
    pool.close()
