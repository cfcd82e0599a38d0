"""Shards in processes of their own, killed with -9: the worker learns which one is gone, and a replacement goes on."""

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from kuberec_runtime.table import shard_of
from kuberec_runtime.wire import Patience, ShardLost, ShardPool
from tests.unit.wire.shards import DIGEST, TOKEN

ROOT = Path(__file__).parents[2]
DENSE = 4
KEYS = {2: np.arange(300), 3: np.arange(40)}


class ShardProcess:
    def __init__(self, index: int, port: int = 0) -> None:
        command = [sys.executable, "-m", "tests.component.shard_process", *map(str, (index, 2, DENSE, port))]
        self.process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"the shard process ended with {self.process.wait()}"
        return line

    def tell(self, command: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()

    def ask(self, command: str) -> str:
        self.tell(command)
        return self.line().strip()

    def address(self) -> tuple[str, int]:
        host, port = json.loads(self.line())
        return host, port

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def start() -> Iterator[Callable[..., ShardProcess]]:
    running: list[ShardProcess] = []

    def new(index: int, port: int = 0) -> ShardProcess:
        running.append(ShardProcess(index, port))
        return running[-1]

    yield new
    for shard in running:
        shard.kill()


def connect(addresses: list[tuple[str, int]], reconnect: float) -> ShardPool:
    return ShardPool.connect(addresses, TOKEN, DIGEST, 0, 0, Patience(connect=2, reconnect=reconnect, answer=30))


def push(pool: ShardPool, sequence: int) -> None:
    grads = {width: np.ones((keys.size, width), np.float32) for width, keys in KEYS.items()}
    pool.push(sequence, KEYS, grads, np.ones(DENSE, np.float32), {0: 1})


def test_a_worker_that_waits_at_the_barrier_learns_which_shard_was_killed(start: Callable[..., ShardProcess]) -> None:
    shards = [start(0), start(1)]
    addresses = [shard.address() for shard in shards]
    pool = connect(addresses, 0.5)
    push(pool, 0)
    pool.wait(0)
    pool.mark(0)  # from here on a pull waits at the barrier
    outcome: list[BaseException] = []

    def pull() -> None:
        try:
            pool.pull(KEYS)
        except ShardLost as lost:
            outcome.append(lost)

    waiting = threading.Thread(target=pull)
    waiting.start()
    began = time.monotonic()
    shards[1].kill()
    shards[0].tell("abort 0")
    waiting.join(20)
    assert not waiting.is_alive()
    assert time.monotonic() - began < 10
    assert isinstance(outcome[0], ShardLost)
    assert outcome[0].shard == 1 and f":{addresses[1][1]} is lost" in str(outcome[0])


def test_the_lost_shard_is_the_killed_one_and_the_error_stays(start: Callable[..., ShardProcess]) -> None:
    shards = [start(0), start(1)]
    pool = connect([shard.address() for shard in shards], 0.5)
    push(pool, 0)
    pool.wait(0)
    shards[1].kill()
    with pytest.raises(ShardLost, match=r"^shard 1 at ") as lost:
        for sequence in range(1, 100):
            push(pool, sequence)
            pool.wait(1)
    assert lost.value.shard == 1
    for again in (lambda: pool.pull(KEYS), lambda: push(pool, 100), lambda: pool.wait(0)):
        with pytest.raises(ShardLost, match=r"^shard 1 at "):
            again()
    assert json.loads(shards[0].ask("applied"))["0"] >= 1


def test_a_replacement_restored_from_the_last_cut_goes_on_with_the_same_worker(
    start: Callable[..., ShardProcess], tmp_path: Path
) -> None:
    """Pushes of the cut are remembered by the snapshot: what the worker sends again is applied once."""
    shards = [start(0), start(1)]
    addresses = [shard.address() for shard in shards]
    pool = connect(addresses, 60.0)
    for sequence in range(5):
        push(pool, sequence)
    pool.wait(0)
    pool.mark(0)
    for index, shard in enumerate(shards):
        shard.tell(f"cut 0 {tmp_path / str(index)}")
    for shard in shards:
        assert shard.line().strip() == "taken"
    # The worker does not know what became of this one when the shard dies.
    push(pool, 5)
    shards[1].kill()
    replacement = start(1, port=-1)
    assert replacement.ask(f"restore 0 {tmp_path / '1'}") == "restored"
    replacement.tell(f"listen {addresses[1][1]}")
    replacement.address()
    push(pool, 6)
    pool.wait(0)
    pulled = pool.pull(KEYS)
    owner = shard_of(KEYS[2], 2)
    assert (pulled.rows[2][owner == 0] == -7).all()
    # Pushes between the cut and the death are lost with the shard unless they were unacknowledged; never doubled.
    assert set(np.unique(pulled.rows[2][owner == 1]).tolist()) <= {-6.0, -7.0}
    assert json.loads(shards[0].ask("applied")) == {"0": 7}
    pool.close()
