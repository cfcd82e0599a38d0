"""What each operator is worth, planted and measured: a model learns the second synthetic world without each in turn.

Features go the way of a training (engine, lookup, table, pooling), and the network is a logistic one: a weight for each
id, a slope for each number. The table of docs/synthetic-data.md is printed by this file.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import yaml
from numpy.typing import NDArray

from benchmarks.measure import options
from featuregen.compiler import compile_plan
from featuregen.engine import Engine, Features
from kuberec_api import RecModel
from kuberec_api.layout import Layout, build_layout
from kuberec_runtime.models.embed import Lookup, assemble, gradients, plan_lookup
from kuberec_runtime.monitor import auc
from kuberec_runtime.synth.operators import make_operator_world
from kuberec_runtime.synth.oracle import auc_error, best_without, leaks
from kuberec_runtime.synth.planted import EFFECTS, MAX_AGE_MS, plant
from kuberec_runtime.table import Table

EXAMPLES = Path(__file__).parents[1] / "examples"
BATCH = 1024
PASSES = 8
TRAIN_SHARE = 0.7
F32 = NDArray[np.float32]


@dataclass(frozen=True)
class Result:
    """AUC on the newest 30 % of the samples.

    Attributes:
        oracle: of the true log-odds; nothing honest is above it by more than chance.
        model: of a model that has every feature.
        planted: feature to what the oracle loses without its effect.
        measured: feature to what the model loses without it.
        leaky: of a model whose behaviour and `now` are those of 24 hours later.
        clicks: float32, the labels of those samples.
    """

    oracle: float
    model: float
    planted: dict[str, float]
    measured: dict[str, float]
    leaky: float
    clicks: F32


class Logistic:
    """A logistic model of one layout: rows of width 1 in our table, slopes of the dense columns by Adagrad."""

    def __init__(self, model: RecModel, layout: Layout, rate: float = 0.5) -> None:
        defaults = model.spec.embeddings.defaults
        self._layout, self._rate = layout, rate
        self._table = Table(1, defaults.optimizer, defaults.initializer, model.spec.seed)
        self._ids = [slot.column for slot in layout.sparse]
        self._numbers = [slot.column for slot in layout.dense]
        self._slopes = np.zeros(len(self._numbers) + 1, np.float32)  # the last one is the constant
        self._squares = np.zeros_like(self._slopes)

    def logits(self, features: Features, lookup: Lookup) -> tuple[F32, F32]:
        """Returns log-odds float32[n] and X float32[n, D]."""
        x = assemble(self._layout, features, lookup, {1: self._table.pull(lookup.keys[1])})
        return x[:, self._ids].sum(axis=1) + x[:, self._numbers] @ self._slopes[:-1] + self._slopes[-1], x

    def learn(self, features: Features, lookup: Lookup, labels: F32) -> None:
        """One step down the mean cross-entropy of a batch."""
        logits, x = self.logits(features, lookup)
        error = ((1.0 / (1.0 + np.exp(-logits)) - labels) / len(labels)).astype(np.float32)
        self._table.push(lookup.keys[1], gradients(lookup, np.repeat(error[:, None], x.shape[1], axis=1))[1])
        slope = np.append(error @ x[:, self._numbers], error.sum())
        self._squares += slope * slope
        self._slopes -= self._rate * slope / (np.sqrt(self._squares) + 1e-8)


def read_model() -> RecModel:
    """Returns examples/operators.yaml."""
    return RecModel.model_validate(yaml.safe_load((EXAMPLES / "operators.yaml").read_text()))


def without(model: RecModel, feature: str) -> RecModel:
    """Returns the model whose network does not read a feature."""
    groups = {name: [f for f in group if f != feature] for name, group in model.spec.network.groups.items()}
    network = model.spec.network.model_copy(update={"groups": groups})
    return model.model_copy(update={"spec": model.spec.model_copy(update={"network": network})})


def in_batches(model: RecModel, table: pa.Table) -> list[Features]:
    """Features of a table of samples, batch by batch."""
    engine = Engine(compile_plan(model.spec.features), files=EXAMPLES / "files")
    return [engine.batch(table.slice(start, BATCH)) for start in range(0, table.num_rows, BATCH)]


def learnt_auc(model: RecModel, batches: Sequence[Features], clicks: F32, passes: int = PASSES) -> float:
    """AUC on the newest samples of a model that learnt the others, some times over."""
    layout = build_layout(model.spec, compile_plan(model.spec.features))
    labels = np.split(clicks, np.cumsum([features.rows for features in batches])[:-1])
    steps = [(f, plan_lookup(layout, f), y) for f, y in zip(batches, labels, strict=True)]
    train = round(len(steps) * TRAIN_SHARE)
    logistic = Logistic(model, layout)
    for _ in range(passes):
        for features, lookup, y in steps[:train]:
            logistic.learn(features, lookup, y)
    scores = [logistic.logits(features, lookup)[0] for features, lookup, _ in steps[train:]]
    return _auc(np.concatenate(scores), np.concatenate(labels[train:]))


def measure(samples: int, seed: int = 0, passes: int = PASSES) -> Result:
    """Plants, learns with everything, without each feature, and with a leak."""
    model = read_model()
    planted = plant(make_operator_world(seed), seed, samples)
    batches = in_batches(model, planted.table())
    first = round(len(batches) * TRAIN_SHARE) * BATCH
    clicks = planted.click[first:]
    oracle, full = _auc(planted.logit[first:], clicks), learnt_auc(model, batches, planted.click, passes)
    lost = {
        name: oracle - _auc(best_without(planted.effects, planted.click, k, first), clicks)
        for k, name in enumerate(EFFECTS)
    }
    missed = {n: full - learnt_auc(without(model, n), batches, planted.click, passes) for n in EFFECTS}
    leaky = learnt_auc(model, in_batches(model, planted.table(MAX_AGE_MS)), planted.click, passes)
    return Result(oracle, full, lost, missed, leaky, clicks)


def _auc(scores: NDArray[np.floating], clicks: F32) -> float:
    found = auc(scores.astype(np.float32), clicks)
    assert found is not None
    return found


def main() -> None:
    """Prints the table, and one line of JSON."""
    asked = options(__doc__ or "")
    samples = 20_000 if asked.smoke else 400_000 if asked.full else 120_000
    began = time.perf_counter()
    result = measure(samples)
    operators = {feature.name: feature.op.value for feature in read_model().spec.features.list}
    print("| operator | feature | planted | measured |\n|---|---|---|---|")
    for name in EFFECTS:
        print(f"| {operators[name]} | `{name}` | {result.planted[name]:.4f} | {result.measured[name]:.4f} |")
    figures = {
        "name": "planted_effects",
        "samples": samples,
        "oracle": round(result.oracle, 4),
        "model": round(result.model, 4),
        "leaky": round(result.leaky, 4),
        "error": round(auc_error(result.oracle, result.clicks), 4),
        "leak_found": leaks(result.leaky, result.oracle, result.clicks),
        "seconds": round(time.perf_counter() - began, 1),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
