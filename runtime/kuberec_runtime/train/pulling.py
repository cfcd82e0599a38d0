"""The rows of a batch: pulled when its turn comes, or one batch ahead of the step that computes.

In Async a thread pulls for batch k+1 while batch k computes. What that may cost is bounded: *when a pull is sent, at
most `maxStaleness` - 1 earlier steps of this worker are without the shards' acknowledgement*, be it that their push is
under way or that they have not been computed yet. So rows lack at most that many of this worker's own steps, and with
`maxStaleness: 1` nothing is pulled ahead: the turn comes when the step before is acknowledged. One batch ahead hides
the wire behind the computation; more would only make rows older, so no more is pulled whatever `maxStaleness` allows.

A batch that was pulled and not trained is no part of anything: pulling changes no position, and the rows that it may
have created are a function of seed and key. So a mark may stand between a pull and its push. A pull that is sent behind
a mark waits at the shards until the epoch is closed, as all does that comes behind a mark.
"""

import threading
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kuberec_api.layout import Layout
from kuberec_runtime.crashpoints import crash_here
from kuberec_runtime.models.embed import assemble
from kuberec_runtime.spans import span
from kuberec_runtime.train.handover import LOOK_EVERY_S, Handover
from kuberec_runtime.train.reading import Prepared
from kuberec_runtime.wire.client import ShardPool

F32 = NDArray[np.float32]

AHEAD = 1
NOTHING = np.empty((0, 0), np.float32)


@dataclass(frozen=True)
class Pulled:
    """A batch with X, float32[n, D], and the dense weights, float32[d], of its pull; both empty without a lookup."""

    prepared: Prepared
    x: F32
    dense: F32


def pull(pool: ShardPool, layout: Layout, prepared: Prepared) -> Pulled:
    """Pulls what a batch needs, as of now."""
    if prepared.lookup is None or prepared.features is None:
        return Pulled(prepared, NOTHING, NOTHING)
    crash_here("worker.before-pull")
    with span("pull"):
        pulled = pool.pull(prepared.lookup.keys)
    crash_here("worker.pulled")
    with span("assemble"):
        x = assemble(layout, prepared.features, prepared.lookup, pulled.rows)
    return Pulled(prepared, x, pulled.dense)


class Turns:
    """Says when the next pull may be sent. One thread pulls, another trains."""

    def __init__(self, max_staleness: int, stopping: threading.Event) -> None:
        self._most, self._stopping = max_staleness - 1, stopping
        self._ahead = min(AHEAD, self._most)
        self._change = threading.Condition()
        self._waiting = 0

    def next(self) -> int | None:
        """Waits until few enough pulled batches wait for their end; None when stopping.

        Returns:
            How many pushes may be unacknowledged when the pull is sent. That remains right when a step ends meanwhile:
            its push then counts among the unacknowledged ones instead of among the batches.
        """
        with self._change:
            while self._waiting > self._ahead:
                if self._stopping.is_set():
                    return None
                self._change.wait(LOOK_EVERY_S)
            allowed = self._most - self._waiting
            self._waiting += 1
            return allowed

    def ended(self) -> None:
        """A pulled batch has ended: its push is sent, or it had none."""
        with self._change:
            self._waiting -= 1
            self._change.notify()


class Puller:
    """Pulls ahead. `run` is the thread's; whatever goes wrong comes out of `out`."""

    def __init__(
        self,
        pool: ShardPool,
        layout: Layout,
        prepared: Handover[Prepared],
        max_staleness: int,
        stopping: threading.Event,
    ) -> None:
        self._pool, self._layout, self._prepared, self._stopping = pool, layout, prepared, stopping
        self.turns = Turns(max_staleness, stopping)
        self.out: Handover[Pulled] = Handover(AHEAD, stopping)

    def run(self) -> None:
        """Pulls until the batches end or the worker stops."""
        try:
            while not self._stopping.is_set() and not self._prepared.ended:
                with span("wait: batch"):
                    prepared = self._prepared.take(LOOK_EVERY_S)
                if prepared is None:
                    continue
                with span("wait: turn"):
                    allowed = self.turns.next()
                    if allowed is None:
                        return
                    self._pool.wait(allowed)
                self.out.give(pull(self._pool, self._layout, prepared))
            self.out.end()
        except BaseException as error:
            self.out.end(error)
