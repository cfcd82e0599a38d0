"""The synthetic stream against a real broker and a real Redis."""

import json
from collections import Counter

import pyarrow as pa
import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition
from typer.testing import CliRunner

from kuberec_devcluster.services import Kafka, Redis
from kuberec_runtime.cli.main import app
from kuberec_runtime.publish.featurestore import FeatureStore
from kuberec_runtime.synth import KafkaSink, SinkError, Size, Stream, make_world, run
from kuberec_runtime.synth.encode import JsonEncoder


@pytest.fixture(scope="module")
def broker():
    with Kafka() as broker:
        yield broker


@pytest.fixture(scope="module")
def redis():
    with Redis() as redis:
        yield redis


def read_all(broker, topic, partitions):
    """Returns every message of a topic, by partition."""
    consumer = Consumer({"bootstrap.servers": broker.bootstrap, "group.id": "test", "enable.partition.eof": True})
    consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in range(partitions)])
    found, ended = {partition: [] for partition in range(partitions)}, set()
    while len(ended) < partitions:
        message = consumer.poll(20)
        assert message is not None, f"topic {topic} did not end"
        if message.error():
            ended.add(message.partition())
        else:
            found[message.partition()].append(message)
    consumer.close()
    return found


def test_every_sample_arrives_once_and_a_users_in_order(broker):
    world = make_world(3, Size(users=200, items=100))
    sink = KafkaSink(world, broker.bootstrap, "json-samples", partitions=3)
    done = run(Stream(world), sink, samples=25_000)
    found = read_all(broker, "json-samples", 3)
    assert done.samples == sum(map(len, found.values())) == 25_000
    body, offsets = JsonEncoder(world).encode(Stream(world).batch(25_000))
    sent = Counter(body[offsets[k] : offsets[k + 1]] for k in range(25_000))
    assert Counter(message.value() for messages in found.values() for message in messages) == sent
    for messages in found.values():
        assert abs(len(messages) - 25_000 / 3) < 1500
        last = {}
        for message in messages:
            sample = json.loads(message.value())
            assert message.key().decode() == sample["user"]["user_id"]
            assert sample["now"] >= last.get(message.key(), 0)
            last[message.key()] = sample["now"]


def test_arrow_messages_hold_the_same_samples(broker):
    world = make_world(3, Size(users=200, items=100))
    run(Stream(world), KafkaSink(world, broker.bootstrap, "arrow", partitions=2, arrow=True), samples=5000)
    found = read_all(broker, "arrow", 2)
    tables = [pa.ipc.open_stream(message.value()).read_all() for part in found.values() for message in part]
    assert sum(table.num_rows for table in tables) == 5000
    assert max(len(message.value()) for part in found.values() for message in part) < 1_000_000
    assert sorted(pa.concat_tables(tables)["now"].to_pylist()) == Stream(world).batch(5000).now.tolist()


def test_an_existing_topic_keeps_its_partitions(broker):
    broker.create_topic("made-before", partitions=5)
    assert KafkaSink(make_world(3), broker.bootstrap, "made-before", partitions=2).partitions == 5


def test_unreachable_brokers_are_named(monkeypatch):
    monkeypatch.setattr("kuberec_runtime.synth.sink.TIMEOUT_SECONDS", 1.0)
    with pytest.raises(SinkError, match=r"topic 't' on 127\.0\.0\.1:1"):
        KafkaSink(make_world(3), "127.0.0.1:1", "t")


def test_the_command_fills_topic_and_feature_store_and_writes_the_oracle(broker, redis, tmp_path):
    oracle = tmp_path / "oracle.json"
    options = {
        "--bootstrap": broker.bootstrap,
        "--topic": "by-command",
        "--samples": "20000",
        "--seed": "5",
        "--users": "100",
        "--redis": redis.url,
        "--namespace": "shop",
        "--oracle": str(oracle),
    }
    result = CliRunner().invoke(app, ["synth", *(part for option in options.items() for part in option)])
    assert result.exit_code == 0, result.output
    assert "go on with --start 20000" in result.output
    report = json.loads(oracle.read_text())
    assert report["samples"] == 20_000 and 0.7 < report["tail_auc"] < 0.9
    store = FeatureStore(redis.url, "shop")
    world = make_world(5, Size(users=100))
    assert store.user("u7") == world.user_fields(7)
    assert store.items(["i3"]) == [world.item_fields(3)]
    samples = Stream(world).batch(20_000)
    mine = [k for k in range(20_000) if samples.user[k] == 7 and samples.click[k]]
    clicks = store.behavior("clicks", "u7", 50)
    assert clicks["ts"][-1] == samples.now[mine[-1]]
    assert clicks["item"][-1] == f"i{samples.item[mine[-1]]}"


@pytest.mark.parametrize("options", [["--live"], ["--oracle", "x.json"]])
def test_options_that_contradict_each_other_are_refused(options):
    result = CliRunner().invoke(app, ["synth", *options])
    assert result.exit_code == 2
    assert "needs" in result.output
