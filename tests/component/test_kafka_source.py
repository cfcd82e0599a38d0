"""Where a Kafka source starts, what it does when records are gone, and who may read: against a real broker."""

import time
from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path

import pyarrow as pa
import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from kuberec_api.source import KafkaSource as KafkaSpec
from kuberec_devcluster.services import Kafka
from kuberec_runtime.stream import security
from kuberec_runtime.stream.growth import PartitionWatch
from kuberec_runtime.stream.kafka import KafkaSource
from kuberec_runtime.stream.security import KafkaCredentialsError
from kuberec_runtime.stream.source import OffsetOutOfRangeError, PartitionStart, Position, SourceUnavailableError
from kuberec_runtime.stream.topic import discover
from tests.component.kafka_doors import SECRET, USER, Authority, GuardedKafka, LockedKafka

SCHEMA = pa.schema([("now", pa.int64()), ("label.click", pa.float32())])
DEADLINE_S = 60.0
REFUSED_S = 5.0  # librdkafka says why only once it has tried
names = count()
pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def topic(kafka: Kafka) -> str:
    name = f"source-{next(names)}"
    kafka.create_topic(name, partitions=2)
    return name


def write(
    kafka: Kafka, topic: str, values: range, partition: int = 0, client: Mapping[str, object] | None = None
) -> None:
    """One CSV sample a message: `now` is its value and its Kafka timestamp in seconds since 2026."""
    producer = Producer({"bootstrap.servers": kafka.bootstrap, **(client or {})})
    for value in values:
        producer.produce(topic, f"{value},1", partition=partition, timestamp=YEAR_MS + value * 1000)
    assert producer.flush(20) == 0


YEAR_MS = 1_767_225_600_000  # 2026-01-01T00:00:00Z


def spec_of(kafka: Kafka, topic: str, **more: object) -> KafkaSpec:
    given = {"csv": {"columns": ["now", "label.click"]}, "format": "Csv", **more}
    return KafkaSpec.model_validate({"bootstrapServers": kafka.bootstrap, "topic": topic, **given})


def read(source: KafkaSource, samples: int) -> tuple[list[int], dict[int, Position], dict[int, int]]:
    """Reads until there are so many samples, or the source has ended."""
    seen: list[int] = []
    positions: dict[int, Position] = {}
    skipped: dict[int, int] = {}
    deadline = time.monotonic() + DEADLINE_S
    while len(seen) < samples and not source.finished:
        assert time.monotonic() < deadline, f"only {seen}"
        if (batch := source.poll(0.2)) is not None:
            seen += batch.table.column("now").to_pylist()
            positions |= batch.positions
            skipped = {p: skipped.get(p, 0) + n for p, n in batch.skipped.items()} | {
                p: n for p, n in skipped.items() if p not in batch.skipped
            }
    return seen, positions, skipped


def positions_of(spec: KafkaSpec) -> list[int]:
    return [s.position.next for s in discover(spec, [])]


def test_a_first_start_begins_where_the_spec_says(kafka: Kafka, topic: str) -> None:
    write(kafka, topic, range(10))
    write(kafka, topic, range(5), partition=1)
    assert positions_of(spec_of(kafka, topic)) == [0, 0]
    assert positions_of(spec_of(kafka, topic, startFrom="Latest")) == [10, 5]
    at = spec_of(kafka, topic, startFrom="Timestamp", startTimestamp="2026-01-01T01:00:07+01:00")
    assert positions_of(at) == [7, 5]
    assert positions_of(spec_of(kafka, topic, startFrom="Offsets", startOffsets={"0": 3})) == [3, 0]
    known = [PartitionStart(0, Position(4)), PartitionStart(1, Position(1))]
    assert [s.position.next for s in discover(at, known)] == [4, 1]


@pytest.mark.parametrize(
    ("offsets", "says"), [({"7": 0}, "no partition 7"), ({"0": 99}, "partition 0 .* no offset 99")]
)
def test_a_start_that_does_not_exist_is_named(kafka: Kafka, topic: str, offsets: dict[str, int], says: str) -> None:
    with pytest.raises(OffsetOutOfRangeError, match=says):
        discover(spec_of(kafka, topic, startFrom="Offsets", startOffsets=offsets), [])


def expire(kafka: Kafka, topic: str, before: int) -> None:
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    for done in admin.delete_records([TopicPartition(topic, 0, before)]).values():
        done.result(30)


def test_expired_records_fail_or_are_passed_over_and_counted(kafka: Kafka, topic: str) -> None:
    write(kafka, topic, range(20))
    write(kafka, topic, range(100, 105), partition=1)
    expire(kafka, topic, 12)
    starts = [PartitionStart(0, Position(2), 20), PartitionStart(1, Position(0), 5)]
    strict = KafkaSource(spec_of(kafka, topic), SCHEMA, starts, 4)
    with pytest.raises(OffsetOutOfRangeError, match="offset 2 is not on the broker"):
        read(strict, 99)
    strict.close()
    lenient = KafkaSource(spec_of(kafka, topic, onOffsetOutOfRange="Earliest"), SCHEMA, starts, 4)
    seen, positions, skipped = read(lenient, 99)
    assert sorted(seen) == [*range(12, 20), *range(100, 105)]
    assert positions == {0: Position(20), 1: Position(5)}
    assert skipped == {0: 10}
    assert "10 records expired" in lenient.bad_records()[0]
    lenient.close()


@pytest.mark.parametrize("policy", ["Fail", "Earliest"])
def test_an_offset_that_is_refused_though_it_is_there_is_asked_for_again(
    kafka: Kafka, topic: str, policy: str, caplog: pytest.LogCaptureFixture
) -> None:
    write(kafka, topic, range(20))
    source = KafkaSource(spec_of(kafka, topic, stopAt="End", onOffsetOutOfRange=policy), SCHEMA, starts_of(20), 4)
    before, _, _ = read(source, 8)
    source._refused[0] = "Local: No offset to reset to"  # as librdkafka says it now and then after a resume
    after, positions, skipped = read(source, 99)
    assert before + after == list(range(20))
    assert (positions[0], skipped) == (Position(20), {})
    assert "is there (0 to 20); asking again" in caplog.text
    source.close()


def test_an_offset_that_is_refused_again_and_again_ends_the_reading(kafka: Kafka, topic: str) -> None:
    write(kafka, topic, range(20))
    source = KafkaSource(spec_of(kafka, topic), SCHEMA, starts_of(20), 4)
    for _ in range(4):
        source._refused[0] = "refused"
        source._settle_refused()
    source._refused[0] = "refused"
    with pytest.raises(OffsetOutOfRangeError, match="offset 0 is not on the broker"):
        source._settle_refused()
    source.close()


def starts_of(end: int) -> list[PartitionStart]:
    return [PartitionStart(0, Position(0), end)]


def test_all_that_was_left_may_have_expired(kafka: Kafka, topic: str) -> None:
    write(kafka, topic, range(20))
    expire(kafka, topic, 15)
    spec = spec_of(kafka, topic, onOffsetOutOfRange="Earliest")
    source = KafkaSource(spec, SCHEMA, [PartitionStart(0, Position(2), 10)], 4)
    assert read(source, 99) == ([], {0: Position(10)}, {0: 8})
    source.close()


def test_a_partition_that_appears_is_found_and_read_beside_the_others(kafka: Kafka, topic: str) -> None:
    write(kafka, topic, range(10))
    spec = spec_of(kafka, topic)
    source = KafkaSource(spec, SCHEMA, discover(spec, []), 4)
    assert read(source, 10)[0] == list(range(10))
    watch = PartitionWatch(spec, [0, 1], every_s=0.1)
    kafka.add_partitions(topic, 3)
    deadline = time.monotonic() + DEADLINE_S
    while not (new := watch.take()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    watch.close()
    assert new == [PartitionStart(2, Position(0))]
    source.add(new)
    write(kafka, topic, range(50, 60), partition=2)
    write(kafka, topic, range(10, 20))
    seen, positions, _ = read(source, 20)
    assert sorted(seen) == [*range(10, 20), *range(50, 60)]
    assert positions == {0: Position(20), 2: Position(10)}
    source.close()


def test_a_pause_longer_than_any_poll_interval_loses_and_repeats_nothing(kafka: Kafka, topic: str) -> None:
    write(kafka, topic, range(500))
    spec = spec_of(kafka, topic)
    impatient = {"session.timeout.ms": 1000, "max.poll.interval.ms": 1000, "queued.max.messages.kbytes": 1}
    source = KafkaSource(spec, SCHEMA, discover(spec, []), 50, settings=impatient)
    before, _, _ = read(source, 50)
    time.sleep(3.5)  # the pause itself is what is tested: three and a half intervals
    after, positions, _ = read(source, 500 - len(before))
    assert before + after == list(range(500))
    assert positions[0] == Position(500)
    source.close()


def test_in_order_a_partition_far_ahead_stops_and_nothing_is_lost_or_repeated(kafka: Kafka, topic: str) -> None:
    write(kafka, topic, range(3000))
    write(kafka, topic, range(3000, 5900), partition=1)

    def sequence(most_waiting: int) -> tuple[list[int], int, set[int]]:
        source = KafkaSource(spec, SCHEMA, discover(spec, []), 100, in_order=True, most_waiting=most_waiting)
        assert source._order is not None
        seen: list[int] = []
        waited, paused = 0, set[int]()
        deadline = time.monotonic() + DEADLINE_S
        while not source.finished:
            assert time.monotonic() < deadline, f"only {len(seen)}"
            if (batch := source.poll(0.2)) is not None:
                seen += batch.table.column("now").to_pylist()
            waited = max(waited, *source._order.waiting.values())
            paused |= source._paused
        source.close()
        return seen, waited, paused

    spec = spec_of(kafka, topic, stopAt="End")
    expected, all_at_once, _ = sequence(1 << 20)
    seen, waited, paused = sequence(200)
    assert seen == expected and sorted(seen) == list(range(5900))
    assert paused, "somebody was ahead"
    fetch = 100 * len("5899,1")
    assert waited < 200 + fetch < all_at_once


@pytest.fixture
def guarded() -> Iterator[GuardedKafka]:
    with GuardedKafka() as server:
        yield server


def test_credentials_come_from_the_environment_and_stay_out_of_errors(
    guarded: GuardedKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    guarded.wait()
    write(guarded, "guarded", range(5), client=guarded.login)
    door = {"protocol": "SaslPlaintext", "mechanism": "Plain", "secretRef": {"name": "kafka"}}
    spec = spec_of(guarded, "guarded", security=door)
    with pytest.raises(KafkaCredentialsError, match=security.PASSWORD):
        discover(spec, [])
    monkeypatch.setenv(security.USERNAME, "reader")
    monkeypatch.setenv(security.PASSWORD, "wrong-password")
    with pytest.raises(SourceUnavailableError) as refused:
        discover(spec, [], timeout_s=3)
    assert "wrong-password" not in str(refused.value)
    monkeypatch.setenv(security.PASSWORD, "its-secret")
    source = KafkaSource(spec, SCHEMA, discover(spec, []), 5)
    assert read(source, 5)[0] == list(range(5))
    source.close()


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.new()


@pytest.fixture(scope="module")
def locked(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LockedKafka]:
    with LockedKafka(tmp_path_factory.mktemp("keys"), authority) as server:
        server.create_topic("locked")
        write(server, "locked", range(5))
        yield server


@pytest.fixture
def certs(authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that a Secret of certificates is mounted as."""
    monkeypatch.setenv(security.TLS, str(tmp_path))
    authority.write(tmp_path / "ca.crt")
    return tmp_path


def locked_spec(bootstrap: str, **door: object) -> KafkaSpec:
    given = {"bootstrapServers": bootstrap, "topic": "locked", "format": "Csv", "stopAt": "End"}
    csv = {"columns": ["now", "label.click"]}
    return KafkaSpec.model_validate({**given, "csv": csv, "security": {**door, "tlsSecretRef": {"name": "certs"}}})


def read_all(spec: KafkaSpec) -> list[int]:
    source = KafkaSource(spec, SCHEMA, discover(spec, []), 5)
    seen, _, _ = read(source, 5)
    source.close()
    return seen


def test_a_name_and_a_password_open_an_encrypted_broker(
    locked: LockedKafka, certs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = locked_spec(locked.scram, protocol="SaslSsl", mechanism="ScramSha512", secretRef={"name": "login"})
    monkeypatch.setenv(security.USERNAME, USER)
    monkeypatch.setenv(security.PASSWORD, "wrong-password")
    with pytest.raises(SourceUnavailableError, match=r"lets nobody in: .*SCRAM-SHA-512.*secretRef names") as refused:
        discover(spec, [], timeout_s=REFUSED_S)
    assert "wrong-password" not in str(refused.value)
    monkeypatch.setenv(security.PASSWORD, SECRET)
    assert read_all(spec) == list(range(5))


def test_a_broker_that_an_unknown_authority_vouches_for_is_not_believed(
    locked: LockedKafka, certs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Authority.new().write(certs / "ca.crt")
    spec = locked_spec(locked.scram, protocol="SaslSsl", mechanism="ScramSha512", secretRef={"name": "login"})
    monkeypatch.setenv(security.USERNAME, USER)
    monkeypatch.setenv(security.PASSWORD, SECRET)
    with pytest.raises(SourceUnavailableError, match=r"lets nobody in: .*certificate verify failed.*`ca.crt`"):
        discover(spec, [], timeout_s=REFUSED_S)


def test_a_certificate_of_the_client_opens_a_broker_that_asks_for_one(
    locked: LockedKafka, authority: Authority, certs: Path
) -> None:
    spec = locked_spec(locked.mutual, protocol="Ssl")
    with pytest.raises(SourceUnavailableError, match=r"lets nobody in: .*tlsSecretRef names.*`tls.crt`"):
        discover(spec, [], timeout_s=REFUSED_S)
    key, certificate = authority.issue("client")
    (certs / "tls.key").write_bytes(key)
    (certs / "tls.crt").write_bytes(certificate)
    assert read_all(spec) == list(range(5))


def test_tls_files_are_used_if_they_are_there(tmp_path: Path) -> None:
    spec = KafkaSpec.model_validate(
        {"bootstrapServers": "k:1", "topic": "t", "security": {"protocol": "Ssl", "tlsSecretRef": {"name": "tls"}}}
    )
    (tmp_path / "ca.crt").touch()
    settings = security.client_security(spec.security, {security.TLS: str(tmp_path)})
    assert settings == {"security.protocol": "SSL", "ssl.ca.location": str(tmp_path / "ca.crt")}
