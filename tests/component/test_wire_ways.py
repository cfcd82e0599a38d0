"""Shared memory and sockets under the same protocol: who gets which, what breaks, and that nothing is applied twice."""

import gc
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from kuberec_api.training import RowType
from kuberec_runtime.table import shard_of
from kuberec_runtime.wire import Patience, Shard, ShardLost, ShardPool, Terms, WireRefused
from tests.component.breaking_proxies import BreakingProxy, FlippingProxy
from tests.component.test_shard_network import QUICK, eventually
from tests.component.wire_worker import ROWS
from tests.unit.wire.shards import DIGEST, TOKEN, config

WAYS = {"shared memory": Terms(), "tcp": Terms(share=False)}
NO_DENSE = np.empty(0, np.float32)
MAPPING = "memfd:kuberec-wire"


@pytest.fixture
def shard() -> Iterator[Callable[..., Shard]]:
    started: list[Shard] = []

    def start(index: int = 0, count: int = 1, dense_size: int = 0, **options: int) -> Shard:
        started.append(Shard(config(index, count, dense_size=dense_size, widths=(2, 16)), **options))
        return started[-1]

    yield start
    for one in started:
        one.close()


def connect(*addresses: tuple[str, int], terms: Terms, incarnation: int = 0, patience: Patience = QUICK) -> ShardPool:
    return ShardPool.connect(addresses, TOKEN, DIGEST, 0, incarnation, patience, terms)


def push_ones(pool: ShardPool, sequence: int, keys: np.ndarray) -> None:
    grads = {2: np.ones((keys.size, 2), np.float32)}
    pool.push(sequence, {2: keys}, grads, NO_DENSE, {0: 1})


def mapped() -> int:
    """Segments that this process maps, but for those of errors that nobody holds any more."""
    gc.collect()
    return Path("/proc/self/maps").read_text().count(MAPPING)


@pytest.mark.parametrize("way", WAYS)
def test_rows_and_dense_weights_are_the_same_on_every_way(shard: Callable[..., Shard], way: str) -> None:
    ours = [shard(i, 3, 7) for i in range(3)]
    for one, part in zip(ours, np.array_split(np.arange(7, dtype=np.float32), 3), strict=True):
        one.set_dense(part)
    pool = connect(*(one.listen() for one in ours), terms=WAYS[way])
    assert pool.ways == [way] * 3
    keys = np.random.default_rng(0).permutation(5000)
    for sequence in range(4):
        wanted = keys[keys % 4 >= sequence]
        grads = {2: np.ones((wanted.size, 2), np.float32), 16: np.ones((1, 16), np.float32)}
        pool.push(sequence, {2: wanted, 16: np.array([7])}, grads, np.ones(7, np.float32), {0: 1})
    pool.wait(0)
    for _ in range(2):  # the second answer has room for the dense slice, too
        pulled = pool.pull({2: keys, 16: np.array([7])})
        assert np.array_equal(-pulled.rows[2][:, 0], keys % 4 + 1)
        assert pulled.rows[16].tolist() == [[-4] * 16]
        assert pulled.dense.tolist() == [-4, -3, -2, -1, 0, 1, 2]
    pool.close()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("values", [RowType.BFLOAT16, RowType.FLOAT16])
def test_rows_and_gradients_in_two_bytes_are_rounded_and_tables_are_not(
    shard: Callable[..., Shard], way: str, values: RowType
) -> None:
    one = shard()
    address = one.listen()
    full = connect(address, terms=WAYS[way])
    keys = np.arange(300)
    exact = np.random.default_rng(0).normal(size=(300, 16)).astype(np.float32)
    full.push(0, {16: keys}, {16: exact}, NO_DENSE, {0: 1})
    full.wait(0)
    halves = connect(address, terms=Terms(values, WAYS[way].share), incarnation=1)
    got = halves.pull({16: keys}).rows[16]
    error = np.abs(got + exact) / np.abs(exact)
    assert 0 < error.max() <= (2**-8 if values is RowType.BFLOAT16 else 2**-10)
    halves.push(0, {16: keys}, {16: -got}, NO_DENSE, {0: 1})  # already rounded, so nothing is lost on the way
    halves.wait(0)
    again = connect(address, terms=WAYS[way], incarnation=2)
    assert np.array_equal(again.pull({16: keys}).rows[16], -exact + got)
    again.close()


def test_a_shard_behind_another_address_is_reached_through_tcp(shard: Callable[..., Shard]) -> None:
    proxy = BreakingProxy(shard().listen(), 0, breaks=0)
    pool = connect(proxy.address, terms=Terms())
    assert pool.ways == ["tcp"]
    assert pool.pull({2: np.arange(3)}).rows[2].shape == (3, 2)
    pool.close()
    proxy.stop()


