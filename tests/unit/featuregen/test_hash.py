"""The hashes are those of FarmHash, libstdc++ and TensorFlow, in Python and in the kernels."""

import random

import pytest

from featuregen.engine import Engine
from featuregen.hash64 import HASHES, cross, farm64, std64
from tests.unit.featuregen.cases import plan_of, table_of

# tf.strings.to_hash_bucket_fast(texts, 2**62), TensorFlow 2.20.
TENSORFLOW = {
    "": 1936946117179621455,
    "a": 3694432073954588131,
    "abc": 2640714258260161385,
    "item_12345": 2290861919874645564,
    "k" * 17: 758897665891142476,
    "k" * 33: 2313868923149556954,
    "q" * 65: 3080958293828885289,
    "中文é🙂": 696725952677871361,
    "x" * 200: 103930210689786815,
    "y" * 64: 4471793200125962424,
    "z" * 63: 4328006109088684861,
    "w" * 127: 1448333387690062188,
}


@pytest.mark.parametrize("text", TENSORFLOW)
def test_farm64_is_the_hash_of_tensorflow(text: str) -> None:
    assert farm64(text.encode()) % 2**62 == TENSORFLOW[text]


@pytest.mark.parametrize(
    ("text", "bucket"),
    [("abc", 33), ("efg", 44), ("hij", 66), ("xyz", 13), ("1", 95), ("0", 26), ("ua_ia", 37), ("match_feat_1", 71)],
)
def test_std64_is_the_default_hash_of_pyfg(text: str, bucket: int) -> None:
    assert std64(text.encode()) % 100 == bucket


def test_cross_is_tensorflows_cross_hashed() -> None:
    # tf.sparse.cross_hashed([[ua, ub]], [[ia, ib, i中]], num_buckets=1000003)
    crossed = [
        cross([farm64(u.encode()), farm64(i.encode())]) % 1000003 for u in ("ua", "ub") for i in ("ia", "ib", "i中")
    ]
    assert crossed == [207914, 506728, 618646, 897643, 428518, 453217]


@pytest.mark.parametrize("name", ["farm64", "std64"])
def test_kernels_hash_every_length_as_the_python_text_says(name: str) -> None:
    rng = random.Random(7)
    texts = ["".join(rng.choice("abc中é🙂0") for _ in range(length)) for length in range(1, 150)]
    texts += ["x" * length for length in range(1, 260)]
    prime = 140_737_488_355_213
    sources = {"user": {"key": "id"}}
    plan = plan_of(sources, [{"name": "h", "op": "id", "in": ["user.id"], "encode": {"hashBuckets": prime}}], name)
    ids = Engine(plan).batch(table_of(plan, [{"user.id": text} for text in texts])).columns["h"].ids
    assert ids.tolist() == [HASHES[name](text.encode()) % prime for text in texts]


@pytest.mark.parametrize(
    "buckets", [1, 2, 3, 5, 64, 1000, 1_000_003, 2**31 - 1, 2**31, 2**32 + 1, 2**46 + 1, 2**47 - 1]
)
def test_a_bucket_is_the_remainder_of_the_hash(buckets: int) -> None:
    """Kernels do not divide; the two hashes spread over all 64 bits."""
    rng = random.Random(buckets)
    texts = [str(rng.random()) for _ in range(2000)]
    features = [{"name": "h", "op": "id", "in": ["user.id"], "encode": {"hashBuckets": buckets}}]
    for name, hash_ in HASHES.items():
        plan = plan_of({"user": {"key": "id"}}, features, name)
        ids = Engine(plan).batch(table_of(plan, [{"user.id": text} for text in texts])).columns["h"].ids
        assert ids.tolist() == [hash_(text.encode()) % buckets for text in texts]
