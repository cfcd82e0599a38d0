"""The dense network as a Keras file. Apart, because it is the one part of an export that needs TensorFlow."""

import os
from pathlib import Path

from kuberec_api.layout import Layout, NetworkError
from kuberec_api.model import RecModelSpec
from kuberec_runtime.models.flat import WeightShapes
from kuberec_runtime.models.weights import DenseWeights


def write_network(spec: RecModelSpec, layout: Layout, weights: DenseWeights, path: Path) -> DenseWeights:
    """Builds the network, sets its weights and saves it in Keras' own format.

    The model maps X float32[n, D] (see `kuberec_api.layout`) to logits float32[n, 1]; a score is their sigmoid.

    Args:
        spec: the model's.
        layout: of its input.
        weights: the epoch's.
        path: ends in `.keras`.

    Returns:
        The weights with the network's names.

    Raises:
        NetworkError: the network has other dense weights than the epoch.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    from kuberec_runtime.models.network import Network

    network = Network(spec, layout)
    known = list(weights.shapes) or network.weights
    if network.size != weights.flat.size or known != network.weights:
        raise NetworkError(
            f"this network has {network.size} dense weights ({_names(network.weights)}), the epoch has "
            f"{weights.flat.size} ({_names(weights.shapes)}): give spec.network as it was then, or leave --model away"
        )
    network.set_dense(weights.flat)
    network.model.save(path)
    return weights.named(network.weights)


def _names(shapes: WeightShapes) -> str:
    return ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in shapes) or "names unknown"
