"""A broker that lets nobody in without a name and a password."""

import time
from collections.abc import Mapping

from confluent_kafka.admin import AdminClient

from kuberec_devcluster.processes import listening
from kuberec_devcluster.services import Kafka

DEADLINE_S = 60.0
USER, SECRET = "reader", "its-secret"


class GuardedKafka(Kafka):
    """SASL PLAIN without TLS."""

    login: Mapping[str, object] = {
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": "PLAIN",
        "sasl.username": USER,
        "sasl.password": SECRET,
    }

    def prepare(self) -> None:
        super().prepare()
        module = "org.apache.kafka.common.security.plain.PlainLoginModule required"
        users = f'username="broker" password="b" user_broker="b" user_{USER}="{SECRET}"'
        text = self._properties.read_text().replace("LOCAL:PLAINTEXT", "LOCAL:SASL_PLAINTEXT")
        text += "sasl.enabled.mechanisms=PLAIN\nsasl.mechanism.inter.broker.protocol=PLAIN\n"
        self._properties.write_text(text + f"listener.name.local.plain.sasl.jaas.config={module} {users};\n")

    def answers(self) -> bool:
        return listening(self.port)

    def wait(self) -> None:
        """Waits until it answers those who have a name."""
        admin = AdminClient({"bootstrap.servers": self.bootstrap, **self.login})
        deadline = time.monotonic() + DEADLINE_S
        while not admin.list_topics(timeout=10).brokers:
            assert time.monotonic() < deadline
