"""AUC of committed epochs on samples that no training has seen.

`python -m benchmarks.heldout MODEL FOLDER CHECKPOINT...` judges the newest epoch of each checkpoint.
Scores are those of a replica that serves the epoch: features by the engine, rows and dense weights as they were
committed, zeros for an id without a row. Every checkpoint is judged by the same samples, so a difference of two AUCs is
not the luck of the draw.
"""

import argparse
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from featuregen.compiler import compile_plan
from featuregen.engine import Engine, Features
from kuberec_api import RecModel
from kuberec_api.layout import build_layout
from kuberec_runtime.checkpoint import Manifest, Store, merge_rows, open_store, read_commits, read_manifest
from kuberec_runtime.local.resources import read_model
from kuberec_runtime.models.embed import Lookup, assemble, plan_lookup
from kuberec_runtime.models.weights import read_weights
from kuberec_runtime.monitor import auc

if TYPE_CHECKING:
    from kuberec_runtime.models.network import Network

BATCH = 4096
F32 = NDArray[np.float32]


@dataclass(frozen=True)
class Prepared:
    """A batch whose features are computed."""

    features: Features
    lookup: Lookup


class Heldout:
    """Held-out samples of one model, features computed once.

    Args:
        model: features and network of the epochs to come.
        samples: flat columns, as a file of samples has them.
    """

    def __init__(self, model: RecModel, samples: pa.Table) -> None:
        plan = compile_plan(model.spec.features)
        engine = Engine(plan)
        self._layout = build_layout(model.spec, plan)
        self._model = model
        parts = (engine.batch(samples.slice(at, BATCH)) for at in range(0, samples.num_rows, BATCH))
        self._batches = [Prepared(features, plan_lookup(self._layout, features)) for features in parts]
        label = samples.column(f"label.{model.spec.tasks[0].label}")
        self.labels: F32 = label.to_numpy().astype(np.float32)

    @cached_property
    def _network(self) -> "Network":
        """Made late: whoever trains in this process says first how many threads TensorFlow has."""
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        from kuberec_runtime.models.network import Network

        return Network(self._model.spec, self._layout)

    def scores(self, store: Store, manifest: Manifest) -> F32:
        """Returns probabilities, float32[samples], under one epoch.

        Raises:
            CorruptFile, ObjectMissing: a file of the epoch is broken or gone.
        """
        self._network.set_dense(read_weights(store, manifest).flat)
        tables = {width: (rows.keys, rows.raw[:, :width]) for width, rows in merge_rows(store, manifest).items()}
        return np.concatenate([self._score(batch, tables) for batch in self._batches])

    def auc(self, scores: F32) -> float:
        """AUC of scores (of whatever scale) of these samples."""
        found = auc(scores.astype(np.float32), self.labels)
        assert found is not None, "held-out samples need clicks and non-clicks"
        return found

    def newest(self, uri: str) -> float:
        """AUC of the newest epoch of a checkpoint."""
        store = open_store(uri)
        committed = next(iter(read_commits(store)), None)
        if committed is None:
            raise SystemExit(f"{uri}: no epoch is committed there")
        return self.auc(self.scores(store, read_manifest(store, committed.manifest)))

    def _score(self, batch: Prepared, tables: dict[int, tuple[NDArray[np.int64], F32]]) -> F32:
        rows = {width: _pulled(keys, width, tables.get(width)) for width, keys in batch.lookup.keys.items()}
        return self._network.score(assemble(self._layout, batch.features, batch.lookup, rows))


def _pulled(keys: NDArray[np.int64], width: int, table: tuple[NDArray[np.int64], F32] | None) -> F32:
    """Weights float32[n, width] of keys, zeros where the table, ascending, has none."""
    out = np.zeros((len(keys), width), np.float32)
    if table is not None and len(table[0]):
        known, weights = table
        at = np.minimum(np.searchsorted(known, keys), len(known) - 1)
        found = known[at] == keys
        out[found] = weights[at[found]]
    return out


def main() -> None:
    """Prints the AUC of the newest epoch of every checkpoint."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.heldout", description=__doc__)
    parser.add_argument("model", type=Path, help="YAML with the RecModel")
    parser.add_argument("samples", type=Path, help="folder of Parquet files")
    parser.add_argument("checkpoints", nargs="+", metavar="CHECKPOINT", help="checkpoint.uri of a training")
    asked = parser.parse_args()
    heldout = Heldout(read_model(asked.model), pq.read_table(sorted(asked.samples.glob("*.parquet"))))
    for uri in asked.checkpoints:
        print(f"{heldout.newest(uri):.4f}  {uri}")


if __name__ == "__main__":
    main()
