"""Compiles every kernel, for an image to bring along: `NUMBA_CACHE_DIR=/opt/kernels python -m kuberec_runtime.warm`.

A pod has a read-only file system and begins with an empty cache: half a minute of a core, in every worker, shard and
replica. Started with `KUBEREC_KERNELS=/opt/kernels`, on a processor like the one that built the image, it loads them in
seconds. Kernels are compiled by using them: a step of small models of every kind of column.
"""

import numpy as np
import pyarrow as pa

import featuregen.items.kernels.program
import featuregen.replay.kernel  # noqa: F401 - imported to compile it
from featuregen.compiler import compile_plan
from featuregen.engine import Engine
from featuregen.schema import sample_schema
from kuberec_api.layout import build_layout
from kuberec_api.model import Initializer, RecModelSpec, SparseOptimizer, SparseOptimizerKind
from kuberec_api.training import DenseOptimizer, DenseOptimizerKind
from kuberec_runtime.models.embed import assemble, gradients, plan_lookup
from kuberec_runtime.serve.rowcache import RowCache
from kuberec_runtime.table import DenseWeights, Table
from kuberec_runtime.table.sizes import KNOWN_WIDTHS
from kuberec_runtime.wire.routing import group_rows, merge_rows, route

_IDS = ["uid", "words", "likes"]
"""One id a sample, several, and several with weights: a way of pooling each."""
MODEL = {
    "features": {
        "sources": {
            "user": {"key": "uid", "fields": {"age": "float", "likes": "map<string,float>", "words": "list<string>"}}
        },
        "list": [
            {"name": "uid", "op": "id", "in": ["user.uid"], "encode": {"hashBuckets": 100}},
            {"name": "words", "op": "id", "in": ["user.words"], "encode": {"hashBuckets": 100}},
            {"name": "likes", "op": "id", "in": ["user.likes"], "weighted": True, "encode": {"hashBuckets": 100}},
            {"name": "age", "op": "raw", "in": ["user.age"]},
        ],
    },
    "network": {
        "kind": "DeepFM",
        "groups": {"wide": _IDS, "deep": [*_IDS, "age"]},
    },
    "tasks": [{"name": "click", "label": "click", "loss": "BinaryCrossEntropy"}],
}
DIMS = (8, 16, 32, 12)
"""Those with kernels of their own (see `table.sizes`), and one that stands for all others."""
USUAL = (SparseOptimizerKind.ROWWISE_ADAGRAD, SparseOptimizerKind.ADAGRAD)
"""A shard with such rows under another optimizer compiles for some seconds when it starts."""


def warm() -> None:
    """Compiles what is not in the cache yet."""
    for dim in DIMS:
        _warm_rows(dim)
    route(np.arange(64), 2)
    for optimizer in DenseOptimizerKind:
        DenseWeights(4, DenseOptimizer(kind=optimizer)).apply(np.zeros(4, np.float32))


def _warm_rows(dim: int) -> None:
    """Compiles what is done to rows of `dim` weights, with and without a linear one."""
    model = RecModelSpec.model_validate({**MODEL, "embeddings": {"defaults": {"dim": dim}}})
    plan = compile_plan(model.features)
    layout = build_layout(model, plan)
    user = {"user.uid": "u", "user.words": ["a", "b"], "user.likes": [("a", 1.0), ("b", 2.0)], "user.age": 1.0}
    sample = {**user, "now": 1, "label.click": 1.0}
    features = Engine(plan).batch(pa.Table.from_pylist([sample, sample], schema=sample_schema(plan, ["click"])))
    lookup = plan_lookup(layout, features, by_bucket=True)
    for kind in USUAL if dim in KNOWN_WIDTHS else SparseOptimizerKind:
        for width in (dim, *lookup.keys):
            Table(width, SparseOptimizer(kind=kind), Initializer(), 1)
    rows = {width: np.zeros((len(keys), width), np.float32) for width, keys in lookup.keys.items()}
    x = assemble(layout, features, lookup, rows)
    for width, pushed in gradients(lookup, np.zeros_like(x)).items():
        order = np.arange(len(pushed), dtype=np.int32)
        merge_rows(group_rows(pushed, order), order, pushed)
        cache = RowCache(width, 64)
        found = np.ones(len(pushed), np.bool_)
        cache.admit(lookup.keys[width], pushed, found, cache.generation)
        cache.read(lookup.keys[width])


if __name__ == "__main__":
    warm()
