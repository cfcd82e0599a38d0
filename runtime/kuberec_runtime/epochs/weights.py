"""Dense weights of an epoch by name: the flat vectors of the checkpoint, cut where the epoch (or a network) says."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from kuberec_runtime.checkpoint import Manifest, Store, read_dense
from kuberec_runtime.models.flat import WeightShapes, by_name, size_of

F32 = NDArray[np.float32]
MOMENTS = ("m", "v")


@dataclass(frozen=True)
class DenseWeights:
    """All dense weights as one float32[d] with the optimizer's vectors of the same length; `shapes` may be unknown."""

    flat: F32
    moments: Mapping[str, F32]
    step: int
    shapes: WeightShapes = ()

    def named(self, shapes: WeightShapes) -> "DenseWeights":
        """The same with the names and shapes of a network."""
        return replace(self, shapes=shapes)


def read_weights(store: Store, manifest: Manifest) -> DenseWeights:
    """Reads an epoch's dense weights.

    Raises:
        ObjectMissing, CorruptFile: the file is not there or broken.
        StoreError: the store does not answer.
    """
    if manifest.dense is None:
        return DenseWeights(np.zeros(0, np.float32), {}, 0)
    arrays, metadata = read_dense(store, manifest.dense)
    moments = {name: arrays[name] for name in MOMENTS if name in arrays}
    shapes = tuple((w.name, w.shape) for w in manifest.weights)
    flat = arrays["weights"]
    return DenseWeights(flat, moments, int(metadata.get("step", 0)), shapes if size_of(shapes) == flat.size else ())


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
