"""Pulls of several threads at once: they hold the lock together, see whole rows, and never one that is changing."""

import threading
import time

import numpy as np
import pytest

from kuberec_api.model import Initializer, InitializerKind, SparseOptimizer, SparseOptimizerKind
from kuberec_runtime.table import Table
from kuberec_runtime.table.sharedlock import SharedLock


def test_readers_hold_it_together() -> None:
    lock = SharedLock()
    both = threading.Barrier(2, timeout=30)

    def read() -> None:
        with lock.shared():
            both.wait()  # breaks if one of the two waits for the other

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert not both.broken


@pytest.mark.parametrize("shared", [True, False])
def test_nobody_is_beside_a_writer(shared: bool) -> None:
    lock = SharedLock()
    entered = threading.Event()

    def other() -> None:
        with lock.shared() if shared else lock:
            entered.set()

    thread = threading.Thread(target=other)
    with lock:
        thread.start()
        assert not entered.wait(0.1)
    assert entered.wait(30)
    thread.join()


def test_a_writer_who_waits_goes_before_new_readers() -> None:
    lock, order = SharedLock(), list[str]()

    def write() -> None:
        with lock:
            order.append("writer")

    def read() -> None:
        with lock.shared():
            order.append("reader")

    writer, reader = threading.Thread(target=write), threading.Thread(target=read)
    with lock.shared():
        writer.start()
        end = time.monotonic() + 30
        while not lock._waiting and time.monotonic() < end:
            time.sleep(0.001)
        reader.start()
        time.sleep(0.05)
        assert order == []
    writer.join()
    reader.join()
    assert order == ["writer", "reader"]


def test_a_reader_that_fails_lets_the_lock_go() -> None:
    lock = SharedLock()
    with pytest.raises(KeyError), lock.shared():
        raise KeyError
    with lock:
        pass


def test_pulled_rows_are_whole_while_others_push_create_and_remove() -> None:
    """Every push adds one number to all weights of a row: a row with two different weights was seen halfway."""
    rows, width = 20_000, 48
    table = Table(
        width,
        SparseOptimizer(kind=SparseOptimizerKind.SGD, learning_rate=1.0),
        Initializer(kind=InitializerKind.ZEROS),
        1,
    )
    every = np.arange(rows)
    table.pull(every)
    over = threading.Event()
    torn: list[int] = []

    def pull(seed: int) -> None:
        rng = np.random.default_rng(seed)
        while not over.is_set():
            got = table.pull(rng.permutation(rows)[: rows // 2])
            torn.append(int((got != got[:, :1]).any(axis=1).sum()))

    pullers = [threading.Thread(target=pull, args=(seed,)) for seed in range(3)]
    for puller in pullers:
        puller.start()
    pushes = 60
    try:
        for i in range(pushes):
            table.push(every, np.full((rows, width), -1.0, np.float32), now=1)
            fresh = rows + i * 1000 + np.arange(1000)
            table.pull(fresh)
            table.remove(fresh[::2])
    finally:
        over.set()
        for puller in pullers:
            puller.join()
    assert torn and not any(torn)
    assert (table.pull(every) == pushes).all()
