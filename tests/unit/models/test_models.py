"""Layout, pooling and its transpose, and what the network refuses."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from featuregen.compiler import compile_plan
from kuberec_api import RecModel
from kuberec_api.layout import NetworkError, build_layout
from kuberec_runtime.models.embed import dedupe, pool, pool_backward, squash

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


@settings(deadline=None)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=20), st.booleans(), st.booleans(), st.integers(0, 2**31))
def test_pooling_equals_the_plain_sum_and_its_transpose_is_the_gradient(
    lengths: list[int], mean: bool, linear: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    n, dim, unique = len(lengths), 3, 7
    rows = rng.standard_normal((unique, dim + linear)).astype(np.float32)
    offsets = np.concatenate(([0], np.cumsum(lengths))).astype(np.int32)
    inverse = rng.integers(0, unique, offsets[-1]).astype(np.int32)
    x = np.zeros((n, 1 + dim), np.float32)
    pool(rows, inverse, offsets, mean, linear, x, 1, 0 if linear else -1)
    matrix = np.zeros((n, unique))
    for r in range(n):
        for j in range(offsets[r], offsets[r + 1]):
            matrix[r, inverse[j]] += 1 / max(lengths[r], 1) if mean else 1
    expected = matrix @ rows
    np.testing.assert_allclose(x[:, 1:], expected[:, int(linear) :], rtol=1e-5, atol=1e-5)
    if linear:
        np.testing.assert_allclose(x[:, 0], expected[:, 0], rtol=1e-5, atol=1e-5)
    dx = rng.standard_normal(x.shape).astype(np.float32)
    out = np.zeros_like(rows)
    pool_backward(dx, inverse, offsets, mean, linear, 1, 0 if linear else -1, out)
    wanted = matrix.T @ (dx if linear else dx[:, 1:])
    np.testing.assert_allclose(out, wanted, rtol=1e-4, atol=1e-4)


def test_one_user_row_is_copied_to_every_candidate() -> None:
    rows = np.arange(6, dtype=np.float32).reshape(2, 3)
    x = np.zeros((4, 3), np.float32)
    pool(rows, np.array([0, 1], np.int32), np.array([0, 2], np.int32), False, False, x, 0, -1)
    np.testing.assert_array_equal(x, np.tile(rows.sum(axis=0), (4, 1)))


def test_squash_keeps_the_sign_and_copies_one_row() -> None:
    x = np.zeros((3, 2), np.float32)
    squash(np.array([[-1.0, 3.0]], np.float32), x, 0)
    np.testing.assert_allclose(x, np.tile([-np.log1p(1), np.log1p(3)], (3, 1)), rtol=1e-6)
