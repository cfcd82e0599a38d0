import numpy as np
import pytest

from kuberec_runtime.table import shard_of
from kuberec_runtime.wire.routing import dense_slice, group_rows, merge_rows, route


@pytest.mark.parametrize("shards", [1, 2, 5, 256])
@pytest.mark.parametrize("width", [1, 16, 17])
def test_rows_split_by_shard_and_merged_come_back_in_order(shards: int, width: int) -> None:
    rng = np.random.default_rng(shards)
    keys = rng.integers(0, 2**62, 3000)
    rows = rng.standard_normal((3000, width)).astype(np.float32)
    way = route(keys, shards)
    grouped = group_rows(rows, way.order)
    out = np.full_like(rows, np.nan)
    for shard in range(shards):
        part = way.part(shard)
        assert (shard_of(way.keys[part], shards) == shard).all()
        assert (np.diff(way.order[part]) > 0).all()
        merge_rows(grouped[part], way.order[part], out)
    assert np.array_equal(out, rows)
    assert np.array_equal(way.keys, keys[way.order])


def test_no_keys_are_a_route_to_nowhere() -> None:
    way = route(np.empty(0, np.int64), 3)
    assert [way.keys[way.part(s)].size for s in range(3)] == [0, 0, 0]


@pytest.mark.parametrize(("size", "shards"), [(0, 3), (10, 3), (2, 5), (12, 4)])
def test_dense_weights_are_cut_as_numpy_cuts_them(size: int, shards: int) -> None:
    vector = np.arange(size)
    for shard, expected in enumerate(np.array_split(vector, shards)):
        assert np.array_equal(vector[dense_slice(size, shard, shards)], expected)
