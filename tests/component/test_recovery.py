"""Killed at any point, a training goes on with no record lost and none applied twice."""

import signal
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import redis

from kuberec_devcluster.services import Kafka, Redis
from kuberec_runtime.checkpoint import open_store, read_commits
from kuberec_runtime.publish.tier import Tier
from tests.component.training import Training, write_samples

SAMPLES = 3000
names = count()
pytestmark = pytest.mark.timeout(900)

# Before and after every step that something outside can see, of every process: the proof obligations of the design.
POINTS = [
    "driver.started",
    "worker.before-poll@5",
    "worker.polled@3",
    "worker.before-pull@4",
    "worker.pulled@4",
    "worker.before-push@4",
    "worker.push-sent@4",
    "shard.before-apply@9",
    "shard.applied@9",
    "worker.before-mark@2",
    "worker.mark-sent@2",
    "shard.before-take@3",
    "shard.checkpoint-taken@2",
    "checkpoint.before-rows@2",
    "checkpoint.rows-written@2",
    "checkpoint.before-dense@2",
    "checkpoint.dense-written@2",
    "checkpoint.before-manifest@2",
    "checkpoint.manifest-written@2",
    "log.judged@3",
    "log.created@3",
    "log.hinted@3",
    "driver.committed@2",
    "publish.rows",
    "shard.rows-published@2",
    "publish.dense.before",
    "publish.dense",
    "publish.meta",
    "publish.current",
    "status.before",
    "status.written@3",
]


@pytest.fixture
def training(kafka: Kafka, redis_server: Redis, tmp_path: Path) -> Iterator[Training]:
    training = Training(tmp_path, kafka.bootstrap, redis_server.url, f"recovery-{next(names)}")
    write_samples(kafka.bootstrap, training.topic, SAMPLES)
    yield training
    training.stop()


def assert_exactly_once(training: Training, samples: int = SAMPLES) -> None:
    manifest = training.manifest()
    assert manifest is not None
    assert manifest.samples == samples
    for offset in manifest.offsets:
        assert offset.next == offset.end
        assert manifest.samples_by_partition[offset.partition] == offset.end - offset.start


def assert_readable(training: Training) -> None:
    """What `current` names is complete, and is the newest attempt's."""
    tier = Tier(training.redis, training=training.topic)
    current = tier.current()
    assert current is not None
    assert current.version.attempt == training.attempt
    dense = tier.dense(current.namespace, current.version)
    assert all(np.isfinite(array).all() for array in dense.weights.values())
    tier.close()


@pytest.mark.parametrize("point", POINTS)
def test_killed_anywhere_every_record_is_applied_once(training: Training, point: str) -> None:
    training.start(crash_at=point)
    assert training.wait() == -9, training.log()[-3000:]
    training.start()
    assert training.wait() == 0, training.log()[-3000:]
    assert_exactly_once(training)
    assert_readable(training)


def test_killed_between_finding_a_partition_and_reading_it_its_records_are_applied_once(
    kafka: Kafka, training: Training
) -> None:
    training.set("RecTraining", "spec.source.kafka.stopAt", "Never")
    training.start(crash_at="driver.grown", env={"KUBEREC_PARTITIONS_EVERY_S": "0.1"})
    training.until("a commit with samples", lambda s: s.checkpoint is not None and s.checkpoint.samples > 0)
    kafka.add_partitions(training.topic, 4)
    assert training.wait() == -9, training.log()[-3000:]
    killed = training.manifest()
    assert killed is not None
    assert [(o.start, o.next) for o in killed.offsets if o.partition == 3] == [(0, 0)]
    write_samples(training.bootstrap, training.topic, 600, seed=1)
    training.set("RecTraining", "spec.source.kafka.stopAt", "End")
    training.start()
    assert training.wait() == 0, training.log()[-3000:]
    assert_exactly_once(training, SAMPLES + 600)
    finished = training.manifest()
    assert finished is not None
    assert finished.samples_by_partition[3] > 0


