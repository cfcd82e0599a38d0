"""Optimizer state goes through a checkpoint to any number of shards, and never to another optimizer."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from kuberec_api import RecModel, RecTraining
from kuberec_api.model import Initializer, SparseOptimizer, SparseOptimizerKind
from kuberec_runtime.checkpoint import (
    FileRef,
    Link,
    LinkKind,
    Manifest,
    Store,
    iter_counts,
    iter_rows,
    open_store,
    write_counts,
    write_removed,
    write_rows,
)
from kuberec_runtime.stream import PartitionStart, Position
from kuberec_runtime.table import Rows, Table, bucket_of, shard_of
from kuberec_runtime.table.admission import Counts
from kuberec_runtime.table.dense import DenseState
from kuberec_runtime.train.exitcode import classify
from kuberec_runtime.train.job import Job
from kuberec_runtime.train.ledger import Ledger
from kuberec_runtime.train.reports import WorkerCut
from kuberec_runtime.train.rowstate import OptimizerMismatchError, check_row_state, reference
from kuberec_runtime.train.shardhost import ShardEpoch, buckets_of_shard, removed_rows
from kuberec_runtime.wire.messages import Push
from kuberec_runtime.wire.shardstate import ShardState
from tests.unit.wire.shards import config

EXAMPLE = Path(__file__).parents[3] / "examples" / "feed.yaml"
WIDTH = 17
ADAM, FTRL, SGD = SparseOptimizerKind.ADAM, SparseOptimizerKind.FTRL, SparseOptimizerKind.SGD
NO_DENSE = DenseState(*(np.zeros(0, np.float32) for _ in range(3)), step=0)
STARTS = [PartitionStart(0, Position(0, 0), None)]


def job(optimizer: SparseOptimizer, attempt: int = 1) -> Job:
    """The example's, with another optimizer."""
    bodies = {body["kind"]: body for body in yaml.safe_load_all(EXAMPLE.read_text())}
    spec = optimizer.model_dump(mode="json", by_alias=True, exclude_none=True)
    bodies["RecModel"]["spec"]["embeddings"]["defaults"]["optimizer"] = spec
    model, training = RecModel.model_validate(bodies["RecModel"]), RecTraining.model_validate(bodies["RecTraining"])
    return Job(model, training, attempt)


def steps(count: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(seed)
    keys = [np.unique(rng.integers(0, 900, 500)) for _ in range(count)]
    return [(k, rng.standard_normal((k.size, WIDTH)).astype(np.float32)) for k in keys]


def shard(index: int, shards: int, optimizer: SparseOptimizer) -> ShardState:
    given = replace(
        config(index, shards, dense_size=0, widths=(WIDTH,)), optimizer=optimizer, initializer=Initializer()
    )
    return ShardState(given)


def push(states: Sequence[ShardState], learnt: Sequence[tuple[np.ndarray, np.ndarray]], sequence: int = 0) -> None:
    for state in states:
        session = state.enter(0, 0)
        for turn, (keys, grads) in enumerate(learnt, sequence):
            mine = shard_of(keys, len(states)) == state.config.index
            sent = Push(turn, 1, {WIDTH: keys[mine]}, {WIDTH: grads[mine]}, {0: 1}, np.zeros(0, np.float32))
            assert state.push(session, sent)


def commit(store: Store, ledger: Ledger, states: Sequence[ShardState], samples: int) -> None:
    """One epoch of all shards, as `ShardHost.checkpoint` and the driver write it."""
    epoch, full = ledger.next_epoch(), ledger.full_next()
    prefix, parts = ledger.prefix(epoch), []
    for state in states:
        with ThreadPoolExecutor(1) as pool:
            pool.submit(state.mark, state.enter(0, 0), epoch)
            rows = state.await_cut(epoch, "checkpoint", full, 20).rows[WIDTH]
        mine = buckets_of_shard(state.config.index, len(states))
        last = (mine.start, mine.stop - 1)
        files = [write_rows(store, prefix, WIDTH, rows.keys, rows.raw, shard=state.config.index, buckets=last)]
        if rows.removed.size:
            files.append(write_removed(store, prefix, WIDTH, rows.removed, shard=state.config.index, buckets=last))
        parts.append(ShardEpoch(tuple(files), NO_DENSE, {0: samples}))
    worker = WorkerCut({0: Position(samples, 0)}, {0: samples}, {}, 0)
    ledger.commit(epoch, full, prefix, parts, [worker], STARTS, {}, {}, None)


def restored(store: Store, manifest: Manifest, index: int, shards: int, optimizer: SparseOptimizer) -> ShardState:
    state = shard(index, shards, optimizer)
    files = iter_rows(store, manifest, bucket_of, buckets_of_shard(index, shards))
    rows = ((f.width, removed_rows(keys) if raw is None else Rows(keys, raw)) for f, keys, raw in files)
    state.restore(rows, None, manifest.samples_by_partition)
    return state


@pytest.mark.parametrize("kind", list(SparseOptimizerKind))
@pytest.mark.parametrize(("before", "after"), [(2, 3), (3, 1)])
def test_training_goes_on_from_a_checkpoint_with_other_shards_as_if_nothing_had_happened(
    kind: SparseOptimizerKind, before: int, after: int
) -> None:
    optimizer = SparseOptimizer(kind=kind, **{"l1": 0.1, "l2": 0.1} if kind is FTRL else {})
    store = open_store(f"memory://go-on-{kind}-{before}")
    ledger = Ledger(job(optimizer), store)
    ledger.start()
    ledger.begin(NO_DENSE, STARTS)
    learnt = [steps(4, seed) for seed in range(4)]
    states = [shard(i, before, optimizer) for i in range(before)]
    for epoch in range(3):
        push(states, learnt[epoch], 4 * epoch)
        commit(store, ledger, states, 4 * (epoch + 1))

    again = Ledger(job(optimizer, 2), store)
    again.start()
    resumed = again.resume()
    assert resumed is not None
    assert [link.kind for link in resumed.manifest.chain] == [LinkKind.FULL, LinkKind.DELTA]
    states = [restored(store, resumed.manifest, i, after, optimizer) for i in range(after)]
    push(states, learnt[3])

    whole = Table(WIDTH, optimizer, Initializer(), 1)
    for keys, grads in (step for part in learnt for step in part):
        whole.push(keys, grads, now=1)
    expected = by_key(whole.take_dirty("checkpoint", full=True))
    found = {k: row for s in states for k, row in by_key(s.tables[WIDTH].take_dirty("checkpoint", full=True)).items()}
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[key], expected[key]) for key in expected)


@pytest.mark.parametrize(("before", "after"), [(1, 3), (2, 1)])
def test_removed_rows_stay_removed_through_full_links_deltas_and_another_number_of_shards(
    before: int, after: int
) -> None:
    store = open_store(f"memory://tombstones-{before}")
    optimizer = SparseOptimizer()
    ledger = Ledger(job(optimizer), store)
    ledger.start()
    ledger.begin(NO_DENSE, STARTS)
    states = [shard(i, before, optimizer) for i in range(before)]
    whole = Table(WIDTH, optimizer, Initializer(), 1)
    rng = np.random.default_rng(5)
    for epoch in range(4):
        learnt = steps(2, epoch)
        push(states, learnt, 2 * epoch)
        for keys, grads in learnt:
            whole.push(keys, grads, now=1)
        gone = np.unique(rng.integers(0, 900, 100))
        whole.remove(gone)
        for state in states:
            state.tables[WIDTH].remove(gone[shard_of(gone, before) == state.config.index])
        commit(store, ledger, states, 2 * (epoch + 1))
    again = Ledger(job(optimizer, 2), store)
    again.start()
    resumed = again.resume()
    assert resumed is not None
    assert resumed.manifest.format == 2
    states = [restored(store, resumed.manifest, i, after, optimizer) for i in range(after)]
    expected = by_key(whole.take_dirty("checkpoint", full=True))
    found, published = {}, set()
    for state in states:
        found |= by_key(state.tables[WIDTH].take_dirty("checkpoint", full=True))
        published |= set(state.tables[WIDTH].take_dirty("publication").removed.tolist())
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[key], expected[key]) for key in expected)
    assert set(gone.tolist()) <= published, "what was removed last may still be in the tier"
    assert not published & found.keys()


