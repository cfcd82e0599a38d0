"""A whole embedding step against Keras: 26 x 4096 Zipf ids deduplicated, pulled, expanded, summed back, pushed.

Ours is what a worker and a shard run, without the network between, on one thread: `models.embed`, `models.pooling` and
`table.Table`. The peer is a Keras 3 Embedding with Adagrad in a tf.function, on all cores. Both learn the same rows of
16 weights from the same batches, four steps in a row at a time; batches rotate, so that neither lives in the cache. The
peer goes over its whole table in every step, so the size of the table decides.

Gate: at 5 M rows ours is at least 20 times faster.

Then one push of a batch's unique rows under every row optimizer, in turns: rows per second, one thread.
"""

import os
from collections.abc import Callable
from dataclasses import replace
from functools import partial

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

from benchmarks.measure import in_turns, options, print_result
from kuberec_api.model import Initializer, SparseOptimizer, SparseOptimizerKind
from kuberec_runtime.models.embed import dedupe
from kuberec_runtime.models.pooling import Grid, pool_grid, pool_grid_backward
from kuberec_runtime.table import Table
from kuberec_runtime.table.arena import lines

FEATURES, BATCH, DIM, RATE = 26, 4096, 16, 0.05
RUN = 4
"""Steps in a row."""


def zipf_batches(rows: int, count: int) -> list[np.ndarray]:
    """Batches of ids, int64, shape (batch, features), ranks of a bounded Zipf law with exponent 1.05, shuffled."""
    rng = np.random.default_rng(0)
    weights = np.cumsum(1.0 / np.arange(1, rows + 1) ** 1.05)
    names = rng.permutation(rows)
    return [names[np.searchsorted(weights / weights[-1], rng.random((BATCH, FEATURES)))] for _ in range(count)]


def our_step(table: Table, batches: list[np.ndarray], dy: np.ndarray):  # type: ignore[no-untyped-def]
    """One step on the next batch."""
    size = FEATURES * BATCH
    unique, inverse = np.empty(size, np.int64), np.empty(size, np.int32)
    grid = Grid(
        DIM, DIM, inverse.reshape(BATCH, FEATURES), np.arange(FEATURES) * DIM, np.full(FEATURES, -1, np.int64)
    )  # fmt: skip
    x, pulled = lines(np.float32, BATCH, FEATURES * DIM), lines(np.float32, size, DIM)
    turn = 0

    def step() -> None:
        nonlocal turn
        keys = batches[turn % len(batches)].reshape(-1)
        turn += 1
        count = dedupe(keys, unique, inverse)
        rows = table.pull(unique[:count], out=pulled[:count])
        pool_grid(rows, grid, x)
        grads = np.zeros((count, DIM), np.float32)
        pool_grid_backward(dy, grid, grads)
        table.push(unique[:count], grads, now=1)

    return step


def keras_step(rows: int, batches: list[np.ndarray], dy: np.ndarray):  # type: ignore[no-untyped-def]
    """The same step in Keras."""
    import keras
    import tensorflow as tf

    layer = keras.layers.Embedding(rows, DIM)
    layer.build((None, FEATURES))
    optimizer = keras.optimizers.Adagrad(RATE)
    optimizer.build(layer.trainable_variables)
    upstream = tf.constant(dy.reshape(BATCH, FEATURES, DIM))
    inputs = [tf.constant(batch.astype(np.int32)) for batch in batches]

    @tf.function
    def train(ids):  # type: ignore[no-untyped-def]
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(layer(ids) * upstream)
        gradient = tape.gradient(loss, layer.trainable_variables)
        optimizer.apply(gradient, layer.trainable_variables)
        return loss

    turn = 0

    def step() -> None:
        nonlocal turn
        train(inputs[turn % len(inputs)]).numpy()
        turn += 1

    return step


def run_of(step: Callable[[], None]) -> None:
    """Some steps in a row, so that what one side leaves behind disturbs the first of the other only."""
    for _ in range(RUN):
        step()