@pytest.mark.parametrize(("segment_bytes", "way"), [(0, "tcp"), (1 << 20, "unix socket")])
def test_a_shard_without_memory_to_share_serves_all_the_same(
    shard: Callable[..., Shard], segment_bytes: int, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "kuberec_runtime.wire")
    pool = connect(shard(segment_bytes=segment_bytes).listen(), terms=Terms())
    assert pool.ways == [way]
    assert "rows travel through a socket: " in caplog.text
    push_ones(pool, 0, np.arange(10_000))
    pool.wait(0)
    assert (pool.pull({2: np.arange(10_000)}).rows[2] == -1).all()
    pool.close()


def test_what_does_not_fit_into_the_segment_goes_through_the_stream(shard: Callable[..., Shard]) -> None:
    pool = connect(shard().listen(), terms=Terms(segment=1 << 16))
    assert pool.ways == ["shared memory"]
    for sequence, rows in enumerate((10, 3000, 100_000, 10, 2000)):
        push_ones(pool, sequence, np.arange(rows))
        assert pool.pull({2: np.arange(rows)}).rows[2].shape == (rows, 2)
    pool.wait(0)
    assert pool.pull({2: np.arange(100_000)}).rows[2].sum(0).tolist() == [-(10 + 3000 + 100_000 + 10 + 2000)] * 2
    pool.close()


@pytest.mark.parametrize("way", WAYS)
def test_keys_that_come_grouped_by_shard_and_keys_that_do_not_get_the_same_rows(
    shard: Callable[..., Shard], way: str
) -> None:
    pool = connect(*(shard(i, 3).listen() for i in range(3)), terms=WAYS[way])
    mixed = np.random.default_rng(0).permutation(60_000)
    grouped = mixed[np.argsort(shard_of(mixed, 3), kind="stable")]
    for sequence, keys in enumerate((mixed, grouped)):
        grads = {2: np.repeat(keys[:, None], 2, 1).astype(np.float32)}
        pool.push(sequence, {2: keys}, grads, NO_DENSE, {0: 1})
    pool.wait(0)
    for keys in (mixed, grouped):
        assert np.array_equal(pool.pull({2: keys}).rows[2], np.repeat(-2.0 * keys[:, None], 2, 1))
    pool.close()


def test_pulled_rows_stay_as_they_are_as_long_as_they_are_held(shard: Callable[..., Shard]) -> None:
    pool = connect(shard().listen(), terms=Terms())
    keys, held = np.arange(1000), []
    for sequence in range(20):
        held.append(pool.pull({2: keys}).rows[2])
        push_ones(pool, sequence, keys)
        pool.wait(0)
    assert [rows.tolist() for rows in held] == [[[-n] * 2] * 1000 for n in range(20)]
    pool.close()
    assert (held[-1] == -19).all()


@pytest.mark.parametrize("way", WAYS)
def test_a_shard_that_fails_in_the_midst_of_an_answer_says_why(shard: Callable[..., Shard], way: str) -> None:
    pool = connect(shard().listen(), terms=WAYS[way])
    keys = np.arange(600_000)
    keys[-1] = -1
    with pytest.raises(WireRefused, match="key -1 is negative"):
        pool.pull({2: keys})
    pool.close()


def test_segments_are_gone_when_their_connections_are(shard: Callable[..., Shard]) -> None:
    before = mapped()
    one = shard()
    address = one.listen()
    for incarnation in range(5):
        pool = connect(address, terms=Terms(), incarnation=incarnation)
        push_ones(pool, 0, np.arange(5000))
        pool.wait(0)
        pool.close()
        del pool
    eventually(lambda: one.report().connections == 0)
    eventually(lambda: mapped() == before)


def test_connections_through_shared_memory_that_break_apply_every_push_once(shard: Callable[..., Shard]) -> None:
    ours = [shard(i, 2) for i in range(2)]
    pool = connect(*(one.listen() for one in ours), terms=Terms())
    rng = np.random.default_rng(1)
    over = threading.Event()

    def hang_up() -> None:
        chance = np.random.default_rng(2)
        while not over.wait(float(chance.uniform(0.001, 0.03))):
            ours[int(chance.integers(2))]._hang_up()

    expected = np.zeros(500)
    with ThreadPoolExecutor(1) as breaker:
        breaking = breaker.submit(hang_up)
        steps = 0
        while pool.reconnects < 40:
            keys = np.unique(rng.integers(0, 500, 200))
            expected[keys] += 1
            push_ones(pool, steps, keys)
            if steps % 3 == 0:
                pool.pull({2: keys})
            pool.wait(4)
            steps += 1
            assert steps < 100_000
        over.set()
        breaking.result(10)
    pool.wait(0)
    assert np.array_equal(-pool.pull({2: np.arange(500)}).rows[2][:, 0], expected)
    assert [one.report().pushes for one in ours] == [steps, steps]
    assert pool.ways == ["shared memory"] * 2
    pool.close()


@pytest.mark.parametrize("way", ["share", "socket"])
def test_a_worker_killed_in_the_middle_of_a_push_leaves_nothing_and_its_retry_counts_once(
    shard: Callable[..., Shard], way: str
) -> None:
    before, files = mapped(), set(os.listdir("/dev/shm"))
    one = shard()
    address = json.dumps([one.listen()])
    chance = np.random.default_rng(3)
    sequence = 0
    for _ in range(4):
        command = [sys.executable, "-m", "tests.component.wire_worker", address, str(sequence), way]
        worker = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert worker.stdout is not None
        assert worker.stdout.readline().strip() == ("shared memory" if way == "share" else "tcp")
        wanted = sequence + 5
        while sequence < wanted:
            sequence = int(worker.stdout.readline())
        time.sleep(float(chance.uniform(0, 0.004)))  # somewhere between the word and the acknowledgement
        worker.kill()
        rest = worker.communicate()[0].split()
        sequence = int(rest[-1]) if rest else sequence
    eventually(lambda: one.report().connections == 0)
    pool = connect(json.loads(address)[0], terms=WAYS["shared memory" if way == "share" else "tcp"])
    for last in range(max(sequence - 1, 0), sequence + 1):  # up to two were under way
        push_ones(pool, last, np.arange(ROWS))
    pool.wait(0)
    assert (pool.pull({2: np.arange(ROWS)}).rows[2] == -(sequence + 1)).all()
    report = one.report()
    assert (report.pushes, report.applied) == (sequence + 1, {0: sequence + 1})
    pool.close()
    del pool
    eventually(lambda: one.report().connections == 0 and mapped() == before)
    assert set(os.listdir("/dev/shm")) <= files


def test_a_flipped_bit_is_noticed_and_every_push_applied_once(shard: Callable[..., Shard]) -> None:
    one = shard()
    proxy = FlippingProxy(one.listen(), 25, seed=4)
    pool = connect(proxy.address, terms=Terms(checked=True))
    rng = np.random.default_rng(5)
    expected, steps = np.zeros(500), 0
    while proxy.left > 0:
        keys = np.unique(rng.integers(0, 500, 120))
        expected[keys] += 1
        push_ones(pool, steps, keys)
        assert (np.abs(pool.pull({2: keys}).rows[2]) <= steps + 1).all()
        pool.wait(2)
        steps += 1
        assert steps < 5000
    pool.wait(0)
    assert np.array_equal(-pool.pull({2: np.arange(500)}).rows[2][:, 0], expected)
    report = one.report()
    assert (report.pushes, report.refused) == (steps, 0)
    assert report.damaged > 0 and pool.reconnects >= 10
    pool.close()
    proxy.stop()


def test_checksums_work_through_shared_memory_too(shard: Callable[..., Shard]) -> None:
    pool = connect(shard().listen(), terms=Terms(checked=True))
    assert pool.ways == ["shared memory"]
    push_ones(pool, 0, np.arange(1000))
    pool.wait(0)
    assert (pool.pull({2: np.arange(1000)}).rows[2] == -1).all()
    pool.close()


def test_a_way_that_damages_everything_is_given_up_in_time(shard: Callable[..., Shard]) -> None:
    proxy = FlippingProxy(shard().listen(), float("inf"), seed=6)
    began = time.monotonic()
    with pytest.raises(ShardLost, match="in a row broke before an answer came"):
        pool = connect(proxy.address, terms=Terms(checked=True), patience=Patience(connect=1, reconnect=1, answer=10))
        for sequence in range(10_000):
            push_ones(pool, sequence, np.arange(20_000))
            pool.wait(0)
    assert time.monotonic() - began < 15
    proxy.stop()


@pytest.mark.parametrize("way", WAYS)
def test_bytes_under_way_are_bounded_while_a_shard_does_not_read(shard: Callable[..., Shard], way: str) -> None:
    one = shard()
    limit = 400_000
    pool = connect(one.listen(), terms=Terms(share=WAYS[way].share, under_way=limit))
    pool.mark(0)  # the shard reads no further until the epoch is closed
    keys, sent = np.arange(5000), 0
    body = 5000 * 16

    def work() -> None:
        nonlocal sent
        for sequence in range(20):
            push_ones(pool, sequence, keys)
            sent += 1

    with ThreadPoolExecutor(1) as pusher:
        pushing = pusher.submit(work)
        eventually(lambda: sent >= limit // body - 1)
        assert not pushing.done() and sent <= limit // body
        assert one.report().pushes == 0
        one.abort_cut(0)
        pushing.result(20)
    pool.wait(0)
    assert (pool.pull({2: keys}).rows[2] == -20).all()
    pool.close()
