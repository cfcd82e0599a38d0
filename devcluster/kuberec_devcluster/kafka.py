"""A Kafka broker (KRaft, one process) on free loopback ports, fast enough to start for a test module."""

import base64
import subprocess
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic

from kuberec_devcluster import toolchain
from kuberec_devcluster.processes import LOOPBACK, LocalServer, ServerError, free_port, listening

# Storage wants an identity of 16 bytes; one that never changes makes restarts and tests alike.
_CLUSTER = base64.urlsafe_b64encode(uuid.uuid5(uuid.NAMESPACE_DNS, "kuberec.dev").bytes).decode().rstrip("=")


@dataclass(frozen=True)
class Listener:
    """One more address on which the broker listens, and the address that it tells its clients.

    Kafka's clients connect to what the broker advertises, so a client that sees the broker under another name
    (a pod) needs a listener of its own, and so does one that comes encrypted or logs in (`protocol`; see `settings`).
    """

    name: str
    host: str
    port: int
    advertised: str
    protocol: str = "PLAINTEXT"


class Kafka(LocalServer):
    """A real broker; `bootstrap` is what clients on this machine connect to.

    Args:
        folder: where the log segments live; a temporary folder without it.
        port: the loopback port; a free one without it.
        listeners: addresses besides loopback.
        partitions: how many partitions a topic gets that a producer creates by writing to it.
        controller_port: KRaft's own port; a free one without it.
        settings: lines of server.properties beside those made here, such as a listener's keys.
        users: names and passwords that may log in by SCRAM-SHA-512; they are part of the storage from its first start.

    Example:
        with Kafka() as broker:
            Producer({"bootstrap.servers": broker.bootstrap})
    """

    name = "kafka"
    ready_seconds = 90.0

    def __init__(
        self,
        folder: Path | None = None,
        port: int | None = None,
        listeners: Sequence[Listener] = (),
        partitions: int = 1,
        controller_port: int | None = None,
        settings: Mapping[str, object] | None = None,
        users: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(folder)
        self.port = port or free_port()
        self.listeners = tuple(listeners)
        self.settings = dict(settings or {})
        self.users = dict(users or {})
        self.partitions = partitions
        self._controller_port = controller_port or free_port()

    @property
    def bootstrap(self) -> str:
        """`host:port` of the loopback listener."""
        return f"{LOOPBACK}:{self.port}"

    @property
    def _properties(self) -> Path:
        return self.folder / "server.properties"

    def prepare(self) -> None:
        """Writes the configuration, and formats the storage the first time."""
        listeners = [Listener("LOCAL", LOOPBACK, self.port, self.bootstrap), *self.listeners]
        listens = [f"{it.name}://{it.host}:{it.port}" for it in listeners]
        settings = {
            "process.roles": "broker,controller",
            "node.id": 1,
            "controller.quorum.voters": f"1@{LOOPBACK}:{self._controller_port}",
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "LOCAL",
            "listeners": ",".join([*listens, f"CONTROLLER://{LOOPBACK}:{self._controller_port}"]),
            "advertised.listeners": ",".join(f"{it.name}://{it.advertised}" for it in listeners),
            "listener.security.protocol.map": ",".join(
                ["CONTROLLER:PLAINTEXT", *(f"{it.name}:{it.protocol}" for it in listeners)]
            ),
            "log.dirs": self.folder / "data",
            "num.partitions": self.partitions,
            "offsets.topic.num.partitions": 1,
            "offsets.topic.replication.factor": 1,
            "transaction.state.log.num.partitions": 1,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
            "share.coordinator.state.topic.num.partitions": 1,
            "share.coordinator.state.topic.replication.factor": 1,
            "share.coordinator.state.topic.min.isr": 1,
            "broker.session.timeout.ms": 3000,  # how long a killed broker's name stays taken
            "broker.heartbeat.interval.ms": 500,
            "group.initial.rebalance.delay.ms": 0,
            "log.cleaner.dedupe.buffer.size": 16 << 20,
            "num.network.threads": 2,
            "num.io.threads": 4,
            **self.settings,
        }
        self._properties.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
        if not (self.folder / "data" / "meta.properties").exists():
            self._format()

    def _format(self) -> None:
        command = [*self._java(128), "kafka.tools.StorageTool", "format", "-t", _CLUSTER, "-c", str(self._properties)]
        for name, password in self.users.items():
            command += ["--add-scram", f"SCRAM-SHA-512=[name={name},password={password}]"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise ServerError(f"formatting Kafka's storage in {self.folder} failed:\n{done.stdout}{done.stderr}")

    def _java(self, megabytes: int) -> list[str]:
        jars = toolchain.ensure("kafka")
        fast_start = ["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto"]
        logging = f"-Dlog4j2.configurationFile={toolchain.SOURCE / 'kafka' / 'log4j2.properties'}"
        return [str(toolchain.ensure("java")), f"-Xmx{megabytes}m", *fast_start, logging, "-cp", f"{jars}/*"]

    def command(self) -> list[str]:
        return [*self._java(512), "kafka.Kafka", str(self._properties)]

    def answers(self) -> bool:
        """Tells whether the broker answers a metadata request, and lists itself as alive."""
        if not listening(self.port):
            return False
        try:
            client = AdminClient({"bootstrap.servers": self.bootstrap, "log_level": 0})
            return bool(client.list_topics(timeout=2).brokers)
        except KafkaException:
            return False

    def add_partitions(self, topic: str, total: int) -> None:
        """Gives a topic more partitions, `total` in all."""
        admin = AdminClient({"bootstrap.servers": self.bootstrap})
        admin.create_partitions([NewPartitions(topic, total)])[topic].result(30)

    def create_topic(self, topic: str, partitions: int = 1, **config: str) -> None:
        """Creates a topic and returns once the broker knows it; one that exists already is left as it is.

        Args:
            topic: its name.
            partitions: how many.
            config: topic settings with `_` for `.`, such as `retention_ms="-1"`.
        """
        admin = AdminClient({"bootstrap.servers": self.bootstrap})
        settings = {key.replace("_", "."): value for key, value in config.items()}
        new = NewTopic(topic, num_partitions=partitions, replication_factor=1, config=settings)
        try:
            admin.create_topics([new])[topic].result(30)
        except KafkaException as problem:
            if problem.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise
