"""What a Kafka client needs to be let in, from the environment and mounted files: no secret is in a spec.

The operator maps the Secrets that `spec.source.kafka.security` names to these names; a local run sets them itself.
"""

from collections.abc import Mapping
from pathlib import Path

from confluent_kafka import Consumer, KafkaError

from kuberec_api import environment
from kuberec_api.source import KafkaSecurity, SaslMechanism, SecurityProtocol
from kuberec_runtime.stream.source import SourceError, SourceUnavailableError

USERNAME, PASSWORD, TLS = environment.KAFKA_USERNAME, environment.KAFKA_PASSWORD, "KUBEREC_KAFKA_TLS"

_PROTOCOLS = {
    SecurityProtocol.SASL_SSL: "SASL_SSL",
    SecurityProtocol.SASL_PLAINTEXT: "SASL_PLAINTEXT",
    SecurityProtocol.SSL: "SSL",
}
_MECHANISMS = {
    SaslMechanism.SCRAM_SHA_512: "SCRAM-SHA-512",
    SaslMechanism.SCRAM_SHA_256: "SCRAM-SHA-256",
    SaslMechanism.PLAIN: "PLAIN",
}


class KafkaCredentialsError(SourceError):
    """The spec asks for credentials that this process was not given."""

    reason = "KafkaCredentialsMissing"
    permanent = True


_TLS_ALERT = "SSL alert"
_MENDED = {
    KafkaError._AUTHENTICATION: (
        "mend the Secret that source.kafka.security.secretRef names: its keys are `username` and `password`"
    ),
    KafkaError._SSL: (
        "mend the Secret that source.kafka.security.tlsSecretRef names: `ca.crt` is the authority that signed the "
        "broker's certificate, `tls.crt` and `tls.key` are this client's if the broker asks for one"
    ),
}


class Refusals:
    """Remembers why brokers let nobody in: a call that waits for them says no more than that it waited in vain.

    It is the `error_cb` of one consumer.
    """

    def __init__(self) -> None:
        self._why, self._how = "", ""

    def __call__(self, error: KafkaError) -> None:
        """Takes in what librdkafka reports."""
        # With TLS 1.3 a broker refuses a certificate after the handshake, which is a connection lost for librdkafka.
        code = KafkaError._SSL if _TLS_ALERT in error.str() else error.code()
        if code in _MENDED:
            self._why, self._how = error.str(), _MENDED[code]

    def explained(self, error: SourceUnavailableError, consumer: Consumer, servers: str) -> SourceUnavailableError:
        """Returns an error that names the refusal and how to mend it, or `error` if nobody refused."""
        consumer.poll(0)  # callbacks are served by this call alone
        if not self._why:
            return error
        return SourceUnavailableError(f"Kafka at '{servers}' lets nobody in: {self._why}; {self._how}")


class KafkaPropertiesError(SourceError):
    """A file of client settings that cannot be read, or names a setting that does not exist."""

    reason = "KafkaPropertiesInvalid"
    permanent = True


def client_security(security: KafkaSecurity | None, env: Mapping[str, str]) -> dict[str, object]:
    """Returns librdkafka's settings for what a spec says, none for plain brokers; errors as of `credentials`."""
    return {} if security is None else credentials(security.protocol, security.mechanism, env)


def credentials(protocol: SecurityProtocol, mechanism: SaslMechanism, env: Mapping[str, str]) -> dict[str, object]:
    """Returns librdkafka's settings.

    Args:
        protocol: how brokers are spoken to.
        mechanism: of the Sasl protocols.
        env: holds user and password, and the folder of `ca.crt`, `tls.crt`, `tls.key` (each may be missing).

    Raises:
        KafkaCredentialsError: the user or the password is not there.
    """
    settings: dict[str, object] = {"security.protocol": _PROTOCOLS[protocol]}
    if protocol is not SecurityProtocol.SSL:
        if not env.get(USERNAME) or not env.get(PASSWORD):
            raise KafkaCredentialsError(
                f"{protocol.value} needs {USERNAME} and {PASSWORD} in the environment; on Kubernetes they are the "
                "keys `username` and `password` of the Secret that source.kafka.security.secretRef names"
            )
        settings |= {
            "sasl.mechanism": _MECHANISMS[mechanism],
            "sasl.username": env[USERNAME],
            "sasl.password": env[PASSWORD],
        }
    if protocol is not SecurityProtocol.SASL_PLAINTEXT:
        folder = Path(env.get(TLS) or environment.KAFKA_TLS_FOLDER)
        files = {"ssl.ca.location": "ca.crt", "ssl.certificate.location": "tls.crt", "ssl.key.location": "tls.key"}
        settings |= {name: str(folder / file) for name, file in files.items() if (folder / file).exists()}
    return settings


def read_properties(path: Path) -> dict[str, object]:
    """Reads client settings of librdkafka from a file of lines `name=value`; `#` begins a comment line.

    Raises:
        KafkaPropertiesError: there is no such file, a line is no setting, or it is one of the Java client alone.
    """
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise KafkaPropertiesError(f"{path} cannot be read: {error}") from error
    settings: dict[str, object] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        name, equals, value = (part.strip() for part in line.partition("="))
        if not equals or not name:
            raise KafkaPropertiesError(f"{path} line {number}: write name=value")  # the line may hold a secret
        if name == "sasl.jaas.config" or name.startswith(("ssl.truststore.", "ssl.keystore.type")):
            raise KafkaPropertiesError(
                f"{path} line {number}: {name} is the Java client's; write sasl.username, sasl.password and "
                "ssl.ca.location (PEM) as librdkafka, kcat and Confluent's clients do"
            )
        settings[name] = value
    return settings
