import numpy as np
import pytest

from kuberec_runtime.table import shard_of
from kuberec_runtime.wire.routing import dense_slice, group_rows, merge_rows, route, route_words


@pytest.mark.parametrize("shards", [1, 2, 5, 256])
@pytest.mark.parametrize("width", [1, 16, 17])
def test_rows_split_by_shard_and_merged_come_back_in_order(shards: int, width: int) -> None:
    rng = np.random.default_rng(shards)
    keys = rng.integers(0, 2**62, 3000)
    rows = rng.standard_normal((3000, width)).astype(np.float32)
    way = route(keys, shards, np.full(route_words(keys.size, shards), -1))
    out = np.full_like(rows, np.nan)
    for shard in range(shards):
        part = way.part(shard)
        order = np.arange(3000, dtype=np.int32)[part] if way.order is None else way.order[part]
        assert (way.order is None) == (shards == 1)
        assert (shard_of(way.keys[part], shards) == shard).all()
        assert np.array_equal(way.keys[part], keys[order])
        assert (np.diff(order) > 0).all()
        merge_rows(group_rows(rows, order), order, out)
    assert np.array_equal(out, rows)


@pytest.mark.parametrize("shards", [1, 2, 4, 5, 256])
def test_keys_that_come_grouped_are_left_as_they_are(shards: int) -> None:
    keys = np.random.default_rng(shards).integers(0, 2**62, 100)
    keys = keys[np.argsort(shard_of(keys, shards), kind="stable")]
    way = route(keys, shards)
    assert way.order is None and way.keys is keys
    assert np.concatenate([keys[way.part(s)] for s in range(shards)]).tolist() == keys.tolist()
    assert all((shard_of(keys[way.part(s)], shards) == s).all() for s in range(shards))
    if shards > 1:
        assert route(keys[::-1].copy(), shards).order is not None


def test_no_keys_are_a_route_to_nowhere() -> None:
    way = route(np.empty(0, np.int64), 3)
    assert [way.keys[way.part(s)].size for s in range(3)] == [0, 0, 0]


@pytest.mark.parametrize(("size", "shards"), [(0, 3), (10, 3), (2, 5), (12, 4)])
def test_dense_weights_are_cut_as_numpy_cuts_them(size: int, shards: int) -> None:
    vector = np.arange(size)
    for shard, expected in enumerate(np.array_split(vector, shards)):
        assert np.array_equal(vector[dense_slice(size, shard, shards)], expected)
