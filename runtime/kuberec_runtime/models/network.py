"""The dense part as a Keras 3 model over X, with its weights seen as one flat float32 vector.

The vector lives on the shards during training, in the order of `Network.weights`; a step takes the vector that was
pulled with the rows and returns its gradient. Nothing here knows where rows or weights come from.
"""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops
from numpy.typing import NDArray

from kuberec_api.layout import Layout
from kuberec_api.model import NetworkKind, RecModelSpec
from kuberec_runtime.models.flat import by_name, joined, size_of

F32 = NDArray[np.float32]


@dataclass(frozen=True)
class Step:
    """Result of one step: mean loss, predictions float32[n], dX float32[n, D] and the flat dense gradient."""

    loss: float
    predictions: F32
    dx: F32
    dense_gradient: F32


class Network:
    """The compiled network of a model. Not thread-safe while weights are being set."""

    def __init__(self, spec: RecModelSpec, layout: Layout) -> None:
        self.layout = layout
        self.model = _build(spec, layout)
        self._variables = [v.value for v in self.model.trainable_variables]
        self.weights = [(v.path, tuple(int(d) for d in v.shape)) for v in self.model.trainable_variables]
        self.size = size_of(self.weights)
        self._generators = [
            layer.seed_generator for layer in self.model.layers if isinstance(layer, keras.layers.Dropout)
        ]
        matrix = tf.TensorSpec([None, layout.dimension], tf.float32)
        vector = tf.TensorSpec([None], tf.float32)
        self._score = tf.function(self._score_graph, input_signature=[matrix])
        self._step = tf.function(self._step_graph, input_signature=[matrix, vector])
        self._assign = tf.function(self._assign_graph, input_signature=[vector])

    def score(self, x: F32) -> F32:
        """Returns click probabilities float32[n] of X float32[n, D]."""
        return np.asarray(self._score(tf.convert_to_tensor(x)))

    def step(self, x: F32, labels: F32) -> Step:
        """Forward and backward of the mean binary cross-entropy; labels float32[n] in [0, 1]."""
        loss, predictions, dx, flat = self._step(tf.convert_to_tensor(x), tf.convert_to_tensor(labels))
        return Step(float(loss), np.asarray(predictions), np.asarray(dx), np.asarray(flat))

    def set_dense(self, flat: F32) -> None:
        """Sets all dense weights from the flat vector float32[size]."""
        if flat.shape != (self.size,):
            raise ValueError(f"dense vector has shape {flat.shape}, this network needs ({self.size},)")
        self._assign(tf.convert_to_tensor(flat))

    def draw_from(self, number: int) -> None:
        """Makes the next step's dropout a function of the model's seed and `number` instead of the steps before it."""
        for generator in self._generators:
            generator.state.assign(np.array([generator.state.numpy()[0], number & 0xFFFFFFFF], np.uint32))

    def dense(self) -> F32:
        """Returns all dense weights as one flat float32 vector."""
        return np.concatenate([np.asarray(v).reshape(-1) for v in self._variables]).astype(np.float32)

    def named(self, flat: F32) -> dict[str, F32]:
        """Cuts a flat vector into arrays by weight name, as they are published."""
        return by_name(self.weights, flat)

    def flat(self, named: Mapping[str, F32]) -> F32:
        """Joins arrays by weight name into the flat vector; ValueError names what is missing or has another shape."""
        return joined(self.weights, named)

    def _score_graph(self, x: Any) -> Any:
        return tf.sigmoid(self.model(x, training=False))[:, 0]

    def _assign_graph(self, flat: Any) -> None:
        sizes = [int(np.prod(shape, dtype=np.int64)) for _, shape in self.weights]
        for variable, part in zip(self._variables, tf.split(flat, sizes), strict=True):
            variable.assign(tf.reshape(part, variable.shape))

    def _step_graph(self, x: Any, labels: Any) -> tuple[Any, Any, Any, Any]:
        with tf.GradientTape() as tape:
            tape.watch(x)
            logits = self.model(x, training=True)[:, 0]
            loss = tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels=labels, logits=logits))
        dx, *dense = tape.gradient(loss, [x, *self._variables], unconnected_gradients=tf.UnconnectedGradients.ZERO)
        return loss, tf.sigmoid(logits), dx, tf.concat([tf.reshape(g, [-1]) for g in dense], axis=0)


def _build(spec: RecModelSpec, layout: Layout) -> Any:
    x = keras.Input((layout.dimension,), name="x")
    kind, units = spec.network.kind, spec.network.params.hidden_units
    if kind is NetworkKind.MULTI_TOWER:
        towers = [_mlp(_columns(x, runs), units, spec, group) for group, runs in layout.groups.items()]
        joined = ops.concatenate(towers, axis=1) if len(towers) > 1 else towers[0]
        terms = [_dense(1, None, spec, "logit")(_dense(units[-1], "relu", spec, "join")(joined))]
    else:
        deep = _mlp(_columns(x, layout.groups["deep"]), units, spec, "deep")
        terms = [_dense(1, None, spec, "logit")(deep), ops.sum(x[:, : layout.linear], axis=1, keepdims=True)]
        if kind is NetworkKind.DEEP_FM:
            terms.append(_second_order(x, layout))
    logit = terms[0] if len(terms) == 1 else keras.layers.Add(name="logits")(terms)
    return keras.Model(x, logit, name=kind.value.lower())


def _second_order(x: Any, layout: Layout) -> Any:
    """Sum over pairs of fields of their dot product, by Rendle's identity (Factorization Machines, ICDM 2010)."""
    block = x[:, layout.linear : layout.linear + layout.fm_fields * layout.fm_dim]
    fields = ops.reshape(block, (-1, layout.fm_fields, layout.fm_dim))
    total = ops.square(ops.sum(fields, axis=1))
    own = ops.sum(ops.square(fields), axis=1)
    return 0.5 * ops.sum(total - own, axis=1, keepdims=True)


def _columns(x: Any, runs: tuple[tuple[int, int], ...]) -> Any:
    parts = [x[:, start:stop] for start, stop in runs]
    return parts[0] if len(parts) == 1 else ops.concatenate(parts, axis=1)


def _mlp(x: Any, units: list[int], spec: RecModelSpec, name: str) -> Any:
    for i, size in enumerate(units):
        x = _dense(size, "relu", spec, f"{name}_{i}")(x)
        if spec.network.params.dropout:
            x = keras.layers.Dropout(spec.network.params.dropout, seed=spec.seed, name=f"{name}_{i}_dropout")(x)
    return x


def _dense(units: int, activation: str | None, spec: RecModelSpec, name: str) -> Any:
    """A layer whose initial weights depend on the model's seed and the layer's name only."""
    seed = zlib.crc32(f"{spec.seed}/{name}".encode()) & 0x7FFFFFFF
    initializer = keras.initializers.GlorotUniform(seed=seed)
    return keras.layers.Dense(units, activation=activation, kernel_initializer=initializer, name=name)
