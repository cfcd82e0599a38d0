"""Each kind of bad input ends in an error or condition that names the thing, and recovers when the cause is mended."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from kuberec_api.meta import ConditionStatus
from kuberec_api.training import RecTrainingStatus
from kuberec_devcluster.processes import free_port
from kuberec_devcluster.services import Kafka, Redis
from tests.component.training import Training, write_message, write_samples

names = count()
pytestmark = pytest.mark.timeout(900)


@pytest.fixture
def training(kafka: Kafka, redis_server: Redis, tmp_path: Path) -> Iterator[Training]:
    training = Training(tmp_path, kafka.bootstrap, redis_server.url, f"bad-{next(names)}")
    yield training
    training.stop()


def degraded(reason: str):
    def holds(status: RecTrainingStatus) -> bool:
        return any(
            c.type == "Degraded" and c.status is ConditionStatus.TRUE and c.reason == reason for c in status.conditions
        )

    return holds


def message_of(status: RecTrainingStatus) -> str:
    return next(c.message for c in status.conditions if c.type == "Degraded")


def test_a_topic_that_does_not_exist_is_named_and_waited_for(training: Training) -> None:
    training.set("RecTraining", "spec.source.kafka.stopAt", "Never")
    training.start()
    status = training.until("Degraded", degraded("TopicNotFound"))
    assert f"topic '{training.topic}' does not exist" in message_of(status)
    write_samples(training.bootstrap, training.topic, 500)
    done = training.until("training", lambda s: s.progress is not None and s.progress.samples > 0)
    assert not degraded("TopicNotFound")(done)


def test_a_wrong_bootstrap_server_is_named(training: Training) -> None:
    wrong = f"127.0.0.1:{free_port()}"
    training.set("RecTraining", "spec.source.kafka.bootstrapServers", wrong)
    training.start()
    assert wrong in message_of(training.until("Degraded", degraded("SourceUnavailable")))


def test_a_message_that_does_not_parse_fails_with_its_partition_and_offset(training: Training) -> None:
    write_samples(training.bootstrap, training.topic, 300, partitions=1)
    write_message(training.bootstrap, training.topic, b'{"user": {"age": "old"}}')
    training.start()
    assert training.wait() == 65, training.log()[-3000:]
    outcome = training.status().outcome
    assert outcome is not None
    assert outcome.permanent
    assert outcome.reason == "BadRecord"
    assert "partition 0 offset 300" in outcome.message
    assert "onBadRecord: Skip" in outcome.message


def test_bad_records_that_are_skipped_are_counted_and_shown(training: Training) -> None:
    write_samples(training.bootstrap, training.topic, 300, partitions=1)
    for text in (b"oops", b"{}"):
        write_message(training.bootstrap, training.topic, text)
    training.set("RecTraining", "spec.source.kafka.onBadRecord", "Skip")
    training.start()
    assert training.wait() == 0, training.log()[-3000:]
    manifest, status = training.manifest(), training.status()
    assert manifest is not None
    assert manifest.samples == 300
    assert manifest.skipped_by_partition == {0: 2}
    assert manifest.offsets[0].next == 302
    assert status.progress is not None
    assert status.progress.skipped_records == 2


def test_a_redis_that_refuses_connections_is_named_and_waited_for(training: Training, tmp_path: Path) -> None:
    port = free_port()
    write_samples(training.bootstrap, training.topic, 500)
    training.set("RecTraining", "spec.publish.redis.url", f"redis://127.0.0.1:{port}/0")
    training.start()
    assert f"127.0.0.1:{port}" in message_of(training.until("Degraded", degraded("PublishFailed")))
    with Redis(tmp_path / "redis", port=port):
        assert training.wait() == 0, training.log()[-3000:]
    assert training.status().publication is not None


def test_a_checkpoint_of_another_plan_is_refused_with_what_changed(training: Training) -> None:
    write_samples(training.bootstrap, training.topic, 300)
    training.start()
    assert training.wait() == 0, training.log()[-3000:]
    for feature in training.documents["RecModel"]["spec"]["features"]["list"]:
        if feature["name"] == "price_b":
            feature["boundaries"] = [1, 2]
    training.start()
    assert training.wait() == 78
    outcome = training.status().outcome
    assert outcome is not None
    assert outcome.reason == "DigestMismatch"
    assert "price_b" in outcome.message


def test_a_feature_that_names_a_missing_field_is_refused_by_name(training: Training) -> None:
    training.documents["RecModel"]["spec"]["features"]["list"][1]["in"] = ["user.gendre"]
    training.start()
    assert training.wait() == 78
    outcome = training.status().outcome
    assert outcome is not None
    assert outcome.reason == "InvalidFeature"
    assert "gender" in outcome.message


def test_a_file_with_another_content_is_refused_for_good(training: Training, tmp_path: Path) -> None:
    (tmp_path / "brands").write_text("b1\nb2\n")
    features = training.documents["RecModel"]["spec"]["features"]
    features["files"] = {"brands": {"sha256": "ab" * 32}}
    brand = next(feature for feature in features["list"] if feature["name"] == "brand")
    brand["encode"] = {"vocabFile": "brands", "unknown": 0, "vocabSize": 9}
    training.start(env={"KUBEREC_FILES": str(tmp_path)})
    assert training.wait() == 78
    outcome = training.status().outcome
    assert outcome is not None
    assert outcome.reason == "InvalidFeature"
    assert f"file 'brands': {tmp_path}/brands has sha256" in outcome.message
