"""Texts to hash buckets: our id operator over Arrow strings vs TensorFlow's C++ `to_hash_bucket_fast`, on one core.

Both give the same ids (FarmHash Fingerprint64 modulo the buckets), which is checked first. Ours is the whole operator
as workers and servers run it: missing values, offsets and ids; TensorFlow's gets its tensor ready made.

`python -m benchmarks.hash [--smoke|--full]`; the last line is one JSON object.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import pyarrow as pa
import tensorflow as tf

from benchmarks.measure import Timing, in_turns, options, print_result
from featuregen.compiler import compile_plan
from featuregen.engine import Engine
from featuregen.spec import FeatureSpec

BUCKETS = 1_000_003
SPEC = {
    "sources": {"item": {"key": "item_id"}},
    "list": [{"name": "item_id", "op": "id", "in": ["item.item_id"], "encode": {"hashBuckets": BUCKETS}}],
}


def texts(rng: np.random.Generator, length: int, count: int) -> list[str]:
    """Random lower-case texts of one length: an id has about 8 characters, a key 14, a UUID 36."""
    letters = rng.integers(97, 123, (count, length), dtype=np.uint8)
    return [row.tobytes().decode() for row in letters]


def main() -> None:
    """Measures and prints."""
    chosen = options(__doc__.splitlines()[0])
    tf.config.threading.set_intra_op_parallelism_threads(1)
    count, seconds = (20_000, 1.0) if chosen.smoke else (1_000_000 if chosen.full else 200_000, 6.0)
    rng = np.random.default_rng(7)
    engine = Engine(compile_plan(FeatureSpec.model_validate(SPEC)))
    ratios: dict[str, float] = {}
    worst: tuple[float, Timing, Timing] | None = None
    print(f"{'length':>8s}{'ours M/s':>12s}{'TensorFlow M/s':>16s}{'ratio':>8s}")
    for length in (8, 14, 36):
        made = texts(rng, length, count)
        table, tensor = pa.table({"item.item_id": pa.array(made)}), tf.constant(made)
        ours = engine.batch(table).columns["item_id"].ids
        assert np.array_equal(ours, tf.strings.to_hash_bucket_fast(tensor, BUCKETS).numpy())

        def hashed(table: pa.Table = table) -> object:
            return engine.batch(table)

        def peer(tensor: tf.Tensor = tensor) -> object:
            return tf.strings.to_hash_bucket_fast(tensor, BUCKETS)

        times = in_turns({"ours": hashed, "peer": peer}, seconds)
        ratio = times["peer"].median / times["ours"].median
        ratios[str(length)] = round(ratio, 2)
        rates = [count / times[name].median / 1e6 for name in ("ours", "peer")]
        print(f"{length:8d}{rates[0]:12.0f}{rates[1]:16.0f}{ratio:8.2f}")
        if worst is None or ratio < worst[0]:
            worst = ratio, times["ours"], times["peer"]
    assert worst is not None
    print_result("hash", worst[1], worst[2], "ms", ratio_by_length=ratios)


if __name__ == "__main__":
    main()
