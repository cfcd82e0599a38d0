"""The longest pause of a worker's steps during a cut of a large shard, against a shard that saves all of its rows.

One shard holds 5 M rows of 16 weights (RowwiseAdagrad); a little over 500 k of them were pushed since the cut before. A
worker's thread pulls and pushes rows, and at the next boundary marks an epoch, as `train.worker` does; another thread
takes the cut. The pause is by how much the longest step around the cut, its mark included, exceeds the median step.
Rows are written by nobody here: that happens behind the cut, while steps go on.

The peer is the same shard in the same minute, copying all rows under the same barrier: a save that does not know what
changed. Overhead is the pause, once in the default interval of checkpoints (60 s) and once in every 5 s for
publications, each of which copies what changed in its time (here as much as a checkpoint does, which is too much).

Gates: pause below 20 ms, overhead below 1 %.
"""

import statistics
import threading
import time

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.measure import options, print_result, summary
from kuberec_api.model import Initializer, InitializerKind, SparseOptimizer, SparseOptimizerKind
from kuberec_api.training import DenseOptimizer, DenseOptimizerKind
from kuberec_runtime.table import Rows
from kuberec_runtime.wire.messages import Push
from kuberec_runtime.wire.shardconfig import ShardConfig
from kuberec_runtime.wire.shardstate import ShardState

WIDTH, STEP_KEYS, DENSE = 16, 20_000, 100_000
BEFORE, AFTER = 10, 20
"""Steps around a cut."""
CHECKPOINT_S, PUBLICATION_S = 60.0, 5.0


class Setting:
    """A shard with rows, and a worker's session."""

    def __init__(self, rows: int, dirty: int) -> None:
        self._rows, self._rng = rows, np.random.default_rng(0)
        # The steps before a cut name a row twice now and then.
        self._dirty = dirty - int(0.9 * (BEFORE + 1) * STEP_KEYS)
        self.cut_rows: list[int] = []
        self.state = ShardState(
            ShardConfig(
                index=0,
                shards=1,
                widths=(WIDTH,),
                dense_size=DENSE,
                optimizer=SparseOptimizer(kind=SparseOptimizerKind.ROWWISE_ADAGRAD, learning_rate=0.05),
                initializer=Initializer(kind=InitializerKind.ZEROS),
                dense_optimizer=DenseOptimizer(kind=DenseOptimizerKind.ADAM, learning_rate=0.001),
                seed=0,
                token=b"benchmark",
                digest="0" * 64,
                workers=1,
            )
        )
        stride = self.state.tables[WIDTH].layout.stride
        self.state.restore([(WIDTH, Rows(np.arange(rows), np.full((rows, stride), 1e-3, np.float32)))], None, {})
        self._session = self.state.enter(0, 1)
        self._gradients = np.full((dirty, WIDTH), 1e-3, np.float32)
        self._out = np.empty((dirty, WIDTH), np.float32)
        self._sequence = self._epoch = 0

    def touch(self) -> None:
        """Leaves as many rows dirty as, with the steps before the cut, shall be."""
        self.state.tables[WIDTH].take_dirty("checkpoint")
        self._push(self._rng.permutation(self._rows)[: self._dirty])

    def step(self) -> None:
        """One pull and one push."""
        keys = np.unique(self._rng.integers(0, self._rows, STEP_KEYS))
        self.state.pull_into(WIDTH, keys, self._out[: keys.size])
        self._push(keys)

    def mark(self) -> None:
        """Marks the epoch that is being taken; returns when its copy is made."""
        self.state.mark(self._session, self._epoch)

    def begin_cut(self, full: bool) -> threading.Thread:
        """Opens the next epoch in a thread."""
        self._epoch += 1
        wanted = (self._epoch, "checkpoint", full, 60.0)

        def take() -> None:
            cut = self.state.await_cut(*wanted)  # type: ignore[arg-type]
            self.cut_rows.append(cut.rows[WIDTH].keys.size)

        thread = threading.Thread(target=take)
        thread.start()
        return thread

    def _push(self, keys: np.ndarray) -> None:
        self._sequence += 1
        grads = {WIDTH: self._gradients[: keys.size]}
        self.state.push(
            self._session, Push(self._sequence, 0, {WIDTH: keys}, grads, {0: 1}, np.zeros(DENSE, np.float32))
        )


def pause(setting: Setting, full: bool) -> tuple[float, float]:
    """Returns (by how much the longest step around a cut exceeds the median one, the median), seconds."""
    setting.touch()
    seconds: list[float] = []
    cut: threading.Thread | None = None
    for i in range(BEFORE + AFTER):
        if i == BEFORE:
            cut = setting.begin_cut(full)
        began = time.perf_counter()
        setting.step()
        if i == BEFORE:
            setting.mark()
        seconds.append(time.perf_counter() - began)
    assert cut is not None
    cut.join()
    usual = statistics.median(seconds)
    return max(seconds) - usual, usual


def main() -> None:
    """Prints the table and the line."""
    chosen = options(__doc__ or "")
    rows, dirty = (2_000_000, 200_000) if chosen.smoke else (5_000_000, 500_000)
    turns = 3 if chosen.smoke else 40 if chosen.full else 15
    setting = Setting(rows, dirty)
    pause(setting, True)
    ours, peer, steps, copied = [], [], [], []
    for _ in range(turns):
        took, usual = pause(setting, False)
        copied.append(setting.cut_rows[-1])
        ours.append(took)
        steps.append(usual)
        peer.append(pause(setting, True)[0])
    console = Console()
    table = Table("cut", "longest pause, ms: median", "largest", title=f"{rows:,} rows, {min(copied):,} of them dirty")
    for name, taken in (("what changed (ours)", ours), ("all rows", peer)):
        table.add_row(name, f"{statistics.median(taken) * 1e3:.1f}", f"{max(taken) * 1e3:.1f}")
    console.print(table)
    median = statistics.median(ours)
    overhead = median / CHECKPOINT_S + median / PUBLICATION_S
    console.print(f"a step takes {statistics.median(steps) * 1e3:.1f} ms; overhead of all cuts {overhead:.2%}")
    print_result(
        "checkpoint_stall",
        summary(ours),
        summary(peer),
        "ms",
        largest_ms=round(max(ours) * 1e3, 2),
        step_ms=round(statistics.median(steps) * 1e3, 2),
        overhead=round(overhead, 5),
        rows=rows,
        dirty=min(copied),
    )


if __name__ == "__main__":
    main()
