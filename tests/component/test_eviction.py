"""A whole training that evicts and admits: what the tier holds is what the last epoch holds, through a kill."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import redis

from kuberec_devcluster.services import Kafka, Redis
from kuberec_runtime.checkpoint import load_rows, open_store
from kuberec_runtime.publish.publication import row_prefix
from kuberec_runtime.publish.tier import Tier
from kuberec_runtime.table.buckets import split_key
from tests.component.training import Training, write_samples

SAMPLES = 4000
names = itertools.count()


@pytest.fixture
def training(tmp_path: Path) -> Iterator[Training]:
    with Kafka() as kafka, Redis() as server:
        training = Training(tmp_path, kafka.bootstrap, server.url, f"eviction-{next(names)}")
        write_samples(kafka.bootstrap, training.topic, SAMPLES // 2)
        training.set("RecModel", "spec.embeddings.defaults.admission", {"minCount": 2})
        training.set("RecModel", "spec.embeddings.defaults.eviction", {"idle": "1s"})
        yield training
        training.stop()


def has_tombstones(training: Training) -> bool:
    manifest = training.manifest()
    return manifest is not None and any(file.removed for link in manifest.chain for file in link.files)


def test_the_tier_holds_no_row_that_the_last_epoch_does_not(training: Training) -> None:
    # A sweep comes once a second: the topic has no end until one was committed, however fast the samples are learnt.
    training.set("RecTraining", "spec.source.kafka.stopAt", "Never")
    training.start(crash_at="driver.committed@2")
    assert training.wait() == -9, training.log()[-3000:]
    training.start()
    training.until("rows were evicted", lambda _: has_tombstones(training))
    training.stop()
    write_samples(training.bootstrap, training.topic, SAMPLES // 2)
    training.set("RecTraining", "spec.source.kafka.stopAt", "End")
    training.start()
    assert training.wait() == 0, training.log()[-3000:]
    memory = training.status().memory
    assert memory is not None and memory.rows > 0 and memory.held.endswith("Mi")
    assert sum(shard.rows for shard in memory.shards) == sum(width.rows for width in memory.widths) == memory.rows
    manifest = training.manifest()
    assert manifest is not None and manifest.samples == SAMPLES
    assert manifest.format == 2
    assert any(file.counted for file in manifest.chain[-1].files)

    store = open_store(f"file://{training.folder}/checkpoint")
    live: dict[str, set[int]] = {table.name: set() for table in manifest.tables}
    for width, (keys, _) in load_rows(store, manifest).items():
        ordinals, ids = split_key(keys)
        for table in manifest.tables:
            if table.width == width:
                live[table.name] |= set(ids[ordinals == table.ordinal].tolist())
    tier = Tier(training.redis, training=training.topic)
    current = tier.current()
    assert current is not None
    server = redis.Redis.from_url(training.redis)
    published = 0
    for name, ids in live.items():
        prefix = row_prefix(current.namespace, name)
        found = {int(np.frombuffer(key[len(prefix) :], "<i8")[0]) for key in server.scan_iter(prefix + b"*", 1000)}
        assert found <= ids, name
        published += len(found)
    assert published, "not all of it is idle"
    tier.close()
