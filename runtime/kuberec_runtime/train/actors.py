"""What Ray runs: thin shells around `ShardHost` and `Worker`; everything interesting is in those.

Heavy imports (TensorFlow) happen inside the worker's constructor, so a shard never pays for them.
"""

import os
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kuberec_api import RecModel, RecTraining
from kuberec_api.training import Transport
from kuberec_runtime import spans
from kuberec_runtime.checkpoint import WarmTaken
from kuberec_runtime.stream import PartitionStart
from kuberec_runtime.table.dense import DenseState
from kuberec_runtime.table.table import Consumer
from kuberec_runtime.train.job import Job
from kuberec_runtime.train.memory import Holding
from kuberec_runtime.train.reports import WorkerCut, WorkerReport
from kuberec_runtime.train.shardhost import ShardEpoch, ShardHost, ShardPublication

if TYPE_CHECKING:
    from kuberec_runtime.train.worker import Worker

IN_STEP_ANSWER_S = 3600.0
"""In Sync mode a push is answered when the slowest worker has pushed, and that may be waiting for its brokers."""


def node_address() -> str:
    """The address under which other pods reach this process; loopback when Ray runs on this machine alone."""
    import ray

    return str(ray.util.get_node_ip_address())


class ShardActor:
    """One shard."""

    def __init__(self, model: RecModel, training: RecTraining, attempt: int, index: int, token: bytes) -> None:
        self._host, self._index = ShardHost(Job(model, training, attempt), index, token), index
        self._closed = threading.Event()

    def start(self, dense_size: int) -> tuple[str, int]:
        """See `ShardHost.start`."""
        return self._host.start(node_address(), dense_size)

    def restore(self, dense_size: int, manifest: str, dense: DenseState) -> tuple[tuple[str, int], int]:
        """Starts it if it is new; returns its address and the rows restored. See `ShardHost.restore`."""
        return self.start(dense_size), self._host.restore(manifest, dense)

    def warm(self, taken: WarmTaken) -> int:
        """See `ShardHost.warm`."""
        return self._host.warm(taken)

    def begin(self, dense: DenseState) -> None:
        """See `ShardHost.begin`."""
        self._host.begin(dense)

    def checkpoint(self, epoch: int, full: bool, prefix: str, timeout_s: float) -> ShardEpoch:
        """See `ShardHost.checkpoint`."""
        return self._host.checkpoint(epoch, full, prefix, timeout_s)

    def publish(self, epoch: int, timeout_s: float) -> ShardPublication:
        """See `ShardHost.publish`."""
        return self._host.publish(epoch, timeout_s)

    def settle(self, consumer: Consumer, epoch: int, kept: bool) -> None:
        """See `ShardHost.settle`."""
        self._host.settle(consumer, epoch, kept)

    def start_over(self) -> None:
        """See `ShardHost.start_over`."""
        self._host.start_over()

    def abort(self, epoch: int) -> None:
        """See `ShardHost.abort`."""
        self._host.abort(epoch)

    def memory(self) -> dict[int, Holding]:
        """See `ShardHost.memory`."""
        return self._host.memory()

    def profile(self) -> spans.Part | None:
        """Where the time went so far, if this is measured."""
        return spans.part(f"shard {self._index}")

    def until_closed(self) -> None:
        """Returns once it is closed: a call that fails as soon as this process has died."""
        self._closed.wait()

    def close(self) -> None:
        """Stops listening."""
        self._host.close()
        self._closed.set()


class WorkerActor:
    """One worker."""

    def __init__(self, model: RecModel, training: RecTraining, attempt: int, index: int, token: bytes) -> None:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        import tensorflow as tf

        from kuberec_runtime.models.network import Network

        threads = int(os.environ.get("OMP_NUM_THREADS", "1") or 1)
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
        self._job, self._index, self._token = Job(model, training, attempt), index, token
        self._network = Network(model.spec, self._job.layout)
        self._worker: Worker | None = None

    def dense(self) -> tuple[Any, list[tuple[str, tuple[int, ...]]]]:
        """Initial dense weights float32[size], a function of the model's seed only, and their names and shapes."""
        return self._network.dense(), self._network.weights

    def connect(self, addresses: Sequence[tuple[str, int]], starts: Sequence[PartitionStart], incarnation: int) -> None:
        """Connects to the shards and opens the source; the run of before, if there was one, has ended."""
        from kuberec_runtime.stream.opening import open_source
        from kuberec_runtime.train.worker import Worker
        from kuberec_runtime.wire.client import ShardPool
        from kuberec_runtime.wire.link import Patience, Terms

        job, in_step, spec = self._job, self._job.synchronous, self._job.training.spec
        patience = Patience(answer=IN_STEP_ANSWER_S) if in_step else Patience()
        wire = spec.synchronization.wire
        terms = Terms(wire.dtype, share=wire.transport is Transport.AUTO, checked=wire.checksums)
        pool = ShardPool.connect(addresses, self._token, job.plan.digest, self._index, incarnation, patience, terms)
        source = open_source(spec.source, job.schema, starts, spec.workers.batch_size, in_order=in_step)
        self._worker = Worker(self._job, source, pool, self._network)
        self._worker.begin_at(starts)

    def add(self, starts: Sequence[PartitionStart]) -> None:
        """See `Worker.add`."""
        self._ready.add(starts)

    def run(self) -> None:
        """See `Worker.run`."""
        self._ready.run()

    def hold(self, epoch: int) -> int:
        """See `Worker.hold`."""
        return self._ready.hold(epoch)

    def release(self, epoch: int) -> None:
        """See `Worker.release`."""
        self._ready.release(epoch)

    def cut(self, epoch: int, timeout_s: float, step: int) -> WorkerCut:
        """See `Worker.cut`."""
        return self._ready.cut(epoch, timeout_s, step)

    def report(self) -> WorkerReport:
        """See `Worker.report`."""
        return self._ready.report()

    def profile(self) -> spans.Part | None:
        """Where the time went so far, if this is measured."""
        return spans.part(f"worker {self._index}")

    def pause(self) -> None:
        """See `Worker.pause`."""
        self._ready.pause()

    def stop(self) -> None:
        """See `Worker.stop`."""
        if self._worker is not None:
            self._worker.stop()

    @property
    def _ready(self) -> "Worker":
        if self._worker is None:
            raise RuntimeError("this worker is not connected yet")
        return self._worker
