"""The replay check with a real Kafka: what a replica serves goes to a topic, and `kuberec replay` finds every lie."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from click.testing import Result
from confluent_kafka import Producer
from typer.testing import CliRunner

from featuregen.compiler import compile_plan
from featuregen.replay.files import SnapshotFiles
from featuregen.replay.snapshot import Snapshot, SnapshotFormat, read_message
from kuberec_api.meta import KafkaTopic
from kuberec_api.serving import RecServing, RequestLog
from kuberec_devcluster.services import S3, Kafka, Redis
from kuberec_runtime.checkpoint import open_store
from kuberec_runtime.cli import app
from kuberec_runtime.publish.publication import Version
from kuberec_runtime.replay.logs import Topic, arrow_paths, read_topic
from kuberec_runtime.serve.local import start_serving
from kuberec_runtime.serve.metrics import Metrics
from kuberec_runtime.serve.requestlog import Ranked
from kuberec_runtime.serve.requestlog import RequestLog as Log
from kuberec_runtime.stream import security
from tests.component.kafka_doors import SECRET, USER, GuardedKafka
from tests.component.serving import CLICKS, ITEMS, NOW, World, feed
from tests.component.test_serve_http import training

FEED = Path(__file__).parents[2] / "examples" / "feed.yaml"
REQUESTS = 60
pytestmark = pytest.mark.timeout(900)


def logged_serving(bootstrap: str, topic: str, sample: float = 1.0) -> RecServing:
    serving = feed()[1]
    log = RequestLog(kafka=KafkaTopic(bootstrap_servers=bootstrap, topic=topic), sample=sample)
    return serving.model_copy(update={"spec": serving.spec.model_copy(update={"request_log": log})})


@dataclass(frozen=True)
class Left:
    """The messages that a served application left in a topic."""

    bootstrap: str
    topic: str
    messages: list[bytes]

    @property
    def uri(self) -> str:
        return f"kafka://{self.bootstrap}/{self.topic}"


def wait_for(topic: Topic, requests: int, timeout_s: float = 60.0) -> list[bytes]:
    """The topic's messages, once they hold as many requests."""
    deadline = time.monotonic() + timeout_s
    while True:
        messages = [message for _, message, _, _ in read_topic(topic)]
        found = sum(read_message(message).num_rows for message in messages)
        if found >= requests:
            return messages
        assert time.monotonic() < deadline, f"{found} of {requests} requests were logged"


@pytest.fixture(scope="module")
def served(kafka: Kafka, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Left]:
    """Requests of four users over HTTP, of candidates that are known and unknown; then the topic that they left."""
    kafka.create_topic("requests")
    with Redis() as redis:
        world = World(feed()[0], redis.url)
        world.fill_store()
        world.publish(Version(1, 1), {})
        serving = logged_serving(kafka.bootstrap, "requests")
        folder = tmp_path_factory.mktemp("serving")
        with start_serving(serving, feed()[0], training(world.url), folder) as app:
            for number in range(REQUESTS):
                body = {
                    "user": {"user_id": "u1"} if number % 4 == 0 else {"user_id": f"u{number % 4}", "age": number},
                    "items": [f"i{(number * 7 + n) % 230}" for n in range(number + 1)],
                    "context": {"hour": number % 24},
                    "now": NOW + number,
                }
                answer = httpx.post(app.rank_url, json=body, headers={"x-request-id": f"r{number:03d}"})
                assert answer.status_code == 200, answer.text
                assert answer.headers["x-request-id"] == f"r{number:03d}"
            yield Left(kafka.bootstrap, "requests", wait_for(Topic(kafka.bootstrap, "requests"), REQUESTS))


def run_replay(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["replay", *map(str, arguments)])


def test_a_served_log_has_no_mismatch(served: Left, tmp_path: Path) -> None:
    report, metrics = tmp_path / "report.json", tmp_path / "kuberec.prom"
    done = run_replay(served.uri, "-m", FEED, "--report", report, "--metrics", metrics, "--parallel", "2")
    assert done.exit_code == 0, done.stdout + done.stderr
    found = json.loads(report.read_text())
    assert (found["requests"], found["mismatches"], found["unreadable"]) == (REQUESTS, 0, [])
    assert f"{REQUESTS} requests, 0 mismatches" in done.stdout
    assert 'kuberec_replay_mismatch_total{feature="clk_cate",model="feed"} 0.0' in metrics.read_text()


def test_requests_that_wait_together_are_one_message(served: Left) -> None:
    assert 1 <= len(served.messages) < REQUESTS


def form() -> SnapshotFormat:
    return SnapshotFormat(compile_plan(feed()[0].spec.features))


def tampered(message: bytes) -> bytes:
    """A message in which one price is another."""
    batch = read_message(message)
    names = batch.schema.names
    prices = batch.column("item.price").to_pylist()
    row = next(at for at, one in enumerate(prices) if len(one) > 3 and one[3] is not None)
    prices[row][3] += 0.5
    columns = [pa.array(prices, f.type) if f.name == "item.price" else batch.column(f.name) for f in batch.schema]
    changed = pa.RecordBatch.from_arrays(columns, schema=batch.schema)
    assert names == changed.schema.names
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, changed.schema) as writer:
        writer.write_batch(changed)
    return bytes(sink.getvalue())


