"""The parts of the devcluster that need no root: daemons that are found again, and a Kubernetes API without nodes."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kuberec_devcluster import own_cluster
from kuberec_devcluster.control_plane import ControlPlane, KubectlError
from kuberec_devcluster.daemons import Daemon, Record
from kuberec_devcluster.processes import ServerError, wait_until


@pytest.fixture(scope="module")
def api() -> Iterator[ControlPlane]:
    with ControlPlane() as started:
        yield started


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[Daemon]:
    daemon = Daemon.of("sleeper", ["sleep", "600"], tmp_path)
    daemon.ensure_running()
    yield daemon
    if (record := Record.read(tmp_path, "sleeper")) is not None:
        record.stop()


def running(folder: Path) -> Record:
    record = Record.read(folder, "sleeper")
    assert record is not None
    return record


def test_a_running_daemon_is_not_started_again(sleeper: Daemon, tmp_path: Path) -> None:
    pid = running(tmp_path).pid
    assert not sleeper.ensure_running()
    assert running(tmp_path).pid == pid


def test_a_daemon_with_another_command_replaces_the_old_one(sleeper: Daemon, tmp_path: Path) -> None:
    old = running(tmp_path)
    assert Daemon.of("sleeper", ["sleep", "601"], tmp_path).ensure_running()
    assert not old.alive()
    assert running(tmp_path).alive()


def test_a_killed_daemon_comes_back(sleeper: Daemon, tmp_path: Path) -> None:
    old = running(tmp_path)
    os.kill(old.pid, signal.SIGKILL)
    wait_until(lambda: not old.alive(), "the daemon is gone", 10)
    assert "ended" in sleeper.ended()
    assert sleeper.ensure_running()


def test_a_pid_that_now_belongs_to_somebody_else_is_never_killed(sleeper: Daemon, tmp_path: Path) -> None:
    real = running(tmp_path)
    stale = Record(tmp_path / "other", "sleeper", real.pid, real.started - 1, "")
    stale.write()
    assert not stale.alive()
    stale.stop()
    assert real.alive()


def test_the_kubeconfig_is_for_its_owner_only(api: ControlPlane) -> None:
    assert api.kubeconfig.stat().st_mode & 0o777 == 0o600
    assert all(file.stat().st_mode & 0o077 == 0 for file in api.pki.folder.iterdir() if file.is_file())


def test_the_api_keeps_its_objects_over_an_outage(api: ControlPlane) -> None:
    api.kubectl("create", "configmap", "kept")
    api.stop_api()
    with pytest.raises(KubectlError):
        api.kubectl("get", "configmap", "kept")
    api.start()
    assert api.kubectl.get("configmap", "kept")["metadata"]["name"] == "kept"


def test_owned_objects_go_with_their_owner(api: ControlPlane) -> None:
    api.kubectl("create", "configmap", "owner")
    uid = api.kubectl.get("configmap", "owner")["metadata"]["uid"]
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": uid}
    owned = {"name": "owned", "namespace": "default", "ownerReferences": [owner]}
    api.kubectl.apply_objects([{"apiVersion": "v1", "kind": "ConfigMap", "metadata": owned}])
    api.kubectl("delete", "configmap", "owner")
    wait_until(lambda: not api.kubectl("get", "configmap", "owned", "--ignore-not-found"), "it is collected", 30)


def ray_crd(name: str) -> dict[str, Any]:
    """Returns a CRD with KubeRay's name and no schema to speak of: ours only looks for the name."""
    plural = name.removesuffix(".ray.io")
    names = {"plural": plural, "kind": plural.capitalize()}
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    version = {"name": "v1", "served": True, "storage": True, "schema": schema}
    spec = {"group": "ray.io", "names": names, "scope": "Namespaced", "versions": [version]}
    meta = {"name": name, "annotations": {"api-approved.kubernetes.io": "unapproved, a test"}}
    return {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": meta, "spec": spec}


def test_a_users_cluster_needs_kuberay(api: ControlPlane) -> None:
    with pytest.raises(ServerError, match="helm install kuberay-operator"):
        own_cluster.check(api.kubeconfig)
    api.kubectl.apply_objects([ray_crd(name) for name in own_cluster.RAY_CRDS])
    own_cluster.check(api.kubeconfig)
