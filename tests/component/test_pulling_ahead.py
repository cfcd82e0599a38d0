"""A worker on real shards: what it pulls ahead, and that marks, stops and lost shards find it between two steps."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from kuberec_api import RecModel, RecTraining
from kuberec_runtime.checkpoint import open_store
from kuberec_runtime.models.network import F32, Network, Step
from kuberec_runtime.stream.opening import open_source
from kuberec_runtime.train.job import Job
from kuberec_runtime.train.partitions import find_partitions
from kuberec_runtime.train.worker import Worker
from kuberec_runtime.wire import Patience, Shard, ShardConfig, ShardLost, ShardPool
from kuberec_runtime.wire.client import Pulled
from tests.component.training import FEED, write_files

SAMPLES, BATCH, SHARDS = 3000, 100, 2
TOKEN = b"the attempt's token, 32 bytes..."
DEADLINE_S = 30.0


class NotingPool(ShardPool):
    """A pool that notes, whenever a pull is sent, how many steps before it are not acknowledged."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.pulls = self.pushes = 0
        self.behind: list[int] = []
        self.changed = threading.Condition()

    def pull(self, keys: Mapping[int, Any]) -> Pulled:
        with self.changed:
            self.behind.append(self.pulls - self.pushes + self.outstanding)
        pulled = super().pull(keys)
        with self.changed:
            self.pulls += 1
            self.changed.notify_all()
        return pulled

    def push(self, *args: Any, **kwargs: Any) -> None:
        with self.changed:
            super().push(*args, **kwargs)
            self.pushes += 1
            self.changed.notify_all()


class PatientNetwork(Network):
    """A network whose steps last until `allow` says so."""

    allow: Callable[[], None] = staticmethod(lambda: None)

    def step(self, x: F32, labels: F32) -> Step:
        self.allow()
        return super().step(x, labels)


@dataclass
class Setting:
    worker: Worker
    pool: NotingPool
    network: PatientNetwork
    shards: list[Shard]
    samples: int = SAMPLES

    def start(self) -> "Future[None]":
        self.threads = ThreadPoolExecutor(8)
        self.run = self.threads.submit(self.worker.run)
        return self.run

    def until_finished(self) -> None:
        deadline = time.monotonic() + DEADLINE_S
        while not self.worker.report().finished:
            assert time.monotonic() < deadline
            assert not self.run.done() or self.run.exception() is None
            time.sleep(0.01)

    def end(self) -> None:
        self.worker.stop()
        self.run.result(DEADLINE_S)

    def applied(self) -> dict[int, int]:
        return self.shards[0].report().applied


@pytest.fixture
def setting(tmp_path: Path) -> Iterator[Callable[..., Setting]]:
    made: list[Setting] = []

    def make(staleness: int = 2, mode: str = "Async") -> Setting:
        bodies = {body["kind"]: body for body in yaml.safe_load_all(FEED.read_text())}
        spec = bodies["RecTraining"]["spec"]
        write_files(tmp_path / "samples", SAMPLES)
        spec["source"] = {"files": {"uri": f"file://{tmp_path}/samples"}}
        spec["synchronization"] = {"mode": mode, "maxStaleness": staleness}
        job = Job(RecModel.model_validate(bodies["RecModel"]), RecTraining.model_validate(bodies["RecTraining"]), 1)
        network = PatientNetwork(job.model.spec, job.layout)
        defaults = job.model.spec.embeddings.defaults
        shards = [
            Shard(
                ShardConfig(
                    index=i,
                    shards=SHARDS,
                    widths=job.layout.widths,
                    dense_size=network.size,
                    optimizer=defaults.optimizer,
                    initializer=defaults.initializer,
                    dense_optimizer=job.training.spec.optimizer,
                    seed=1,
                    token=TOKEN,
                    digest=job.plan.digest,
                    workers=1,
                    synchronous=job.synchronous,
                )
            )
            for i in range(SHARDS)
        ]
        for shard, part in zip(shards, np.array_split(network.dense(), SHARDS), strict=True):
            shard.set_dense(part)
        patience = Patience(connect=2, reconnect=1, answer=20)
        pool = NotingPool.connect([s.listen() for s in shards], TOKEN, job.plan.digest, 0, 1, patience)
        assert isinstance(pool, NotingPool)
        store = open_store(f"file://{tmp_path}/checkpoint")
        starts = find_partitions(job.training.spec.source, (), store)
        source = open_source(job.training.spec.source, job.schema, starts, BATCH, in_order=job.synchronous)
        worker = Worker(job, source, pool, network)
        worker.begin_at(starts)
        made.append(Setting(worker, pool, network, shards))
        return made[-1]

    yield make
    for one in made:
        one.network.allow = lambda: None
        one.worker.stop()
        for shard in one.shards:
            shard.close()
        one.threads.shutdown()


