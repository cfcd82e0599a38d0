"""What an installation decides, read once from the environment that the chart sets."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


class SettingsError(ValueError):
    """An environment variable that is missing or wrong."""


@dataclass(frozen=True)
class RuntimeSettings:
    """How Ray pods are made: image, pull policy, and the driver's share, which no resource's spec names."""

    image: str
    pull_policy: str = "IfNotPresent"
    pull_secrets: tuple[str, ...] = ()
    ray_version: str = "2.60.0"
    head_cpu: str = "200m"
    head_memory: str = "2Gi"


@dataclass(frozen=True)
class Settings:
    """Everything the operator is told at its start.

    Attributes:
        runtime: how Ray pods are made.
        namespaces: the namespaces to watch; empty means all.
        own_namespace: where the Lease lives.
        resync_s: how often every object is looked at even if nothing happened.
    """

    runtime: RuntimeSettings
    namespaces: tuple[str, ...] = ()
    own_namespace: str = "default"
    resync_s: float = 30.0

    @classmethod
    def from_environment(cls, env: Mapping[str, str] = os.environ) -> "Settings":
        """Reads the environment.

        Raises:
            SettingsError: names the variable and what it should be.
        """
        image = env.get("KUBEREC_RUNTIME_IMAGE", "")
        if not image:
            raise SettingsError("KUBEREC_RUNTIME_IMAGE is not set: the image that Ray pods run")
        policy = env.get("KUBEREC_RUNTIME_PULL_POLICY", "IfNotPresent")
        if policy not in ("Always", "IfNotPresent", "Never"):
            raise SettingsError(f"KUBEREC_RUNTIME_PULL_POLICY={policy}: use Always, IfNotPresent or Never")
        runtime = RuntimeSettings(
            image=image,
            pull_policy=policy,
            pull_secrets=_words(env.get("KUBEREC_RUNTIME_PULL_SECRETS", "")),
            ray_version=env.get("KUBEREC_RAY_VERSION", RuntimeSettings.ray_version),
            head_cpu=env.get("KUBEREC_HEAD_CPU", RuntimeSettings.head_cpu),
            head_memory=env.get("KUBEREC_HEAD_MEMORY", RuntimeSettings.head_memory),
        )
        return cls(
            runtime=runtime,
            namespaces=_words(env.get("KUBEREC_WATCH_NAMESPACES", "")),
            own_namespace=env.get("KUBEREC_OPERATOR_NAMESPACE", "") or _own_namespace(),
            resync_s=_seconds("KUBEREC_RESYNC_SECONDS", env.get("KUBEREC_RESYNC_SECONDS", "30")),
        )


def _words(text: str) -> tuple[str, ...]:
    return tuple(word for word in text.replace(",", " ").split() if word)


def _seconds(name: str, text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if seconds <= 0:
        raise SettingsError(f"{name}={text}: use a number of seconds above 0")
    return seconds


def _own_namespace() -> str:
    return NAMESPACE_FILE.read_text().strip() if NAMESPACE_FILE.exists() else "default"
