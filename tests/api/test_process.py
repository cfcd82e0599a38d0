"""The operator's process as the chart starts it: watches, leads, hands over, ends."""

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from kuberec_devcluster.control_plane import ControlPlane
from kuberec_devcluster.processes import free_port
from tests.api.world import EXAMPLE

LEASE_S = 15


@dataclass(frozen=True)
class Operator:
    """One process of the operator."""

    process: subprocess.Popen[bytes]
    port: int

    def fetch(self, path: str) -> str:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
            return str(answer.read().decode())

    def leads(self) -> bool:
        try:
            return "kuberec_leading 1.0" in self.fetch("/metrics")
        except OSError:
            return False


@contextmanager
def operator(plane: ControlPlane, namespace: str, name: str) -> Iterator[Operator]:
    port = free_port()
    environment = {
        **os.environ,
        "KUBECONFIG": str(plane.kubeconfig),
        "KUBEREC_RUNTIME_IMAGE": "example.org/kuberec/runtime:test",
        "KUBEREC_OPERATOR_NAMESPACE": namespace,
        "KUBEREC_RESYNC_SECONDS": "2",
        "POD_NAME": name,
    }
    command = [sys.executable, "-m", "kuberec_operator", "--namespace", namespace, "--health-port", str(port)]
    process = subprocess.Popen(command, env=environment)
    try:
        yield Operator(process, port)
    finally:
        process.kill()
        process.wait(10)


def eventually(what: str, probe: Callable[[], object], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if probe():
            return
        time.sleep(0.2)
    raise AssertionError(f"not within {seconds:g} s: {what}")


def jobs(plane: ControlPlane, namespace: str) -> str:
    return plane.kubectl("-n", namespace, "get", "rayjobs", "-o", "name")


def test_an_applied_example_becomes_a_ray_job_and_sigterm_ends_it_cleanly(
    control_plane: ControlPlane, namespace: str
) -> None:
    with operator(control_plane, namespace, "one") as one:
        eventually("leading", one.leads)
        control_plane.kubectl("-n", namespace, "apply", "-f", str(EXAMPLE))
        eventually("a RayJob", lambda: "feed-a1" in jobs(control_plane, namespace), 20)
        reasons = control_plane.kubectl("-n", namespace, "get", "events", "-o", "jsonpath={..reason}")
        assert "AttemptAnnounced" in reasons
        assert one.fetch("/healthz") == "ok"
        one.process.send_signal(signal.SIGTERM)
        assert one.process.wait(20) == 0
        holder = ("-n", namespace, "get", "lease", "kuberec-operator", "-o", "jsonpath={.spec.holderIdentity}")
        assert control_plane.kubectl(*holder) == ""


@pytest.mark.parametrize(("number", "within_s"), [(signal.SIGTERM, 10), (signal.SIGKILL, LEASE_S + 15)])
def test_the_standby_takes_over(control_plane: ControlPlane, namespace: str, number: int, within_s: float) -> None:
    with operator(control_plane, namespace, "one") as one, operator(control_plane, namespace, "two") as two:
        eventually("a leader", lambda: one.leads() or two.leads())
        leader, standby = (one, two) if one.leads() else (two, one)
        eventually("the standby is up", lambda: _ready(standby))
        assert not standby.leads()
        leader.process.send_signal(number)
        leader.process.wait(20)
        eventually("the standby leads", standby.leads, within_s)
        control_plane.kubectl("-n", namespace, "apply", "-f", str(EXAMPLE))
        eventually("a RayJob", lambda: "feed-a1" in jobs(control_plane, namespace), 20)


def _ready(operator: Operator) -> bool:
    try:
        return operator.fetch("/readyz") == "ok"
    except OSError:
        return False


def test_without_its_image_the_operator_says_which_variable_is_missing() -> None:
    environment = {k: v for k, v in os.environ.items() if k != "KUBEREC_RUNTIME_IMAGE"}
    command = [sys.executable, "-m", "kuberec_operator"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 64
    assert "KUBEREC_RUNTIME_IMAGE" in done.stderr


def test_an_outage_of_the_api_server_is_survived(control_plane: ControlPlane, namespace: str) -> None:
    with operator(control_plane, namespace, "one") as one:
        eventually("leading", one.leads)
        control_plane.stop_api()
        control_plane.start()
        control_plane.kubectl("-n", namespace, "apply", "-f", str(EXAMPLE))
        eventually("a RayJob", lambda: "feed-a1" in jobs(control_plane, namespace), 180)
        assert one.process.poll() is None
