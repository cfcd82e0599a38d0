"""What a commit refuses, and the slices of the dense state."""

import numpy as np
import pytest

from kuberec_runtime.stream.source import BadRecordError, TopicNotFoundError
from kuberec_runtime.table.dense import DenseState
from kuberec_runtime.train.exitcode import classify
from kuberec_runtime.train.fleet import LostError
from kuberec_runtime.train.ledger import CountMismatchError, DigestMismatchError, _check_counts, join, split
from kuberec_runtime.train.shardhost import ShardEpoch, buckets_of_shard


def dense(size: int) -> DenseState:
    return DenseState(*(np.arange(size, dtype=np.float32) + i for i in range(3)), step=7)


@pytest.mark.parametrize("shards", [1, 2, 3, 7])
def test_splitting_and_joining_dense_state_is_the_identity(shards: int) -> None:
    whole = dense(10)
    back = join(split(whole, shards))
    np.testing.assert_array_equal(back.weights, whole.weights)
    np.testing.assert_array_equal(back.v, whole.v)
    assert back.step == 7


@pytest.mark.parametrize("shards", [1, 2, 3, 5, 256])
def test_every_bucket_has_one_shard(shards: int) -> None:
    owned = [b for i in range(shards) for b in buckets_of_shard(i, shards)]
    assert owned == list(range(256))
    assert all(b * shards // 256 == i for i in range(shards) for b in buckets_of_shard(i, shards))


def test_an_epoch_is_refused_when_a_shard_counted_other_samples() -> None:
    good = ShardEpoch((), dense(1), {0: 10, 1: 5})
    _check_counts(3, {0: 10, 1: 5, 2: 0}, [good, good])
    with pytest.raises(CountMismatchError, match=r"shard 1 applied \{0: 10\}"):
        _check_counts(3, {0: 10, 1: 5}, [good, ShardEpoch((), dense(1), {0: 10})])


@pytest.mark.parametrize(
    ("error", "reason", "permanent"),
    [
        (BadRecordError("x"), "BadRecord", True),
        (TopicNotFoundError("x"), "TopicNotFound", False),
        (DigestMismatchError("x"), "DigestMismatch", True),
        (LostError("worker", 1, RuntimeError("gone")), "WorkerLost", False),
        (CountMismatchError("x"), "CountMismatch", False),
        (RuntimeError("x"), "RuntimeError", False),
    ],
)
def test_every_ending_has_a_reason_and_a_class(error: Exception, reason: str, permanent: bool) -> None:
    ending = classify(error)
    assert (ending.reason, ending.permanent) == (reason, permanent)
