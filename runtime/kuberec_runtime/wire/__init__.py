"""The data plane between workers and shards: frames, pushes applied once, and the barrier of a cut."""

from kuberec_runtime.table.dense import DenseState
from kuberec_runtime.table.table import Rows
from kuberec_runtime.wire.client import Pulled, ShardPool
from kuberec_runtime.wire.errors import (
    CutAborted,
    CutTimeout,
    FrameDamaged,
    FrameError,
    ShardLost,
    StaleEpoch,
    WireError,
    WireRefused,
)
from kuberec_runtime.wire.link import Patience, Terms
from kuberec_runtime.wire.routing import dense_slice
from kuberec_runtime.wire.server import Shard, ShardReport
from kuberec_runtime.wire.shardconfig import Cut, DedupeMark, ShardConfig

__all__ = [
    "Cut",
    "CutAborted",
    "CutTimeout",
    "DedupeMark",
    "DenseState",
    "FrameDamaged",
    "FrameError",
    "Patience",
    "Pulled",
    "Rows",
    "Shard",
    "ShardConfig",
    "ShardLost",
    "ShardPool",
    "ShardReport",
    "StaleEpoch",
    "Terms",
    "WireError",
    "WireRefused",
    "dense_slice",
]
