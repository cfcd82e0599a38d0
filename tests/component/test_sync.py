"""Sync mode: the same topic gives the same bits, whatever the timing and whatever is killed."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from kuberec_devcluster.services import Kafka, Redis
from kuberec_runtime.checkpoint import open_store
from tests.component.training import Training, bits, write_samples

SAMPLES = 4000
names = count()
pytestmark = pytest.mark.timeout(900)

POINTS = [
    "worker.before-poll@4",
    "worker.polled@3",
    "worker.before-pull@5",
    "worker.pulled@6",
    "worker.before-push@7",
    "worker.push-sent@8",
    "shard.before-apply@9",
    "shard.applied@15",
    "worker.before-mark@3",
    "worker.mark-sent@3",
    "shard.checkpoint-taken@2",
    "checkpoint.rows-written@2",
    "checkpoint.manifest-written@2",
    "log.created@3",
    "driver.committed@2",
    "publish.rows",
    "publish.current",
]


def bits_of(training: Training) -> str:
    """The digest of the last epoch, which holds all samples."""
    manifest = training.manifest()
    assert manifest is not None and manifest.samples == SAMPLES
    return bits(open_store(f"file://{training.folder}/checkpoint"), manifest)


class Setting:
    """One topic, one uninterrupted run, and any number of others to compare with it."""

    def __init__(self, kafka: Kafka, redis: Redis, folder: Path) -> None:
        self._kafka, self._redis, self._folder = kafka, redis, folder
        self.topic = f"sync-{next(names)}"
        write_samples(kafka.bootstrap, self.topic, SAMPLES)
        undisturbed = self.training()
        undisturbed.set("RecTraining", "spec.checkpoint.interval", "60s")
        undisturbed.start()
        assert undisturbed.wait() == 0, undisturbed.log()[-3000:]
        self.expected = bits_of(undisturbed)

    def training(self) -> Training:
        name = f"{self.topic}-{next(names)}"
        training = Training(self._folder / name, self._kafka.bootstrap, self._redis.url, name)
        training.set("RecTraining", "spec.source.kafka.topic", self.topic)
        training.set("RecTraining", "spec.synchronization", {"mode": "Sync"})
        training.set("RecTraining", "spec.checkpoint.interval", "300ms")
        training.set("RecModel", "spec.network.params", {"hiddenUnits": [64, 32], "dropout": 0.1})
        return training


@pytest.fixture(scope="module")
def setting(kafka: Kafka, redis_server: Redis, tmp_path_factory: pytest.TempPathFactory) -> Setting:
    return Setting(kafka, redis_server, tmp_path_factory.mktemp("sync"))


@pytest.fixture
def training(setting: Setting) -> Iterator[Training]:
    training = setting.training()
    yield training
    training.stop()


def test_cuts_change_nothing(training: Training, setting: Setting) -> None:
    training.start()
    assert training.wait() == 0, training.log()[-3000:]
    assert bits_of(training) == setting.expected


@pytest.mark.parametrize("point", POINTS)
def test_killed_anywhere_the_bits_are_those_of_an_undisturbed_run(
    training: Training, setting: Setting, point: str
) -> None:
    training.start(crash_at=point)
    assert training.wait() == -9, training.log()[-3000:]
    training.start()
    assert training.wait() == 0, training.log()[-3000:]
    assert bits_of(training) == setting.expected


def test_healed_within_one_attempt_the_bits_are_those_of_an_undisturbed_run(
    training: Training, setting: Setting
) -> None:
    training.heal_through(["worker.pulled@6", "shard.applied@12", "worker.mark-sent@4", "shard.checkpoint-taken@4"])
    assert bits_of(training) == setting.expected


def test_a_training_that_was_suspended_in_between_ends_with_the_same_bits(training: Training, setting: Setting) -> None:
    training.start()
    training.until("some samples", lambda s: s.progress is not None and s.progress.samples > 0)
    assert training.process is not None
    training.process.terminate()
    assert training.wait() in (0, 1), training.log()[-3000:]
    training.start()
    assert training.wait() == 0, training.log()[-3000:]
    assert bits_of(training) == setting.expected


def test_more_workers_than_partitions_finish_and_a_topic_without_end_is_read_as_it_comes(
    training: Training, setting: Setting
) -> None:
    training.set("RecTraining", "spec.workers.replicas", 4)
    training.set("RecTraining", "spec.source.kafka.stopAt", "Never")
    training.start()
    training.until("a commit of all samples", lambda s: s.checkpoint is not None and s.checkpoint.samples == SAMPLES)
    training.set("RecTraining", "spec.source.kafka.stopAt", "End")
    training.stop()
    training.start()
    assert training.wait() == 0, training.log()[-3000:]
    manifest = training.manifest()
    assert manifest is not None and manifest.samples == SAMPLES
