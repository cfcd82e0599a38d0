"""Options of the commands that speak to Kafka brokers which want credentials."""

from pathlib import Path
from typing import Annotated, Literal

import typer

Protocol = Literal["SaslSsl", "SaslPlaintext", "Ssl"]
Mechanism = Literal["ScramSha512", "ScramSha256", "Plain"]
Security = Annotated[
    Protocol | None,
    typer.Option(
        "--kafka-security",
        help="For brokers that want credentials: KUBEREC_KAFKA_USERNAME and KUBEREC_KAFKA_PASSWORD in the environment, "
        "and ca.crt, tls.crt, tls.key in the folder KUBEREC_KAFKA_TLS",
    ),
]
Sasl = Annotated[Mechanism, typer.Option("--kafka-mechanism", help="Of the Sasl protocols")]
Properties = Annotated[
    Path | None, typer.Option("--kafka-config", help="File of librdkafka's settings, a line each: name=value")
]


def client_settings(protocol: Protocol | None, mechanism: Mechanism, file: Path | None) -> dict[str, object]:
    """Returns librdkafka's settings; no secret is an argument, since others see those of a process.

    Raises:
        SourceError: credentials are missing, or the file cannot be read.
    """
    import os

    from kuberec_api.source import SaslMechanism, SecurityProtocol
    from kuberec_runtime.stream.security import credentials, read_properties

    settings = {} if file is None else read_properties(file)
    if protocol is not None:
        settings |= credentials(SecurityProtocol(protocol), SaslMechanism(mechanism), os.environ)
    return settings
