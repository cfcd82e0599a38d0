"""`kuberec offsets` on a real topic: what it shows, and a training that goes on where a reset has put it."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer
from typer.testing import CliRunner

from kuberec_devcluster.services import Kafka, Redis
from kuberec_runtime.checkpoint import CommitLog, PartitionOffset, find_restorable, open_store, read_log
from kuberec_runtime.cli.offsets import app
from kuberec_runtime.offsets.reset import append_epoch
from kuberec_runtime.stream import security
from kuberec_runtime.stream.ends import offsets_at, read_ends
from kuberec_runtime.stream.source import SourceUnavailableError, TopicNotFoundError
from tests.component.kafka_doors import SECRET, USER, GuardedKafka
from tests.component.training import Training, write_samples
from tests.unit.epochs.epochs import CATE, commit, row

SAMPLES = 3000
AGAIN = 100
pytestmark = pytest.mark.timeout(900)

RESET = """
import sys
from kuberec_runtime.checkpoint import open_store, read_log
from kuberec_runtime.offsets.reset import append_epoch
store = open_store(sys.argv[1])
def five(manifest):
    return tuple(o.model_copy(update={"next": 5}) for o in manifest.offsets)
append_epoch(store, read_log(store).attempt + 1, five, "offsets reset")
"""
BEFORE_THE_COMMIT = ["log.judged@1", "log.created@1", "offsets.started", "checkpoint.manifest-written", "log.judged@2"]
AFTER_THE_COMMIT = ["log.created@2", "offsets.committed"]


def invoke(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, list(arguments))
    return result.exit_code, " ".join(result.output.split())


@pytest.mark.parametrize("point", [*BEFORE_THE_COMMIT, *AFTER_THE_COMMIT])
def test_killed_anywhere_a_reset_is_done_or_was_never_there_and_can_be_done_again(point: str, tmp_path: Path) -> None:
    uri = f"file://{tmp_path}"
    store = open_store(uri)
    log = CommitLog(store, 1)
    log.start()
    newest = commit(store, log, 1, {(CATE, 0): row(1.0)})
    killed = subprocess.run(
        [sys.executable, "-c", RESET, uri], env={**os.environ, "KUBEREC_CRASH_AT": point}, timeout=60
    )
    assert killed.returncode == -signal.SIGKILL
    done = point in AFTER_THE_COMMIT
    plan = find_restorable(store, checksums=True)
    assert plan is not None
    assert (plan.manifest.epoch, plan.manifest.offsets[0].next) == ((2, 5) if done else (1, newest.offsets[0].next))
    again = append_epoch(store, read_log(store).attempt + 1, lambda m: m.offsets, "")
    assert again.after.epoch == plan.manifest.epoch + 1
    assert CommitLog(store, again.after.attempt + 1).start() == again.committed


def test_ends_and_times_of_a_topic(kafka: Kafka) -> None:
    write_samples(kafka.bootstrap, "ends", 300)
    first = read_ends(kafka.bootstrap, "ends")
    time.sleep(0.05)  # Kafka's timestamps are the clock's milliseconds
    between_ms = int(time.time() * 1000)
    time.sleep(0.05)
    write_samples(kafka.bootstrap, "ends", 300, seed=1)
    second = read_ends(kafka.bootstrap, "ends")
    assert sorted(first) == [0, 1, 2]
    assert sum(e.latest - e.earliest for e in first.values()) == 300
    assert offsets_at(kafka.bootstrap, "ends", between_ms) == {p: e.latest for p, e in first.items()}
    assert offsets_at(kafka.bootstrap, "ends", 0) == {p: e.earliest for p, e in second.items()}
    later = int(time.time() * 1000) + 3_600_000
    assert offsets_at(kafka.bootstrap, "ends", later) == {p: e.latest for p, e in second.items()}
    with pytest.raises(TopicNotFoundError, match="'nowhere' does not exist"):
        read_ends(kafka.bootstrap, "nowhere")
    with pytest.raises(SourceUnavailableError, match="no Kafka broker answers"):
        read_ends("127.0.0.1:1", "ends", timeout_s=1)


def test_brokers_that_want_credentials_get_them_from_the_environment_or_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"file://{tmp_path}/checkpoint"
    store = open_store(uri)
    log = CommitLog(store, 1)
    log.start()
    commit(
        store, log, 1, {(CATE, 0): row(1.0)}, offsets=(PartitionOffset(topic="guarded", partition=0, start=0, next=3),)
    )
    properties = tmp_path / "client.properties"
    properties.write_text("# as kcat reads it\n" + "".join(f"{k}={v}\n" for k, v in GuardedKafka.login.items()))
    with GuardedKafka() as guarded:
        guarded.wait()
        producer = Producer({"bootstrap.servers": guarded.bootstrap, **guarded.login})
        for _ in range(10):
            producer.produce("guarded", b"{}", partition=0)
        assert producer.flush(20) == 0
        show = ("show", uri, "--kafka", guarded.bootstrap, "--json")
        door = ("--kafka-security", "SaslPlaintext", "--kafka-mechanism", "Plain")

        code, said = invoke(*show, *door)
        assert code == 1 and f"needs {security.USERNAME} and {security.PASSWORD} in the environment" in said
        monkeypatch.setenv(security.USERNAME, USER)
        monkeypatch.setenv(security.PASSWORD, SECRET)
        code, said = invoke(*show, *door)
        assert code == 0 and json.loads(said)["partitions"][0]["lag"] == 7, said
        monkeypatch.delenv(security.PASSWORD)
        code, said = invoke(*show, "--kafka-config", str(properties))
        assert code == 0 and json.loads(said)["partitions"][0]["lag"] == 7, said
        reset = ("reset", uri, "--to", "earliest", "--kafka", guarded.bootstrap, "--yes")
        code, said = invoke(*reset, "--force", "--kafka-config", str(properties))
        assert code == 0 and SECRET not in said, said
    plan = find_restorable(store)
    assert plan is not None and plan.manifest.offsets[0].next == 0


@pytest.fixture
def training(kafka: Kafka, redis_server: Redis, tmp_path: Path) -> Iterator[Training]:
    training = Training(tmp_path, kafka.bootstrap, redis_server.url, "reset")
    write_samples(kafka.bootstrap, training.topic, SAMPLES)
    yield training
    training.stop()


def test_a_training_goes_on_exactly_where_a_reset_has_put_it(training: Training) -> None:
    uri, brokers = f"file://{training.folder}/checkpoint", training.bootstrap
    training.set("RecTraining", "spec.source.kafka.stopAt", "Never")
    training.start()
    training.until("all samples", lambda s: s.checkpoint is not None and s.checkpoint.samples == SAMPLES)
    shown = json.loads(CliRunner().invoke(app, ["show", uri, "--kafka", brokers, "--json"]).output)
    assert [p["lag"] for p in shown["partitions"]] == [0, 0, 0]
    before = {p["partition"]: p for p in shown["partitions"]}
    to = f"offsets:0={before[0]['next'] - AGAIN},1=earliest"

    code, said = invoke("reset", uri, "--to", to, "--kafka", brokers, "--yes")
    assert code == 1 and "it seems to be running" in said
    code, said = invoke("reset", uri, "--to", to, "--kafka", brokers, "--yes", "--force")
    assert code == 0 and "committed by attempt 2" in said, said

    # What ran is fenced: it commits nothing behind the reset, and tells the operator which number to go on above.
    assert training.process is not None
    assert training.process.wait(60) == 70, training.log()[-3000:]
    outcome = training.status().outcome
    assert outcome is not None
    assert (outcome.reason, outcome.newest_attempt) == ("Fenced", 2)
    reset = training.manifest()
    assert reset is not None
    assert (reset.attempt, reset.samples) == (2, SAMPLES)
    assert {o.partition: o.next for o in reset.offsets} == {
        0: before[0]["next"] - AGAIN,
        1: 0,
        2: before[2]["next"],
    }

    # The operator's next number is the reset's: fenced at once. The one after it goes on from the reset.
    training.set("RecTraining", "spec.source.kafka.stopAt", "End")
    training.start()
    assert training.wait() == 70
    outcome = training.status().outcome
    assert outcome is not None
    assert outcome.newest_attempt == 2
    training.start()
    assert training.wait() == 0, training.log()[-3000:]
    after = training.manifest()
    assert after is not None
    assert after.attempt == 3
    assert after.samples_by_partition == {
        0: before[0]["samples"] + AGAIN,
        1: before[1]["samples"] * 2,
        2: before[2]["samples"],
    }
    assert all(o.next == o.end for o in after.offsets)
