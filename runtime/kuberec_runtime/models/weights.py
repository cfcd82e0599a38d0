"""Dense weights of an epoch by name: the flat vectors of the checkpoint, cut where the epoch (or a network) says."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from kuberec_runtime.checkpoint import Manifest, Store, read_dense
from kuberec_runtime.models.flat import WeightShapes, size_of

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
