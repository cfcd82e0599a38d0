"""Small shards for the tests of the wire."""

import numpy as np

from kuberec_api.model import Initializer, InitializerKind, SparseOptimizer, SparseOptimizerKind
from kuberec_api.training import DenseOptimizer, DenseOptimizerKind
from kuberec_runtime.wire.messages import Push
from kuberec_runtime.wire.shardconfig import ShardConfig

TOKEN = b"the attempt's token, 32 bytes..."
DIGEST = "a" * 64


def config(index: int = 0, shards: int = 1, workers: int = 1, dense_size: int = 4, widths: tuple[int, ...] = (2,)):  # type: ignore[no-untyped-def]
    """A model in which every step of gradient 1 moves every weight by exactly -1, so that sums are counts."""
    return ShardConfig(
        index=index,
        shards=shards,
        widths=widths,
        dense_size=dense_size,
        optimizer=SparseOptimizer(kind=SparseOptimizerKind.SGD, learning_rate=1.0),
        initializer=Initializer(kind=InitializerKind.ZEROS),
        dense_optimizer=DenseOptimizer(kind=DenseOptimizerKind.SGD, learning_rate=1.0),
        seed=1,
        token=TOKEN,
        digest=DIGEST,
        workers=workers,
    )


def ones(sequence: int, keys: list[int], partition: int = 0, samples: int = 1, dense: int = 4, width: int = 2) -> Push:
    """A push of gradient 1 on every weight of `keys` and of the dense slice."""
    array = np.array(keys, np.int64)
    return Push(
        sequence,
        sequence + 1,
        {width: array},
        {width: np.ones((array.size, width), np.float32)},
        {partition: samples},
        np.ones(dense, np.float32),
    )
