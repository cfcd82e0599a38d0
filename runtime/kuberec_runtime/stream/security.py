"""What a Kafka client needs to be let in, from the environment and mounted files: no secret is in a spec.

The operator maps the Secrets that `spec.source.kafka.security` names to these names; a local run sets them itself.
"""

from collections.abc import Mapping
from pathlib import Path

from confluent_kafka import Consumer, KafkaError

from kuberec_api.source import KafkaSecurity, SaslMechanism, SecurityProtocol
from kuberec_runtime.stream.source import SourceError, SourceUnavailableError

USERNAME, PASSWORD, TLS = "KUBEREC_KAFKA_USERNAME", "KUBEREC_KAFKA_PASSWORD", "KUBEREC_KAFKA_TLS"
TLS_FOLDER = "/etc/kuberec-kafka"

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


def client_security(security: KafkaSecurity | None, env: Mapping[str, str]) -> dict[str, object]:
    """Returns librdkafka's settings; none for plain brokers.

    Args:
        security: what the spec says.
        env: holds user and password, and the folder of `ca.crt`, `tls.crt`, `tls.key` (each may be missing).

    Raises:
        KafkaCredentialsError: the user or the password is not there.
    """
    if security is None:
        return {}
    settings: dict[str, object] = {"security.protocol": _PROTOCOLS[security.protocol]}
    if security.protocol is not SecurityProtocol.SSL:
        if not env.get(USERNAME) or not env.get(PASSWORD):
            raise KafkaCredentialsError(
                f"source.kafka.security needs {USERNAME} and {PASSWORD} in the environment; on Kubernetes they are the "
                "keys `username` and `password` of the Secret that secretRef names"
            )
        settings |= {
            "sasl.mechanism": _MECHANISMS[security.mechanism],
            "sasl.username": env[USERNAME],
            "sasl.password": env[PASSWORD],
        }
    if security.protocol is not SecurityProtocol.SASL_PLAINTEXT:
        folder = Path(env.get(TLS) or TLS_FOLDER)
        files = {"ssl.ca.location": "ca.crt", "ssl.certificate.location": "tls.crt", "ssl.key.location": "tls.key"}
        settings |= {name: str(folder / file) for name, file in files.items() if (folder / file).exists()}
    return settings
