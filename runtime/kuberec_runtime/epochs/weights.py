"""Dense weights of an epoch as safetensors, by name."""

from pathlib import Path

import numpy as np
from safetensors.numpy import save

from kuberec_runtime.models.flat import WeightShapes, by_name
from kuberec_runtime.models.weights import DenseWeights


def export_weights(weights: DenseWeights, path: Path, with_state: bool) -> dict[str, object]:
    """Writes safetensors: every weight under its name (`weights`, flat, if names are unknown).

    With state also `m/<name>` and `v/<name>` of the optimizer.

    Returns:
        What is in it, for the layout page.
    """
    vectors = {"": weights.flat, **({f"{name}/": vector for name, vector in weights.moments.items()})}
    if not with_state:
        vectors = {"": weights.flat}
    shapes: WeightShapes = weights.shapes or (("weights", (weights.flat.size,)),)
    arrays = {
        prefix + name: np.ascontiguousarray(array)
        for prefix, vector in vectors.items()
        for name, array in by_name(shapes, vector).items()
    }
    path.write_bytes(save(arrays, {"step": str(weights.step)}))
    return {"step": weights.step, "weights": [{"name": name, "shape": list(shape)} for name, shape in shapes]}
