"""Layout, pooling and its transpose, and what the network refuses."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from featuregen.compiler import compile_plan
from featuregen.results import Column, Features
from kuberec_api import RecModel
from kuberec_api.layout import NetworkError, build_layout
from kuberec_runtime.models.embed import assemble, dedupe, gradients, group, plan_lookup, squash
from kuberec_runtime.models.pooling import Grid, fits_grid, pool, pool_backward, pool_grid, pool_grid_backward
from kuberec_runtime.table.buckets import key_of, shard_of

FEED = Path(__file__).parents[3] / "examples" / "feed.yaml"


def feed(**network: object) -> RecModel:
    document = next(yaml.safe_load_all(FEED.read_text()))
    document["spec"]["network"] |= network
    return RecModel.model_validate(document)


def test_columns_of_the_example_do_not_overlap_and_cover_everything() -> None:
    model = feed()
    layout = build_layout(model.spec, compile_plan(model.spec.features))
    covered = list(range(layout.linear))
    for slot in layout.slots:
        covered += range(slot.column, slot.column + slot.width)
    assert sorted(covered) == list(range(layout.dimension))
    assert layout.linear == 4
    assert layout.groups["deep"] == ((layout.linear, layout.dimension),)


def test_a_table_in_the_linear_group_has_one_more_float() -> None:
    model = feed()
    layout = build_layout(model.spec, compile_plan(model.spec.features))
    assert layout.tables["cate"].width == 9
    assert layout.tables["brand"].width == 8
    assert layout.tables["user_id"].width == 16


@pytest.mark.parametrize(
    ("network", "says"),
    [
        ({"groups": {"wide": ["cate"], "deep": ["prise"]}}, r"feature 'prise' does not exist\n.*did you mean 'price'"),
        ({"groups": {"wide": ["price"], "deep": ["cate"]}}, "'price' is dense"),
        ({"groups": {"wide": ["cate", "user_id"], "deep": ["cate"]}}, "need one embedding dim.*user_id: 16"),
        ({"groups": {"deep": ["cate"]}}, "has the groups 'wide' and 'deep'"),
    ],
)
def test_a_network_that_does_not_fit_is_refused_by_name(network: dict[str, object], says: str) -> None:
    model = feed(**network)
    with pytest.raises(NetworkError, match=says):
        build_layout(model.spec, compile_plan(model.spec.features))


@settings(deadline=None)
@given(st.lists(st.integers(0, 40), max_size=300))
def test_dedupe_is_unique_in_order_of_first_appearance(values: list[int]) -> None:
    keys = np.array(values, np.int64)
    unique, inverse = np.empty(keys.size, np.int64), np.empty(keys.size, np.int32)
    count = dedupe(keys, unique, inverse)
    assert list(unique[:count]) == list(dict.fromkeys(values))
    np.testing.assert_array_equal(unique[inverse], keys)


def with_features(features: list[dict[str, object]], deep: list[str]) -> RecModel:
    """The example with more features, and a group that reads them."""
    document = next(yaml.safe_load_all(FEED.read_text()))
    sources = document["spec"]["features"]["sources"]
    sources["user"]["fields"] |= {"tags": "map<string,float>", "vector": "list<float>"}
    sources["item"]["fields"] |= {"words": "list<string>"}
    document["spec"]["features"]["list"] += features
    document["spec"]["network"]["groups"]["deep"] = ["cate", *deep]
    return RecModel.model_validate(document)


NUMBERS = {
    "name": "seen",
    "op": "sequence",
    "behavior": "clicks",
    "length": 5,
    "fields": [{"in": "item.cate", "like": "cate"}, {"in": "item.price"}],
}
STUB = {"name": "bare", "op": "raw", "in": ["item.price"], "stub": True}
READER = {"name": "doubled", "op": "expr", "in": ["feature.bare"], "expr": "bare * 2"}


@pytest.mark.parametrize(
    ("features", "says"),
    [
        ([NUMBERS], r"group 'deep': field 'price' of sequence 'seen' is numbers.*\n.*boundaries"),
        ([STUB, READER], r"group 'deep': feature 'bare' is a stub\n.*remove `stub`"),
    ],
)
def test_a_feature_without_an_input_of_one_width_is_refused(features: list[dict[str, object]], says: str) -> None:
    model = with_features(features, [str(features[0]["name"])])
    with pytest.raises(NetworkError, match=says):
        build_layout(model.spec, compile_plan(model.spec.features))


def test_a_sequence_of_numbers_that_no_group_reads_takes_no_column() -> None:
    model = with_features([NUMBERS, STUB, READER], [])
    without = with_features([], [])
    with_it, plain = (build_layout(m.spec, compile_plan(m.spec.features)) for m in (model, without))
    assert with_it == plain


def test_vectors_weighted_ids_and_lists_of_ids_of_an_event_fill_their_columns() -> None:
    model = with_features(
        [
            {"name": "tags", "op": "id", "weighted": True, "in": ["user.tags"], "encode": {"hashBuckets": 100}},
            {"name": "vector", "op": "raw", "in": ["user.vector"], "dim": 3},
            {
                "name": "read",
                "op": "sequence",
                "behavior": "clicks",
                "length": 5,
                "fields": [{"in": "item.words", "encode": {"hashBuckets": 100}}],
            },
        ],
        ["tags", "vector", "read"],
    )
    layout = build_layout(model.spec, compile_plan(model.spec.features))
    slots = {slot.output: slot for slot in layout.slots}
    ids = np.array([7, 8, 9], np.int64)
    two_elements = np.array([0, 1, 3], np.int32)
    columns = {slot.output: Column(1, ids[:0], np.zeros(2, np.int32)) for slot in layout.sparse}
    columns["tags"] = Column(1, ids, np.array([0, 3], np.int32), weights=np.array([1.0, -2.0, 0.5], np.float32))
    columns["vector"] = Column(1, values=np.array([[0.0, 1.0, -3.0]], np.float32))
    columns["read__words"] = Column(
        1, ids, np.array([0, 3], np.int32), elements=np.array([0, 2], np.int32), element_offsets=two_elements
    )
    features = Features(1, columns)
    lookup = plan_lookup(layout, features)
    rng = np.random.default_rng(0)
    rows = {width: rng.standard_normal((keys.size, width)).astype(np.float32) for width, keys in lookup.keys.items()}
    x = assemble(layout, features, lookup, rows)
    of = {index.slot.output: rows[layout.tables[index.slot.output].width][index.inverse] for index in lookup.slots}
    tags, read, vector = slots["tags"], slots["read__words"], slots["vector"]
    weighted = of["tags"] * np.array([[1.0], [-2.0], [0.5]], np.float32)
    np.testing.assert_allclose(x[0, tags.column : tags.column + 8], weighted.sum(0), rtol=1e-6)
    np.testing.assert_allclose(x[0, read.column : read.column + 8], of["read__words"].mean(0), rtol=1e-6)
    np.testing.assert_allclose(x[0, vector.column : vector.column + 3], [0, np.log1p(1), -np.log1p(3)], rtol=1e-6)
    pushed = gradients(lookup, np.ones_like(x))[layout.tables["tags"].width]
    index = next(i for i in lookup.slots if i.slot.output == "tags")
    np.testing.assert_array_equal(pushed[index.inverse], np.repeat([[1.0], [-2.0], [0.5]], 8, axis=1))


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 4), min_size=1, max_size=20),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.integers(0, 2**31),
)
def test_pooling_equals_the_plain_sum_and_its_transpose_is_the_gradient(
    lengths: list[int], mean: bool, linear: bool, weighted: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    n, dim, unique = len(lengths), 3, 7
    rows = rng.standard_normal((unique, dim + linear)).astype(np.float32)
    offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int32)
    inverse = rng.integers(0, unique, offsets[-1]).astype(np.int32)
    weights = rng.standard_normal(offsets[-1]).astype(np.float32) if weighted else None
    x = np.zeros((n, 1 + dim), np.float32)
    pool(rows, inverse, offsets, weights, mean, linear, x, 1, 0 if linear else -1)
    matrix = np.zeros((n, unique))
    for r in range(n):
        for j in range(offsets[r], offsets[r + 1]):
            share = 1.0 if weights is None else float(weights[j])
            matrix[r, inverse[j]] += share / max(lengths[r], 1) if mean else share
    expected = matrix @ rows
    np.testing.assert_allclose(x[:, 1:], expected[:, int(linear) :], rtol=1e-5, atol=1e-5)
    if linear:
        np.testing.assert_allclose(x[:, 0], expected[:, 0], rtol=1e-5, atol=1e-5)
    dx = rng.standard_normal(x.shape).astype(np.float32)
    out = np.zeros_like(rows)
    pool_backward(dx, inverse, offsets, weights, mean, linear, 1, 0 if linear else -1, out)
    wanted = matrix.T @ (dx if linear else dx[:, 1:])
    np.testing.assert_allclose(out, wanted, rtol=1e-4, atol=1e-4)


@settings(deadline=None)
@given(st.integers(1, 20), st.integers(1, 40), st.sampled_from([3, 16]), st.booleans(), st.integers(0, 2**31))
def test_a_grid_is_pooled_to_the_bits_of_its_slots(slots: int, n: int, dim: int, linear: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    unique = 11
    rows = rng.standard_normal((unique, dim + linear)).astype(np.float32)
    rows[0] = -0.0  # a sum that begins with zero makes +0.0 of it
    inverse = rng.integers(0, unique, (n, slots)).astype(np.int32)
    columns = slots + rng.permutation(slots) * dim
    linear_columns = np.where(rng.random(slots) < 0.5, np.arange(slots), -1) if linear else np.full(slots, -1)
    grid = Grid(dim, dim + linear, inverse, columns, linear_columns)
    x, expected = (np.full((n, slots * (dim + 1)), 7, np.float32) for _ in range(2))
    pool_grid(rows, grid, x)
    offsets = np.arange(n + 1, dtype=np.int32)
    dx, out, wanted = rng.standard_normal(x.shape).astype(np.float32), np.zeros_like(rows), np.zeros_like(rows)
    for s in range(slots):
        way = np.ascontiguousarray(inverse[:, s]), offsets, None, False, linear
        pool(rows, *way, expected, columns[s], linear_columns[s])
        pool_backward(dx, *way, columns[s], linear_columns[s], wanted)
    assert x.tobytes() == expected.tobytes()
    pool_grid_backward(dx, grid, out)
    np.testing.assert_allclose(out, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("offsets", "weights", "fits"),
    [([0, 1, 2, 3], None, True), ([0, 1, 2, 3], [1, 1, 1], False), ([0, 2, 2, 3], None, False), ([0, 3], None, False)],
)
def test_a_grid_takes_one_id_a_sample(offsets: list[int], weights: list[float] | None, fits: bool) -> None:
    column = Column(
        len(offsets) - 1,
        np.arange(3),
        np.array(offsets, np.int32),
        weights=None if weights is None else np.array(weights, np.float32),
    )
    assert fits_grid(column, 3) is fits


def test_one_user_row_is_copied_to_every_candidate() -> None:
    rows = np.arange(6, dtype=np.float32).reshape(2, 3)
    x = np.zeros((4, 3), np.float32)
    pool(rows, np.array([0, 1], np.int32), np.array([0, 2], np.int32), None, False, False, x, 0, -1)
    np.testing.assert_array_equal(x, np.tile(rows.sum(axis=0), (4, 1)))


def test_squash_keeps_the_sign_and_copies_one_row() -> None:
    x = np.zeros((3, 2), np.float32)
    squash(np.array([[-1.0, 3.0]], np.float32), x, 0)
    np.testing.assert_allclose(x, np.tile([-np.log1p(1), np.log1p(3)], (3, 1)), rtol=1e-6)


@given(values=st.lists(st.integers(0, 40), max_size=2000))
def test_keys_by_bucket_are_the_same_keys_and_grouped_by_shard(values: list[int]) -> None:
    keys = key_of(1, np.array(values, np.int64) * 7919)
    unique, inverse = np.empty(keys.size, np.int64), np.empty(keys.size, np.int32)
    count = dedupe(keys, unique, inverse)
    first = inverse.copy()
    grouped = np.empty(count, np.int64)

    group(unique, inverse, grouped)

    assert np.array_equal(grouped[inverse], unique[first])
    assert sorted(grouped) == sorted(unique[:count])
    for shards in (1, 2, 7, 256):
        assert np.all(np.diff(shard_of(grouped, shards).astype(int)) >= 0)