def filled(rows: int, optimizer: SparseOptimizer) -> Table:
    """A table that holds the rows 0 to `rows` - 1."""
    table = Table(DIM, optimizer, Initializer(), 1)
    for start in range(0, rows, 100_000):
        table.pull(np.arange(start, min(start + 100_000, rows)))
    return table


def pushes(table: Table, batches: list[np.ndarray]):  # type: ignore[no-untyped-def]
    """Pushes of the batches' unique rows in random order, one batch a call, and how many rows that is on average."""
    rng = np.random.default_rng(2)
    keys = [rng.permutation(np.unique(batch)) for batch in batches]
    grads = [rng.standard_normal((k.size, DIM)).astype(np.float32) * np.float32(0.01) for k in keys]
    turn = 0

    def push() -> None:
        nonlocal turn
        table.push(keys[turn % len(keys)], grads[turn % len(keys)], now=1)
        turn += 1

    return push, float(np.mean([k.size for k in keys]))


def by_optimizer(rows: int, batches: list[np.ndarray], seconds: float) -> dict[str, float]:
    """Million rows per second of a push, by kind of optimizer, printed and returned."""
    calls, sizes, pitch = {}, {}, {}
    for kind in SparseOptimizerKind:
        table = filled(rows, SparseOptimizer(kind=kind))
        calls[kind.value], sizes[kind.value] = pushes(table, batches)
        pitch[kind.value] = table.layout.row_bytes
    rates = {}
    for name, timing in in_turns(calls, seconds).items():
        rates[name] = round(sizes[name] / timing.median / 1e6, 1)
        spread = f"(n {timing.n}, spread {timing.spread:.0%})"
        print(f"push {name:14s} {rates[name]:7.1f} M rows/s, {pitch[name]:3d} bytes a row  {spread}")
    return rates


def main() -> None:
    """Prints the table and the line."""
    chosen = options(__doc__ or "")
    rows = 100_000 if chosen.smoke else 5_000_000
    batches = zipf_batches(rows, 4 if chosen.smoke else 16)
    dy = np.random.default_rng(1).standard_normal((BATCH, FEATURES * DIM)).astype(np.float32) * 0.01
    table = filled(rows, SparseOptimizer(kind=SparseOptimizerKind.ADAGRAD, learning_rate=RATE))
    ours = our_step(table, batches, dy)
    seconds = 2.0 if chosen.smoke else 120.0 if chosen.full else 25.0
    peer = keras_step(rows, batches, dy)
    runs = in_turns({"ours": partial(run_of, ours), "peer": partial(run_of, peer)}, seconds)
    timings = {name: replace(run, median=run.median / RUN, best=run.best / RUN) for name, run in runs.items()}

    keys = np.unique(batches[0])
    np.random.default_rng(2).shuffle(keys)
    grads = np.zeros((keys.size, DIM), np.float32)
    out = lines(np.float32, keys.size, DIM)
    parts = in_turns(
        {"pull": lambda: table.pull(keys, out=out), "push": lambda: table.push(keys, grads, now=1)}, seconds / 20
    )
    unique = float(np.mean([np.unique(batch).size for batch in batches]))
    for name, timing in {**timings, **parts}.items():
        spread = f"(n {timing.n}, spread {timing.spread:.0%})"
        print(f"{name:6s} {timing.median * 1e3:9.3f} ms, best {timing.best * 1e3:9.3f}  {spread}")
    rates = by_optimizer(rows, batches, seconds / 5)
    print_result(
        "table_step",
        timings["ours"],
        timings["peer"],
        "ms",
        gate=20,
        rows=rows,
        ids=FEATURES * BATCH,
        unique=round(unique),
        pull_ms=round(parts["pull"].median * 1e3, 3),
        push_ms=round(parts["push"].median * 1e3, 3),
        pull_mrows_s=round(keys.size / parts["pull"].median / 1e6, 1),
        push_mrows_s=round(keys.size / parts["push"].median / 1e6, 1),
        push_mrows_s_by_optimizer=rates,
        bytes_per_row=round(table.memory_bytes / len(table), 1),
    )


if __name__ == "__main__":
    main()
