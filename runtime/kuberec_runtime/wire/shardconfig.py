"""The values that go in and out of a shard: what it is, what a cut holds, which pushes it remembers."""

from dataclasses import dataclass, field

from kuberec_api.model import Initializer, SparseOptimizer
from kuberec_api.training import DenseOptimizer
from kuberec_runtime.table import DenseState, Rows
from kuberec_runtime.table.buckets import BUCKETS
from kuberec_runtime.table.table import Consumer


@dataclass(frozen=True)
class ShardConfig:
    """What one shard is.

    Attributes:
        index: number of this shard, from 0.
        shards: how many there are; at most 256.
        widths: row widths that the model uses, one table each.
        dense_size: floats of the model's whole dense vector; this shard holds `dense_slice(dense_size, index, shards)`.
        optimizer: of rows.
        initializer: of rows.
        dense_optimizer: of dense weights.
        seed: the model's.
        token: the attempt's secret, which every peer must present.
        digest: of the feature plan; peers with another one are refused.
        workers: how many workers there are, numbered from 0; a cut needs the mark of each.
        min_count: pushes that name a key before it gets a row; below 2 every key has one at once.
        published: whether there are publications; if not, tables remember nothing for them but marks.
        synchronous: whether the pushes of a step wait for each other and are applied in the order of the workers.
    """

    index: int
    shards: int
    widths: tuple[int, ...]
    dense_size: int
    optimizer: SparseOptimizer
    initializer: Initializer
    dense_optimizer: DenseOptimizer
    seed: int
    token: bytes = field(repr=False)
    digest: str
    workers: int
    min_count: int = 0
    published: bool = True
    synchronous: bool = False

    def __post_init__(self) -> None:
        """Refuses what can never work."""
        if not 1 <= self.shards <= BUCKETS or not 0 <= self.index < self.shards:
            raise ValueError(
                f"shard {self.index} of {self.shards}: there may be 1 to {BUCKETS} shards, numbered from 0"
            )
        if self.workers < 1 or len(set(self.widths)) != len(self.widths) or not self.token:
            raise ValueError("a shard needs at least one worker, distinct row widths and a token")


@dataclass(frozen=True)
class DedupeMark:
    """The last push of a worker that a shard applied: (incarnation, sequence)."""

    incarnation: int
    sequence: int


@dataclass(frozen=True)
class Cut:
    """One consistent copy of what changed on a shard.

    Attributes:
        epoch: whose marks it stands between.
        consumer: "checkpoint" or "publication".
        full: whether it holds all rows rather than those changed since the consumer's last cut.
        rows: by width.
        dense: this shard's slice.
        applied: samples applied so far, by partition, since the training first started.
        dedupe: last applied push by worker.
        watermark: event time, ms, up to which every worker that ever pushed has pushed; 0 if unknown.
        stall_s: how long the connections stood still for the copy, seconds.
    """

    epoch: int
    consumer: Consumer
    full: bool
    rows: dict[int, Rows]
    dense: DenseState
    applied: dict[int, int]
    dedupe: dict[int, DedupeMark]
    watermark: int
    stall_s: float
