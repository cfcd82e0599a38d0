"""What the end-to-end tests do to a cluster: helm, kubectl, a producer on the host, and waiting with deadlines."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from kuberec_devcluster import toolchain
from kuberec_devcluster.control_plane import KubectlError
from tests.e2e.conftest import TestCluster

REPOSITORY = Path(__file__).parents[2]
SYSTEM = "kuberec-system"
RESOURCES = "recmodel,rectraining,recserving"
TOPIC = "feed-samples"
T = TypeVar("T")


class LateError(AssertionError):
    """Something did not happen in time; holds what was seen last."""


def eventually(what: str, seconds: float, probe: Callable[[], T | None], every_s: float = 1.0) -> T:
    """Returns the probe's first true value; shows what it last saw if there is none in time."""
    deadline, seen = time.monotonic() + seconds, None
    while time.monotonic() < deadline:
        try:
            if seen := probe():
                return seen
        except KubectlError as error:
            seen = error
        time.sleep(every_s)
    raise LateError(f"not within {seconds:g} s: {what}; last seen: {seen}")


class Line:
    """One example applied to a cluster, seen through kubectl."""

    def __init__(self, cluster: TestCluster) -> None:
        self.cluster, self.kubectl = cluster, cluster.kubectl
        self._began = time.monotonic()

    def say(self, text: str) -> None:
        """Prints with the seconds since the beginning."""
        print(f"[{time.monotonic() - self._began:6.1f} s] {text}", flush=True)

    def show(self) -> None:
        """Prints what a user would look at."""
        self.say(f"$ kubectl get {RESOURCES}")
        print(self.kubectl("-n", self.cluster.namespace, "get", RESOURCES), flush=True)

    def helm(self, *arguments: str) -> str:
        """Runs helm."""
        command = [str(toolchain.ensure("helm")), *arguments, "--kubeconfig", str(self.cluster.kubeconfig)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, f"helm {' '.join(arguments)}: {done.stderr}"
        return done.stdout

    def install(self) -> None:
        """Installs the chart with the images that the cluster has."""
        operator, runtime = self.cluster.operator_image, self.cluster.runtime_image
        self.helm(
            *("upgrade", "--install", "kuberec", str(REPOSITORY / "helm" / "kuberec")),
            *("--namespace", SYSTEM, "--create-namespace", "--wait", "--timeout", "280s"),
            *_image("image", operator),
            *_image("runtime.image", runtime),
        )

    def get(self, kind: str, name: str = "feed") -> dict[str, Any]:
        """Returns an object."""
        return self.kubectl.get("-n", self.cluster.namespace, kind, name)

    def training(self) -> dict[str, Any]:
        """Returns the status of the training."""
        status: dict[str, Any] = self.get("rectraining").get("status", {})
        return status

    def wait(self, condition: str, resource: str, seconds: int) -> None:
        """`kubectl wait`."""
        self.say(f"$ kubectl wait --for=condition={condition} {resource}")
        namespace = ("-n", self.cluster.namespace)
        self.kubectl(
            *namespace, "wait", f"--for=condition={condition}", resource, f"--timeout={seconds}s", seconds=seconds + 30
        )

    def head_pod(self, attempt: int) -> str:
        """Returns the name of the head pod of an attempt."""
        labels = f"kuberec.dev/training=feed,kuberec.dev/attempt={attempt},ray.io/node-type=head"
        pods = self.kubectl.get("-n", self.cluster.namespace, "pods", "-l", labels)["items"]
        assert pods, f"attempt {attempt} has no head pod"
        return str(pods[0]["metadata"]["name"])

    def describe(self) -> str:
        """Returns everything that explains a failure."""
        parts = []
        for command in (
            ("get", "pods,rayjob,raycluster,rayservice,events", "--sort-by=.metadata.creationTimestamp"),
            ("get", RESOURCES, "-o", "yaml"),
            ("logs", "--tail=60", "-l", "ray.io/node-type=head", "--prefix"),
        ):
            try:
                parts.append(self.kubectl("-n", self.cluster.namespace, *command))
            except KubectlError as error:
                parts.append(str(error))
        try:
            parts.append(self.kubectl("-n", SYSTEM, "logs", "deploy/kuberec", "--tail=60"))
        except KubectlError as error:
            parts.append(str(error))
        return "\n".join(parts)


def _image(key: str, image: str) -> Iterator[str]:
    repository, _, tag = image.rpartition(":")
    for name, value in (("repository", repository), ("tag", tag), ("pullPolicy", "IfNotPresent")):
        yield from ("--set", f"{key}.{name}={value}")


def new_topic(bootstrap: str, topic: str, partitions: int) -> None:
    """Makes the topic anew, so that offsets start at 0."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    if topic in admin.list_topics(timeout=20).topics:
        admin.delete_topics([topic])[topic].result(30)
        eventually(f"topic {topic} is gone", 30, lambda: topic not in admin.list_topics(timeout=20).topics)
    admin.create_topics([NewTopic(topic, partitions, 1)])[topic].result(30)


def ends(bootstrap: str, topic: str) -> dict[int, tuple[int, int]]:
    """Returns (start, end) offsets by partition, as the broker has them."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "kuberec-e2e-looks"})
    try:
        partitions = consumer.list_topics(topic, timeout=20).topics[topic].partitions
        return {p: consumer.get_watermark_offsets(TopicPartition(topic, p), timeout=20) for p in partitions}
    finally:
        consumer.close()


@contextmanager
def producer(cluster: TestCluster, rate: float) -> Iterator[subprocess.Popen[bytes]]:
    """Runs `kuberec synth` on the host until it is terminated; what it generated is delivered even then."""
    command = [
        *(sys.executable, "-c", "from kuberec_runtime.cli import app; app()", "synth"),
        *("--bootstrap", cluster.kafka, "--topic", TOPIC),
        *("--samples", "0", "--rate", str(rate), "--live", "--redis", cluster.redis),
        *("--namespace", cluster.namespace),
    ]
    process = subprocess.Popen(command, env={**os.environ, "PYTHONUNBUFFERED": "1"})
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def rank(line: Line, user: str, items: list[str]) -> dict[str, Any]:
    """Sends a rank request to the serving's Service, from a pod's network: through kubectl port-forward."""
    body = {"user": {"user_id": user}, "items": items, "context": {"hour": 12}}
    with port_forward(line, "svc/feed-serve-svc", 8000) as port:
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/v1/models/feed:rank",
            data=json.dumps(body).encode(),
            headers={"Content-Type": "application/json"},
        )
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=30) as answer:
            ranked: dict[str, Any] = json.load(answer)
            return ranked


@contextmanager
def port_forward(line: Line, target: str, port: int) -> Iterator[int]:
    """Forwards a local port to a Service."""
    command = [
        *toolchain.kubectl(),
        f"--kubeconfig={line.cluster.kubeconfig}",
        *("-n", line.cluster.namespace, "port-forward", target, f":{port}", "--address", "127.0.0.1"),
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        said = process.stdout.readline()
        assert said.startswith("Forwarding from"), said
        yield int(said.split("127.0.0.1:")[1].split(" ")[0])
    finally:
        process.terminate()
        process.wait(10)
