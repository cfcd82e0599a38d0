"""Brokers that let nobody in who is not known: by a password, in the clear or over TLS, or by a certificate."""

import datetime
import ipaddress
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from confluent_kafka.admin import AdminClient
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from kuberec_devcluster.processes import LOOPBACK, free_port, listening
from kuberec_devcluster.services import Kafka, Listener

DEADLINE_S = 60.0
USER, SECRET = "reader", "its-secret"


@dataclass(frozen=True)
class Authority:
    """Signs certificates for loopback."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @classmethod
    def new(cls) -> "Authority":
        key = ec.generate_private_key(ec.SECP256R1())
        basic = x509.BasicConstraints(ca=True, path_length=0)
        return cls(key, _builder("authority", "authority", key).add_extension(basic, True).sign(key, hashes.SHA256()))

    def write(self, path: Path) -> None:
        path.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))

    def issue(self, name: str) -> tuple[bytes, bytes]:
        """A new key and its certificate, as PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        here = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(LOOPBACK))])
        signed = _builder(name, "authority", key).add_extension(here, False).sign(self.key, hashes.SHA256())
        pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
        return key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain), signed.public_bytes(pem)


def _builder(name: str, issuer: str, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    def named(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    now, hour = datetime.datetime.now(datetime.UTC), datetime.timedelta(hours=1)
    builder = x509.CertificateBuilder().subject_name(named(name)).issuer_name(named(issuer))
    builder = builder.public_key(key.public_key()).serial_number(x509.random_serial_number())
    return builder.not_valid_before(now - hour).not_valid_after(now + 24 * hour)


class LockedKafka(Kafka):
    """Listens at `scram` (SASL_SSL, SCRAM-SHA-512, one user) and `mutual` (SSL, clients show a certificate), too."""

    def __init__(self, keys: Path, authority: Authority) -> None:
        broker, ca = keys / "broker.pem", keys / "authority.pem"
        broker.write_bytes(b"".join(authority.issue("broker")))
        authority.write(ca)
        scram, mutual = free_port(), free_port()
        self.scram, self.mutual = f"{LOOPBACK}:{scram}", f"{LOOPBACK}:{mutual}"
        login = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        super().__init__(
            listeners=[
                Listener("SCRAM", LOOPBACK, scram, self.scram, "SASL_SSL"),
                Listener("MUTUAL", LOOPBACK, mutual, self.mutual, "SSL"),
            ],
            settings={
                "ssl.keystore.type": "PEM",
                "ssl.keystore.location": broker,
                "ssl.truststore.type": "PEM",
                "ssl.truststore.location": ca,
                "listener.name.mutual.ssl.client.auth": "required",
                "listener.name.scram.sasl.enabled.mechanisms": "SCRAM-SHA-512",
                "listener.name.scram.scram-sha-512.sasl.jaas.config": login,
            },
            users={USER: SECRET},
        )


class GuardedKafka(Kafka):
    """SASL PLAIN without TLS, at `bootstrap`."""

    login: Mapping[str, object] = {
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": "PLAIN",
        "sasl.username": USER,
        "sasl.password": SECRET,
    }

    def __init__(self) -> None:
        module = "org.apache.kafka.common.security.plain.PlainLoginModule required"
        users = f'username="broker" password="b" user_broker="b" user_{USER}="{SECRET}"'
        super().__init__(
            settings={
                "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,LOCAL:SASL_PLAINTEXT",
                "sasl.enabled.mechanisms": "PLAIN",
                "sasl.mechanism.inter.broker.protocol": "PLAIN",
                "listener.name.local.plain.sasl.jaas.config": f"{module} {users};",
            }
        )

    def answers(self) -> bool:
        return listening(self.port)

    def wait(self) -> None:
        """Waits until it answers those who have a name."""
        admin = AdminClient({"bootstrap.servers": self.bootstrap, **self.login})
        deadline = time.monotonic() + DEADLINE_S
        while not admin.list_topics(timeout=10).brokers:
            assert time.monotonic() < deadline
