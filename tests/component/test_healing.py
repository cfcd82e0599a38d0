"""A shard or worker that is killed is replaced within its attempt, and still every record counts once."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from kuberec_devcluster.services import Kafka, Redis
from tests.component.test_recovery import assert_exactly_once, assert_readable
from tests.component.training import Training, write_samples

SAMPLES = 3000
names = count()
pytestmark = pytest.mark.timeout(900)

# Processes that take a dead one's place count their own passes: late passes die late in the run.
POINTS = [
    "worker.pulled@10",
    "shard.checkpoint-taken@3",
    "worker.push-sent@45",
    "checkpoint.rows-written@5",
    "worker.mark-sent@12",
    "shard.applied@150",
    "shard.rows-published@4",
]


@pytest.fixture
def training(kafka: Kafka, redis_server: Redis, tmp_path: Path) -> Iterator[Training]:
    training = Training(tmp_path, kafka.bootstrap, redis_server.url, f"healing-{next(names)}")
    write_samples(kafka.bootstrap, training.topic, SAMPLES)
    yield training
    training.stop()


def test_killed_again_and_again_within_one_attempt_every_record_is_applied_once(training: Training) -> None:
    training.set("RecTraining", "spec.workers.batchSize", 16)
    training.heal_through(POINTS)
    assert_exactly_once(training)
    assert_readable(training)