def test_counts_of_keys_without_a_row_survive_and_move_with_their_buckets() -> None:
    store = open_store("memory://counts")
    ledger = Ledger(job(SparseOptimizer()), store)
    ledger.start()
    ledger.begin(NO_DENSE, STARTS)
    one = Table(WIDTH, SparseOptimizer(), Initializer(), 1, min_count=3)
    keys = np.arange(5000)
    grads = np.ones((keys.size, WIDTH), np.float32)
    for epoch in (1, 2):
        one.push(keys, grads, now=1)
        prefix, rows = ledger.prefix(epoch), one.take_dirty("checkpoint", full=ledger.full_next())
        assert rows.keys.size == 0 and rows.counts is not None
        counts = rows.counts
        files = [write_counts(store, prefix, WIDTH, counts.buckets, counts.added, counts.counters)]
        worker = WorkerCut({0: Position(epoch, 0)}, {0: epoch}, {}, 0)
        shards = [ShardEpoch(tuple(files), NO_DENSE, {0: epoch})]
        ledger.commit(epoch, ledger.full_next(), prefix, shards, [worker], STARTS, {}, {}, None)
    again = Ledger(job(SparseOptimizer(), 2), store)
    again.start()
    resumed = again.resume()
    assert resumed is not None
    assert resumed.manifest.format == 2
    assert [len(link.files) for link in resumed.manifest.chain] == [0, 0, 1], "counts of the last link alone"
    assert list(iter_rows(store, resumed.manifest)) == []
    admitted = 0
    for index in range(3):
        back = Table(WIDTH, SparseOptimizer(), Initializer(), 1, min_count=3)
        buckets = buckets_of_shard(index, 3)
        for width, numbers, added, counters in iter_counts(store, resumed.manifest, buckets):
            assert width == WIDTH and set(numbers.tolist()) <= set(buckets)
            back.restore_counts(Counts(numbers, added, counters))
        mine = keys[shard_of(keys, 3) == index]
        back.push(mine, grads[: mine.size], now=1)
        assert len(back) == mine.size
        admitted += len(back)
    assert admitted == keys.size


def by_key(rows: Rows) -> dict[int, np.ndarray]:
    """The bits of every row but for the time it was last seen."""
    return dict(zip(rows.keys.tolist(), rows.raw.view(np.uint32)[:, :-1], strict=True))


def test_an_attempt_with_another_optimizer_is_refused_for_good() -> None:
    store = open_store("memory://refused")
    ledger = Ledger(job(SparseOptimizer(kind=ADAM)), store)
    ledger.start()
    ledger.begin(NO_DENSE, STARTS)
    changed = Ledger(job(SparseOptimizer(kind=FTRL), 2), store)
    changed.start()
    assert changed.resume() is not None, "nothing is learnt yet: any optimizer may begin"

    ledger = Ledger(job(SparseOptimizer(kind=ADAM), 3), store)
    ledger.start()
    ledger.resume()
    states = [shard(0, 1, SparseOptimizer(kind=ADAM))]
    push(states, steps(1, 1))
    commit(store, ledger, states, 1)
    assert Ledger(job(SparseOptimizer(kind=ADAM, learning_rate=0.7, beta1=0.1), 4), store).resume() is not None
    with pytest.raises(OptimizerMismatchError, match=r"trained with Adam, the model's optimizer is SGD") as refused:
        Ledger(job(SparseOptimizer(kind=SGD), 4), store).resume()
    assert classify(refused.value).reason == "OptimizerMismatch"
    assert classify(refused.value).permanent


def manifest(kind: SparseOptimizerKind | None, stride: int = 8 + 16 + 2, rate: float = 0.05) -> Manifest:
    file = FileRef(key="data/1/rows-w8-s0.arrow", size=1, sha256="0" * 64, width=8, rows=5, stride=stride)
    written = reference(SparseOptimizer(kind=kind, learning_rate=rate)) if kind else None
    return Manifest(
        epoch=1, attempt=1, digest="d", chain=(Link(epoch=1, kind=LinkKind.FULL, files=(file,)),), row_optimizer=written
    )


def test_ftrl_goes_on_at_its_own_learning_rate_only() -> None:
    one = SparseOptimizer(kind=FTRL, learning_rate=0.05, l1=3.0)
    check_row_state(manifest(FTRL), one)
    with pytest.raises(OptimizerMismatchError, match=r"learningRate 0\.05, the model has 0\.1; .*\n  undo"):
        check_row_state(manifest(FTRL), one.model_copy(update={"learning_rate": 0.1}))


@pytest.mark.parametrize(
    ("stride", "told"), [(26, "FTRL"), (27, "Adam"), (11, "RowwiseAdagrad"), (99, "an optimizer of 89 floats a row")]
)
def test_an_older_manifest_is_judged_by_the_floats_of_its_rows(stride: int, told: str) -> None:
    with pytest.raises(OptimizerMismatchError, match=f"rows-w8-s0.arrow were trained with {told}, .* is SGD"):
        check_row_state(manifest(None, stride), SparseOptimizer(kind=SGD))
    check_row_state(manifest(None, 10), SparseOptimizer(kind=SGD))
