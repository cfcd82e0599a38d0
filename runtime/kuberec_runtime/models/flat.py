"""Dense weights as one flat vector and by name: the same cut on the driver (no TensorFlow there) and on replicas."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
WeightShapes = Sequence[tuple[str, tuple[int, ...]]]


def size_of(shapes: WeightShapes) -> int:
    """Floats of all weights together."""
    return sum(int(np.prod(shape, dtype=np.int64)) for _, shape in shapes)


def by_name(shapes: WeightShapes, flat: F32) -> dict[str, F32]:
    """Cuts a flat vector float32[size] into arrays by weight name, in the order of `shapes`."""
    out, at = {}, 0
    for name, shape in shapes:
        size = int(np.prod(shape, dtype=np.int64))
        out[name] = flat[at : at + size].reshape(shape)
        at += size
    return out


def joined(shapes: WeightShapes, named: Mapping[str, F32]) -> F32:
    """Joins arrays by weight name into the flat vector; the inverse of `by_name`.

    Raises:
        ValueError: if a weight is missing or has another shape.
    """
    parts = []
    for name, shape in shapes:
        if name not in named or tuple(named[name].shape) != shape:
            got = named[name].shape if name in named else "nothing"
            raise ValueError(f"dense weight '{name}': this network needs shape {shape}, the version has {got}")
        parts.append(np.asarray(named[name], np.float32).reshape(-1))
    return np.concatenate(parts)