@pytest.mark.parametrize("staleness", [1, 2, 3])
def test_no_pull_is_sent_with_more_steps_open_than_max_staleness_allows(
    setting: Callable[..., Setting], staleness: int
) -> None:
    one = setting(staleness)
    one.start()
    one.until_finished()
    one.end()
    assert one.applied() and sum(one.applied().values()) == SAMPLES
    assert len(one.pool.behind) == one.pool.pushes > 20
    assert max(one.pool.behind) <= staleness - 1


def test_rows_of_the_next_batch_are_pulled_while_a_batch_computes(setting: Callable[..., Setting]) -> None:
    one = setting(2)
    pool = one.pool

    def until_the_next_is_pulled() -> None:
        with pool.changed:
            assert pool.changed.wait_for(lambda: pool.pulls >= min(pool.pushes + 2, 20), DEADLINE_S)

    one.network.allow = until_the_next_is_pulled
    one.start()
    one.until_finished()
    one.end()
    assert sum(one.applied().values()) == SAMPLES
    assert pool.behind.count(1) >= 19


def test_sync_pulls_nothing_ahead(setting: Callable[..., Setting]) -> None:
    one = setting(mode="Sync")
    one.start()
    one.until_finished()
    one.end()
    assert sum(one.applied().values()) == SAMPLES
    assert set(one.pool.behind) == {0}


def test_a_mark_between_a_pull_and_its_push_leaves_the_pulled_batch_out(setting: Callable[..., Setting]) -> None:
    one = setting(2)
    pool = one.pool

    def slowly() -> None:
        with pool.changed:  # so that a batch lies pulled at the boundary behind this step
            pool.changed.wait_for(lambda: pool.pulls > pool.pushes + 1, 0.05)

    one.network.allow = slowly
    one.start()
    pulled_ahead = 0
    for epoch in range(1, 12):
        cuts = [one.threads.submit(shard.await_cut, epoch, "checkpoint", False, DEADLINE_S) for shard in one.shards]
        told = one.worker.cut(epoch, DEADLINE_S)
        pulled_ahead += pool.pulls > pool.pushes
        for cut in cuts:
            applied = cut.result(DEADLINE_S).applied
            assert applied == {p: n for p, n in told.samples.items() if n}
        assert sum(told.samples.values()) < SAMPLES, "the cuts are to fall into the training"
        rows = {p: position.skip for p, position in told.positions.items() if position.skip}
        assert rows == {p: n for p, n in told.samples.items() if p in rows}
    assert pulled_ahead
    one.until_finished()
    one.end()
    assert sum(one.applied().values()) == SAMPLES


def test_a_worker_stops_although_its_puller_waits_behind_a_mark(setting: Callable[..., Setting]) -> None:
    one = setting(2)
    one.start()
    one.worker.cut(1, DEADLINE_S)  # no shard takes the epoch: it reads nothing more
    began = time.monotonic()
    one.end()
    assert time.monotonic() - began < 10


def test_a_worker_that_is_paused_takes_no_step_with_what_it_has_pulled(setting: Callable[..., Setting]) -> None:
    one = setting(2)
    one.start()
    with one.pool.changed:
        assert one.pool.changed.wait_for(lambda: one.pool.pushes > 3, DEADLINE_S)
    one.worker.pause()
    cuts = [one.threads.submit(shard.await_cut, 1, "checkpoint", False, DEADLINE_S) for shard in one.shards]
    told = one.worker.cut(1, DEADLINE_S)
    assert [cut.result(DEADLINE_S).applied for cut in cuts] == [told.samples] * SHARDS
    pushes = one.pool.pushes
    one.worker.cut(2, DEADLINE_S)
    assert one.pool.pushes == pushes
    assert one.applied() == told.samples


def test_a_shard_that_is_lost_ends_the_worker_whoever_notices(setting: Callable[..., Setting]) -> None:
    one = setting(2)
    one.start()
    with one.pool.changed:
        assert one.pool.changed.wait_for(lambda: one.pool.pushes > 3, DEADLINE_S)
    one.shards[1].close()
    with pytest.raises(ShardLost, match="shard 1"):
        one.run.result(DEADLINE_S)
