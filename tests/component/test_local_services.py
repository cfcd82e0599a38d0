"""The servers that every other component test stands on do what those tests take for granted."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import obstore
import pytest
import redis
from confluent_kafka import Consumer, Producer
from obstore.exceptions import AlreadyExistsError
from obstore.store import S3Store

from kuberec_devcluster.processes import ServerError, wait_until
from kuberec_devcluster.services import S3, Kafka, Redis


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    with Kafka(tmp_path_factory.mktemp("kafka")) as started:
        yield started


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    with S3() as started:
        yield started


@pytest.fixture(scope="module")
def bucket(s3: S3) -> S3Store:
    return S3Store(s3.bucket, **s3.options, client_options={"allow_http": True})


def produce(broker: Kafka, topic: str, *values: str) -> None:
    producer = Producer({"bootstrap.servers": broker.bootstrap})
    for value in values:
        producer.produce(topic, value)
    assert producer.flush(30) == 0


def consume(broker: Kafka, topic: str, count: int) -> list[str]:
    settings = {"bootstrap.servers": broker.bootstrap, "group.id": f"{topic}-reader", "auto.offset.reset": "earliest"}
    consumer = Consumer({**settings, "enable.auto.commit": False})
    consumer.subscribe([topic])
    values: list[str] = []
    deadline = time.monotonic() + 30
    while len(values) < count and time.monotonic() < deadline:
        message = consumer.poll(0.5)
        if message is not None and message.error() is None:
            values.append(message.value().decode())
    consumer.close()
    return values


def test_a_record_written_to_kafka_is_read_back(broker: Kafka) -> None:
    broker.create_topic("clicks", partitions=2)
    produce(broker, "clicks", "one")
    assert consume(broker, "clicks", 1) == ["one"]


def test_creating_a_topic_twice_keeps_it(broker: Kafka) -> None:
    broker.create_topic("twice")
    produce(broker, "twice", "kept")
    broker.create_topic("twice")
    assert consume(broker, "twice", 1) == ["kept"]


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_kafka_keeps_its_records_and_its_address_over_a_restart(broker: Kafka, end: str) -> None:
    topic, address = f"kept-over-{end}", broker.bootstrap
    broker.create_topic(topic)
    produce(broker, topic, "before")
    getattr(broker, end)()
    broker.start()
    assert broker.bootstrap == address
    produce(broker, topic, "after")
    assert consume(broker, topic, 2) == ["before", "after"]


def test_redis_answers_on_its_url() -> None:
    with Redis() as server, redis.Redis.from_url(server.url) as client:
        client.set("key", b"value")
        assert client.get("key") == b"value"
        server.kill()
        with pytest.raises(redis.ConnectionError):
            client.get("key")
        server.start()
        assert client.get("key") is None


def test_one_of_many_racing_creators_of_an_s3_object_wins(bucket: S3Store) -> None:
    def create(number: int) -> int | None:
        try:
            obstore.put(bucket, "log/0001", str(number).encode(), mode="create")
        except AlreadyExistsError:
            return None
        return number

    with ThreadPoolExecutor(8) as pool:
        winners = [won for won in pool.map(create, range(8)) if won is not None]
    assert len(winners) == 1
    assert bytes(obstore.get(bucket, "log/0001").bytes()) == str(winners[0]).encode()


def test_s3_keeps_its_objects_over_a_restart(s3: S3, bucket: S3Store) -> None:
    obstore.put(bucket, "kept", b"bytes")
    s3.restart()
    assert bytes(obstore.get(bucket, "kept").bytes()) == b"bytes"


def test_a_killed_test_run_takes_its_servers_with_it(tmp_path: Path) -> None:
    program = f"""
import pathlib, time
from kuberec_devcluster.services import Redis
server = Redis(pathlib.Path({str(tmp_path)!r})).start()
print(server.pid, flush=True)
time.sleep(600)
"""
    devcluster = Path(__file__).resolve().parents[2] / "devcluster"
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={"PYTHONPATH": str(devcluster)}) as run:
        assert run.stdout is not None
        server = Path("/proc") / run.stdout.readline().strip()
        assert server.exists()
        run.send_signal(signal.SIGKILL)
    wait_until(lambda: not (server / "exe").exists(), "the server is gone", 10)


def test_a_port_that_another_server_holds_is_refused(tmp_path: Path) -> None:
    with Redis() as first, pytest.raises(ServerError, match="another server answers"):
        Redis(tmp_path, port=first.port).start()


def test_a_server_that_ends_on_its_own_says_why(tmp_path: Path) -> None:
    with pytest.raises(ServerError, match="Could not create server TCP listening socket"):
        Redis(tmp_path, hosts=("192.0.2.1",)).start()
