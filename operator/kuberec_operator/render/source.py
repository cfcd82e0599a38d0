"""What the processes that read samples get to reach them: references to Secrets, never what is in them.

Shards read no samples and get none of it.
"""

from dataclasses import dataclass, field
from typing import Any

from kuberec_api.environment import KAFKA_PASSWORD, KAFKA_TLS_FOLDER, KAFKA_USERNAME, SOURCE_PREFIX
from kuberec_api.source import Source
from kuberec_operator.render.pod import Volumes


@dataclass(frozen=True)
class SourceAccess:
    """Environment and volumes for the driver and the workers."""

    env: list[dict[str, Any]] = field(default_factory=list)
    env_from: list[dict[str, Any]] = field(default_factory=list)
    volumes: Volumes = field(default_factory=dict)


def source_access(source: Source) -> SourceAccess:
    """Returns what a source's credentials become in a pod."""
    if source.files is not None and (credentials := source.files.credentials) is not None:
        # A prefix, because checkpoints may need other credentials of the same names.
        return SourceAccess(env_from=[{"prefix": SOURCE_PREFIX, "secretRef": {"name": credentials.secret_ref.name}}])
    if source.kafka is None or (security := source.kafka.security) is None:
        return SourceAccess()
    env, volumes = [], {}
    if security.secret_ref is not None:
        for name, key in ((KAFKA_USERNAME, "username"), (KAFKA_PASSWORD, "password")):
            reference = {"name": security.secret_ref.name, "key": key}
            env.append({"name": name, "valueFrom": {"secretKeyRef": reference}})
    if security.tls_secret_ref is not None:
        volumes[KAFKA_TLS_FOLDER] = {"secret": {"secretName": security.tls_secret_ref.name}}
    return SourceAccess(env=env, volumes=volumes)