def test_a_training_that_is_asked_to_stop_commits_what_it_learnt(training: Training) -> None:
    training.set("RecTraining", "spec.source.kafka.stopAt", "Never")  # it must not end by itself before it is asked
    training.start()
    training.until("some samples", lambda s: s.progress is not None and s.progress.samples > 500)
    assert training.process is not None
    training.process.terminate()
    assert training.wait() == 1
    stopped = training.manifest()
    assert stopped is not None
    progress = training.status().progress
    assert progress is not None
    assert stopped.samples == progress.samples > 500
    training.set("RecTraining", "spec.source.kafka.stopAt", "End")
    training.start()
    assert training.wait() == 0, training.log()[-3000:]
    assert_exactly_once(training)


def test_an_attempt_that_was_overtaken_can_neither_commit_nor_publish(training: Training) -> None:
    training.set("RecTraining", "spec.source.kafka.stopAt", "Never")
    training.start()
    training.until("a commit with samples", lambda s: s.checkpoint is not None and s.checkpoint.samples > 0)
    old = training.process
    training.set("RecTraining", "spec.source.kafka.stopAt", "End")
    training.start()
    assert training.wait() == 0, training.log()[-3000:]
    assert old is not None
    assert old.wait(60) == 70, training.log()[-3000:]
    assert training.status().outcome is not None
    assert_readable(training)


def test_a_driver_that_slept_through_the_next_attempt_changes_nothing(training: Training) -> None:
    training.set("RecTraining", "spec.source.kafka.stopAt", "Never")
    training.start()
    training.until(
        "a commit and a publication", lambda s: s.checkpoint is not None and s.checkpoint.samples > 0 and s.publication
    )
    zombie = training.process
    assert zombie is not None
    zombie.send_signal(signal.SIGSTOP)
    try:
        training.set("RecTraining", "spec.source.kafka.stopAt", "End")
        training.start()
        assert training.wait() == 0, training.log()[-3000:]
        before = everything_outside(training)
        write_samples(training.bootstrap, training.topic, 500, seed=1)  # it has something to learn, commit and publish
    finally:
        zombie.send_signal(signal.SIGCONT)
    assert zombie.wait(120) == 70, training.log()[-3000:]
    assert everything_outside(training) == before
    assert_exactly_once(training)


def everything_outside(training: Training) -> tuple[object, ...]:
    """What others can see of a training: the commit log, what `current` names, and every row in Redis."""
    commits = tuple(read_commits(open_store(f"file://{training.folder}/checkpoint")))
    client = redis.Redis.from_url(training.redis)
    keys = sorted(client.scan_iter(f"kr:default/{training.topic}/*", count=10_000))
    return commits, tuple((key, client.dump(key)) for key in keys)


def test_a_redis_that_was_emptied_gets_every_row_again(training: Training) -> None:
    training.set("RecTraining", "spec.source.kafka.stopAt", "Never")
    training.start()
    training.until("all samples published", lambda s: s.checkpoint is not None and s.checkpoint.samples == SAMPLES)
    client = redis.Redis.from_url(training.redis)
    rows = f"kr:default/{training.topic}/*/t/*"
    before = set(client.scan_iter(rows, count=10_000))
    client.delete(*client.scan_iter(f"kr:default/{training.topic}/*", count=10_000))
    write_samples(training.bootstrap, training.topic, 200, seed=1)
    deadline = time.monotonic() + 60
    while not before <= set(client.scan_iter(rows, count=10_000)):
        assert time.monotonic() < deadline, training.log()[-3000:]
        time.sleep(0.1)
    assert_readable(training)


def test_a_training_created_anew_goes_on_above_what_redis_knows(training: Training, tmp_path: Path) -> None:
    training.start()
    assert training.wait() == 0, training.log()[-3000:]
    anew = Training(tmp_path / "anew", training.bootstrap, training.redis, training.topic)
    anew.start()
    assert anew.wait() == 70, anew.log()[-3000:]
    outcome = anew.status().outcome
    assert outcome is not None
    assert outcome.newest_attempt == 1
    anew.start()
    assert anew.wait() == 0, anew.log()[-3000:]
    assert_exactly_once(anew)


def test_a_finished_training_that_is_started_again_has_nothing_to_do(training: Training) -> None:
    training.start()
    assert training.wait() == 0, training.log()[-3000:]
    training.start()
    assert training.wait() == 0, training.log()[-3000:]
    assert_exactly_once(training)