def test_a_tampered_message_is_found(served: Left, kafka: Kafka) -> None:
    kafka.create_topic("tampered")
    producer = Producer({"bootstrap.servers": kafka.bootstrap})
    for message in [*served.messages[:-1], tampered(served.messages[-1]), b"no snapshot"]:
        producer.produce("tampered", message)
    producer.flush(30)
    done = run_replay(f"kafka://{kafka.bootstrap}/tampered", "-m", FEED)
    assert done.exit_code == 1, done.stdout + done.stderr
    lines = {line.split("│")[1].strip(): line for line in done.stdout.splitlines() if line.startswith("│")}
    assert " 1 " in lines["price"] and "request r" in lines["price"]
    assert " 0 " in lines["clk_cate"]
    assert "unreadable: partition" in done.stderr and "not an Arrow IPC stream" in done.stderr


def test_brokers_that_want_credentials_are_asked_with_those_of_the_environment(
    served: Left, monkeypatch: pytest.MonkeyPatch
) -> None:
    with GuardedKafka() as guarded:
        guarded.wait()
        producer = Producer({"bootstrap.servers": guarded.bootstrap, **guarded.login})
        for message in served.messages:
            producer.produce("requests", message)
        assert producer.flush(20) == 0
        command = (f"kafka://{guarded.bootstrap}/requests", "-m", FEED, "--kafka-security", "SaslPlaintext")
        refused = run_replay(*command, "--kafka-mechanism", "Plain")
        assert refused.exit_code == 66 and f"{security.USERNAME} and {security.PASSWORD}" in refused.stderr
        monkeypatch.setenv(security.USERNAME, USER)
        monkeypatch.setenv(security.PASSWORD, SECRET)
        done = run_replay(*command, "--kafka-mechanism", "Plain")
    assert done.exit_code == 0, done.stdout + done.stderr
    assert f"{REQUESTS} requests, 0 mismatches" in done.stdout


def test_another_model_is_explained(served: Left, tmp_path: Path) -> None:
    documents = list(yaml.safe_load_all(FEED.read_text()))
    documents[0]["spec"]["features"]["list"][1]["encode"]["hashBuckets"] = 17
    other = tmp_path / "other.yaml"
    other.write_text(yaml.safe_dump(documents[0]))
    done = run_replay(served.uri, "-m", other)
    assert done.exit_code == 65, done.stdout + done.stderr
    assert f"{REQUESTS} requests of plan" in done.stderr
    assert "feature 'gender': buckets 16 -> 17" in done.stderr


def test_a_saved_topic_is_replayed_from_files_and_on_ray(served: Left, tmp_path: Path) -> None:
    kept = run_replay(served.uri, "-m", FEED, "--save", tmp_path / "log")
    assert kept.exit_code == 0, kept.stdout + kept.stderr
    tables = [pq.read_table(path) for path in sorted((tmp_path / "log").glob("*.parquet"))]
    assert sum(table.num_rows for table in tables) == REQUESTS
    lying = read_message(tampered(served.messages[-1]))
    with SnapshotFiles(tmp_path / "log", lying.schema) as files:
        files.write(lying)
    report = tmp_path / "report.json"
    command = [sys.executable, "-m", "kuberec_runtime.cli", "replay", str(tmp_path / "log"), "-m", str(FEED)]
    command += ["--distributed", "--parallel", "2", "--report", str(report)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=400)
    assert done.returncode == 1, done.stdout + done.stderr
    found = json.loads(report.read_text())
    assert found["requests"] == REQUESTS + lying.num_rows
    assert {name for name, tally in found["features"].items() if tally["mismatches"]} <= {"price", "price_b"}
    assert found["features"]["price"]["mismatches"] == 1


