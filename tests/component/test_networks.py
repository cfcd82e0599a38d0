"""The three networks on real TensorFlow: gradients, weights by name, and that they learn."""

from pathlib import Path

import numpy as np
import pytest
import yaml

from featuregen.compiler import compile_plan
from kuberec_api import RecModel
from kuberec_api.layout import build_layout
from kuberec_runtime.models.network import Network

FEED = Path(__file__).parents[2] / "examples" / "feed.yaml"
KINDS = {
    "DeepFM": {"wide": ["item_id", "cate"], "deep": ["user_id", "cate", "price", "clk_cate"]},
    "WideAndDeep": {"wide": ["user_id", "cate"], "deep": ["user_id", "item_id", "price"]},
    "MultiTower": {"user": ["user_id", "gender", "clk_all"], "item": ["item_id", "cate", "price"]},
}


def network_of(kind: str, seed: int = 0) -> Network:
    document = next(yaml.safe_load_all(FEED.read_text()))
    document["spec"]["network"] = {"kind": kind, "groups": KINDS[kind], "params": {"hiddenUnits": [16, 8]}}
    document["spec"]["seed"] = seed
    model = RecModel.model_validate(document)
    return Network(model.spec, build_layout(model.spec, compile_plan(model.spec.features)))


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_of_the_input_is_that_of_the_loss(kind: str) -> None:
    network = network_of(kind)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((8, network.layout.dimension)).astype(np.float32)
    labels = (rng.random(8) < 0.5).astype(np.float32)
    step = network.step(x, labels)
    direction = rng.standard_normal(x.shape).astype(np.float32)
    direction /= np.linalg.norm(direction)
    h = np.float32(1e-2)
    numeric = (network.step(x + h * direction, labels).loss - network.step(x - h * direction, labels).loss) / (2 * h)
    assert numeric == pytest.approx(float((step.dx * direction).sum()), abs=2e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_weights_go_by_name_and_come_back(kind: str) -> None:
    network = network_of(kind)
    flat = np.random.default_rng(1).standard_normal(network.size).astype(np.float32)
    network.set_dense(flat)
    np.testing.assert_array_equal(network.dense(), flat)
    np.testing.assert_array_equal(network.flat(network.named(flat)), flat)
    named = network.named(flat)
    named.pop(next(iter(named)))
    with pytest.raises(ValueError, match="the version has nothing"):
        network.flat(named)


def test_initial_weights_depend_on_the_seed_only() -> None:
    first, again, other = network_of("DeepFM"), network_of("DeepFM"), network_of("DeepFM", seed=1)
    np.testing.assert_array_equal(first.dense(), again.dense())
    assert not np.array_equal(first.dense(), other.dense())


@pytest.mark.parametrize("kind", KINDS)
def test_descending_the_dense_gradient_lowers_the_loss(kind: str) -> None:
    network = network_of(kind)
    rng = np.random.default_rng(2)
    x = rng.standard_normal((256, network.layout.dimension)).astype(np.float32)
    labels = (x[:, -1] > 0).astype(np.float32)
    first = network.step(x, labels).loss
    for _ in range(50):
        step = network.step(x, labels)
        network.set_dense(network.dense() - np.float32(0.1) * step.dense_gradient)
    assert network.step(x, labels).loss < first - 0.02
    np.testing.assert_allclose(network.score(x), network.step(x, labels).predictions, rtol=1e-5, atol=1e-6)
