import numpy as np
import pytest

from kuberec_runtime.table.buckets import bucket_of, foreign_key, key_of, mix64, shard_of, split_key
from kuberec_runtime.table.compiled import kernel


@kernel
def mixed(keys):  # type: ignore[no-untyped-def]
    out = np.empty(keys.size, np.uint64)
    for i in range(keys.size):
        out[i] = mix64(np.uint64(keys[i]))
    return out


def test_keys_are_exact_and_invertible() -> None:
    ids = np.array([0, 1, 2**47 - 1])
    for ordinal in (0, 1, 2**15 - 1):
        keys = key_of(ordinal, ids)
        assert (keys >= 0).all()
        ordinals, back = split_key(keys)
        assert (ordinals == ordinal).all() and np.array_equal(back, ids)
    with pytest.raises(ValueError, match="ordinal"):
        key_of(2**15, ids)


def test_numpy_and_numba_agree_on_the_bucket() -> None:
    keys = np.random.default_rng(0).integers(0, 2**63 - 1, 10_000)
    assert np.array_equal(bucket_of(keys), (mixed(keys) >> np.uint64(56)).astype(np.uint8))


def test_buckets_are_frozen_because_checkpoints_are_split_by_them() -> None:
    assert bucket_of(np.array([0, 1, 2, 3, 2**48, 2**62])).tolist() == [0, 86, 219, 30, 51, 18]


def test_consecutive_ids_fill_buckets_evenly() -> None:
    counts = np.bincount(bucket_of(key_of(3, np.arange(256_000))), minlength=256)
    assert counts.min() > 850 and counts.max() < 1150


@pytest.mark.parametrize("shards", [1, 2, 3, 7, 64, 256])
def test_every_bucket_has_one_shard_and_shards_are_even(shards: int) -> None:
    keys = np.arange(100_000)
    owners = shard_of(keys, shards)
    assert np.array_equal(owners, bucket_of(keys).astype(int) * shards // 256)
    assert set(owners.tolist()) == set(range(shards))
    for shard in (0, shards - 1):
        mine = keys[owners == shard]
        assert foreign_key(mine, shard, shards) == -1
        if shards > 1:
            assert foreign_key(np.append(mine, keys[owners != shard][0]), shard, shards) == mine.size
    assert foreign_key(np.array([-5]), 0, 1) == 0


def test_too_many_shards_are_refused() -> None:
    with pytest.raises(ValueError, match="256"):
        shard_of(np.arange(3), 257)