def test_a_bucket_is_read_with_the_credentials_of_checkpoints(
    served: Left, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with S3() as s3:
        for name, value in s3.aws_environment.items():
            monkeypatch.setenv(name, value)
        with SnapshotFiles(tmp_path, form().schema) as files:
            for message in served.messages:
                files.write(read_message(message))
        store = open_store(f"s3://{s3.bucket}/requests")
        store.put("day/one.parquet", files.written[0].read_bytes())
        store.put("day/notes.txt", b"no log")
        store.put("other/two.parquet", files.written[0].read_bytes())
        for where, times in (("", 2), ("/day", 1), ("/day/o*.parquet", 1), ("/day/one.parquet", 1)):
            done = run_replay(f"s3://{s3.bucket}/requests{where}", "-m", FEED)
            assert done.exit_code == 0, done.stdout + done.stderr
            assert f"{times * REQUESTS} requests, 0 mismatches" in done.stdout
        paths, file_system = arrow_paths(f"s3://{s3.bucket}/requests/day")
        assert pq.read_table(paths[0], filesystem=file_system).num_rows == REQUESTS
        for where, words in (("nothing", "no file *.parquet"), ("requests/*/one.parquet", "only the last component")):
            done = run_replay(f"s3://{s3.bucket}/{where}", "-m", FEED)
            assert (done.exit_code, words in done.stderr) == (66, True), done.stderr


def test_behaviour_is_proven_by_an_event_log(served: Left, tmp_path: Path) -> None:
    events = [
        {"user": "u1", "item": item, "action": action, "ts": ts, "cate": ITEMS[item]["cate"]}
        for item, action, ts in CLICKS
    ]
    whole, late = tmp_path / "events.parquet", tmp_path / "late.parquet"
    pq.write_table(pa.Table.from_pylist(events), whole)
    done = run_replay(served.uri, "-m", FEED, "--events", whole)
    assert done.exit_code == 0, done.stdout + done.stderr
    pq.write_table(pa.Table.from_pylist([*events, {**events[-1], "ts": NOW - 500}]), late)
    report = tmp_path / "report.json"
    done = run_replay(served.uri, "-m", FEED, "--events", f"clicks={late}", "--report", report)
    assert done.exit_code == 1, done.stdout + done.stderr
    found = json.loads(report.read_text())
    behavior, requests_of_u1 = found["behaviors"]["clicks"], REQUESTS // 2
    assert (behavior["missing"], behavior["lags"][0]) == (requests_of_u1, requests_of_u1)
    assert found["features"]["clk_seq__item_id"]["mismatches"] == requests_of_u1
    assert found["features"]["price"]["mismatches"] == 0


def test_what_cannot_be_read_is_an_error_of_its_own(kafka: Kafka, tmp_path: Path) -> None:
    kafka.create_topic("empty")
    cases = {
        f"kafka://{kafka.bootstrap}/empty": (66, "0 requests"),
        f"kafka://{kafka.bootstrap}/absent": (66, "does not exist"),
        "kafka://nowhere": (66, "kafka://host:port/topic"),
        str(tmp_path): (66, "no file *.parquet"),
    }
    for where, (code, words) in cases.items():
        done = run_replay(where, "-m", FEED)
        assert done.exit_code == code, done.stdout + done.stderr
        assert words in done.stdout + done.stderr
    assert run_replay(tmp_path, "-m", tmp_path / "none.yaml").exit_code == 78


@pytest.fixture(scope="module")
def ranked(served: Left) -> Ranked:
    snapshots = [s for message in served.messages for s in form().read(read_message(message))]
    snapshot: Snapshot = max(snapshots, key=lambda one: one.request.rows)
    features = World(feed()[0], "redis://127.0.0.1:1").engine.run(snapshot.request)
    request = snapshot.request
    return Ranked("r", "1.1", snapshot.user_key, snapshot.item_keys, request.rows, lambda: request, features)


def counts(metrics: Metrics) -> dict[str, float]:
    found: dict[str, Any] = {"logged": metrics.logged.collect()[0].samples[0].value}
    for sample in metrics.log_dropped.collect()[0].samples:
        if sample.name.endswith("_total"):
            found[sample.labels["reason"]] = sample.value
    return found


def test_what_does_not_fit_the_queue_is_dropped_and_counted(kafka: Kafka, ranked: Ranked) -> None:
    kafka.create_topic("flood")
    spec = logged_serving(kafka.bootstrap, "flood").spec.request_log
    assert spec is not None
    metrics = Metrics()
    log = Log(form().plan, spec, metrics, waiting=8)
    for _ in range(2000):
        log.offer(ranked)
    log.close(60)
    found = counts(metrics)
    assert found["logged"] > 0 and found["queue"] > 0
    assert sum(found.values()) == 2000
    written = [read_message(m).num_rows for _, m, _, _ in read_topic(Topic(kafka.bootstrap, "flood"))]
    assert sum(written) == found["logged"]


def test_requests_do_not_wait_for_brokers_that_are_gone(ranked: Ranked) -> None:
    spec = logged_serving("127.0.0.1:1", "nowhere").spec.request_log
    assert spec is not None
    metrics = Metrics()
    log = Log(form().plan, spec, metrics)
    for _ in range(100):
        log.offer(ranked)
    log.close(1)
    assert counts(metrics)["logged"] == 0


def test_a_sample_keeps_all_requests_of_a_user_or_none(kafka: Kafka, ranked: Ranked) -> None:
    kafka.create_topic("sampled")
    spec = logged_serving(kafka.bootstrap, "sampled", sample=0.3).spec.request_log
    assert spec is not None
    log = Log(form().plan, spec, Metrics())
    for number in range(300):
        log.offer(replace(ranked, user_key=f"u{number % 30}", request_id=str(number)))
    log.close(60)
    users: dict[str, int] = {}
    for _, message, _, _ in read_topic(Topic(kafka.bootstrap, "sampled")):
        for user in read_message(message).column("user_key").to_pylist():
            users[user] = users.get(user, 0) + 1
    assert 1 <= len(users) < 30 and set(users.values()) == {10}
