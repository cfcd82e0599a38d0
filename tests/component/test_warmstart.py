"""A training that begins with another's rows has just those, also when it dies before its first epoch has any."""

from pathlib import Path

import numpy as np

from kuberec_devcluster.services import Kafka, Redis
from kuberec_runtime.checkpoint import find_restorable, merge_rows, open_store
from kuberec_runtime.table.buckets import split_key
from tests.component.training import Training, write_samples


def rows_of(training: Training, table: str) -> tuple[np.ndarray, np.ndarray]:
    """Ids, ascending, and raw rows of a table in the last epoch."""
    store = open_store(f"file://{training.folder}/checkpoint")
    plan = find_restorable(store)
    assert plan is not None
    ref = next(t for t in plan.manifest.tables if t.name == table)
    merged = merge_rows(store, plan.manifest)[ref.width]
    ordinals, ids = split_key(merged.keys)
    mine = np.flatnonzero(ordinals == ref.ordinal)
    return ids[mine], merged.raw[mine]


def test_rows_are_those_of_the_source_after_a_crash_before_the_first_epoch(
    tmp_path: Path, kafka: Kafka, redis_server: Redis
) -> None:
    first = Training(tmp_path / "first", kafka.bootstrap, redis_server.url, "warm-first")
    write_samples(kafka.bootstrap, "warm-first", 4000)
    first.start()
    assert first.wait() == 0
    second = Training(tmp_path / "second", kafka.bootstrap, redis_server.url, "warm-second")
    kafka.create_topic("warm-second", partitions=2)
    features = second.documents["RecModel"]["spec"]["features"]["list"]
    features.append({"name": "aaa", "op": "id", "in": ["item.cate"], "encode": {"hashBuckets": 50}})
    second.documents["RecModel"]["spec"]["network"]["groups"]["deep"].append("aaa")
    next(f for f in features if f["name"] == "brand")["encode"] = {"hashBuckets": 999}
    second.set("RecTraining", "spec.warmStart", {"uri": f"file://{first.folder}/checkpoint"})
    second.start(crash_at="shard.checkpoint-taken")
    assert second.wait() == -9, second.log()[-3000:]
    second.start()
    assert second.wait() == 0, second.log()[-3000:]
    for table in ("item_id", "cate", "user_id"):
        ids, raw = rows_of(first, table)
        new_ids, new_raw = rows_of(second, table)
        assert len(ids) > 0
        assert np.array_equal(ids, new_ids) and np.array_equal(raw.view(np.uint32), new_raw.view(np.uint32)), table
    assert len(rows_of(second, "brand")[0]) == len(rows_of(second, "aaa")[0]) == 0
