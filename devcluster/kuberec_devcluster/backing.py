"""Kafka, Redis and S3 next to the cluster, under the names that pods use.

They run on the host (no volumes to lose, no images to build) and listen twice: on loopback for programs here, and
on the node's address for pods, where a Service without a selector gives each its usual name.
"""

import json
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from kuberec_devcluster.daemons import Daemon
from kuberec_devcluster.network import ADDRESS
from kuberec_devcluster.pki import write_private
from kuberec_devcluster.processes import LocalServer, free_port
from kuberec_devcluster.services import S3, Kafka, Listener, Redis

NAMESPACE = "kuberec-demo"
PORTS = {"kafka": 9092, "redis": 6379, "s3": 9000}
S3_SECRET = "s3"


@dataclass(frozen=True)
class Settings:
    """What a cluster chose on its first start and keeps: loopback ports, and S3's secret."""

    kafka: int
    kafka_pods: int
    kafka_controller: int
    redis: int
    s3: int
    s3_secret: str
    etcd: int
    etcd_peer: int
    controllers: int
    scheduler: int
    proxy_metrics: int
    proxy_health: int
    ray_metrics: int
    ray_health: int

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Reads the choices, or makes them."""
        path = folder / "settings.json"
        if path.exists():
            return cls(**json.loads(path.read_text()))
        names = [name for name in cls.__dataclass_fields__ if name != "s3_secret"]
        chosen = cls(**{name: free_port() for name in names}, s3_secret=secrets.token_urlsafe(24))
        write_private(path, json.dumps(asdict(chosen), indent=1))
        return chosen


def servers(folder: Path, settings: Settings) -> tuple[Kafka, Redis, S3]:
    """Returns the three servers, not started."""
    name = f"kafka.{NAMESPACE}.svc.cluster.local:{PORTS['kafka']}"
    pods = Listener("PODS", ADDRESS, settings.kafka_pods, name)
    kafka = Kafka(folder / "kafka", settings.kafka, (pods,), controller_port=settings.kafka_controller)
    redis = Redis(folder / "redis", settings.redis, hosts=(ADDRESS,))
    s3 = S3(folder / "s3", settings.s3, hosts=(ADDRESS,), secret_key=settings.s3_secret)
    return kafka, redis, s3


def daemon(server: LocalServer, folder: Path) -> Daemon:
    """Returns the server as a process that outlives this program."""
    server.prepare()
    return Daemon.of(server.name, server.command(), folder, server.environment())


def manifests(settings: Settings, s3: S3) -> list[dict[str, Any]]:
    """Returns the namespace (pods must meet the `restricted` standard), the three Services and S3's Secret."""
    labels = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")}
    made: list[dict[str, Any]] = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}}
    ]
    host_ports = {"kafka": settings.kafka_pods, "redis": settings.redis, "s3": settings.s3}
    for name, port in PORTS.items():
        ports = [{"name": name, "port": port, "protocol": "TCP"}]
        host = [{"name": name, "port": host_ports[name], "protocol": "TCP"}]
        made += [
            {"apiVersion": "v1", "kind": "Service", "metadata": _meta(name), "spec": {"ports": ports}},
            {
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {**_meta(f"{name}-host"), "labels": {"kubernetes.io/service-name": name}},
                "addressType": "IPv4",
                "endpoints": [{"addresses": [ADDRESS], "conditions": {"ready": True}}],
                "ports": host,
            },
        ]
    endpoint = f"http://s3.{NAMESPACE}.svc.cluster.local:{PORTS['s3']}"
    keys = {
        "AWS_ACCESS_KEY_ID": s3.access_key,
        "AWS_SECRET_ACCESS_KEY": s3.secret_key,
        "AWS_ENDPOINT": endpoint,
        "AWS_REGION": s3.region,
        "AWS_ALLOW_HTTP": "true",
    }
    made.append({"apiVersion": "v1", "kind": "Secret", "metadata": _meta(S3_SECRET), "stringData": keys})
    return made


def _meta(name: str) -> dict[str, Any]:
    return {"name": name, "namespace": NAMESPACE}
