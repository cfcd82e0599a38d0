"""etcd, kube-apiserver and kube-controller-manager: what the API is, without a node to run pods.

The command lines are functions of values, shared by the two ways to run them: `ControlPlane` for tests (loopback,
free ports, dies with the test run) and `cluster` for the whole one-node Kubernetes.
"""

import json
import ssl
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from kuberec_devcluster import toolchain
from kuberec_devcluster.pki import Pki
from kuberec_devcluster.processes import LOOPBACK, ServerError, Tethered, free_port, wait_until

SERVICE_NETWORK = "10.96.0.0/16"
# A test without nodes needs what happens to objects, not what happens to machines.
CONTROLLERS_WITHOUT_NODES = (
    "garbage-collector-controller",
    "namespace-controller",
    "serviceaccount-controller",
    "root-ca-certificate-publisher-controller",
    "clusterrole-aggregation-controller",
    "resourcequota-controller",
)


@dataclass(frozen=True)
class Endpoints:
    """Where the processes of one control plane listen."""

    address: str
    api: int
    etcd: int
    etcd_peer: int
    controllers: int

    @classmethod
    def free(cls) -> Self:
        """Picks free loopback ports."""
        return cls(LOOPBACK, free_port(), free_port(), free_port(), free_port())

    @property
    def server(self) -> str:
        return f"https://{self.address}:{self.api}"


def etcd_command(etcd: Path, folder: Path, at: Endpoints) -> list[str]:
    """Returns etcd's command line; without fsync, for its data is worth nothing after a power cut."""
    client, peer = f"http://{LOOPBACK}:{at.etcd}", f"http://{LOOPBACK}:{at.etcd_peer}"
    return [
        *(str(etcd), "--data-dir", str(folder / "etcd"), "--unsafe-no-fsync", "--log-level", "warn"),
        *("--listen-client-urls", client, "--advertise-client-urls", client),
        *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", f"default={peer}"),
    ]


def apiserver_command(kube: Path, pki: Pki, at: Endpoints) -> list[str]:
    """Returns kube-apiserver's command line."""
    own = at.address != LOOPBACK  # the `kubernetes` service cannot point at a loopback address
    return [
        *(str(kube), "kube-apiserver", f"--etcd-servers=http://{LOOPBACK}:{at.etcd}"),
        *(f"--bind-address={at.address}", f"--advertise-address={at.address}", f"--secure-port={at.api}"),
        f"--endpoint-reconciler-type={'lease' if own else 'none'}",
        *(f"--tls-cert-file={pki.server_cert}", f"--tls-private-key-file={pki.server_key}"),
        f"--cert-dir={pki.folder}",
        *(f"--service-cluster-ip-range={SERVICE_NETWORK}", "--allow-privileged=true"),
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={pki.accounts_public}",
        f"--service-account-signing-key-file={pki.accounts_key}",
        *(f"--token-auth-file={pki.tokens}", "--authorization-mode=Node,RBAC", "--profiling=false"),
        "--enable-admission-plugins=NodeRestriction",
        f"--kubelet-client-certificate={pki.kubelet_client_cert}",
        f"--kubelet-client-key={pki.kubelet_client_key}",
        "--kubelet-preferred-address-types=InternalIP",  # no name has to resolve on the host
    ]


def controller_manager_command(
    kube: Path,
    pki: Pki,
    kubeconfig: Path,
    at: Endpoints,
    controllers: Sequence[str] = ("*",),
    extra: Sequence[str] = (),
) -> list[str]:
    """Returns kube-controller-manager's command line."""
    return [
        *(str(kube), "kube-controller-manager", *client_flags(kubeconfig), f"--secure-port={at.controllers}"),
        *(f"--service-account-private-key-file={pki.accounts_key}", f"--root-ca-file={pki.ca}"),
        *("--use-service-account-credentials=true", f"--controllers={','.join(controllers)}", *extra),
        f"--cert-dir={pki.folder}",
    ]


def client_flags(kubeconfig: Path) -> list[str]:
    """Returns the flags by which a component finds the API server and serves its own metrics on loopback only."""
    names = ("kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig")
    return [*(f"--{name}={kubeconfig}" for name in names), "--leader-elect=false", f"--bind-address={LOOPBACK}"]


def api_ready(pki: Pki, server: str) -> bool:
    """Tells whether the API server serves requests."""
    return bool(_answer(pki, f"{server}/readyz"))


def _answer(pki: Pki, url: str) -> str:
    """Returns what a component's health page says, nothing if it is not well."""
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {pki.admin_token}"})
    try:
        trust = ssl.create_default_context(cafile=str(pki.ca))
        with urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=trust)
        ).open(request, timeout=2) as reply:
            return str(reply.read().decode())
    except (OSError, urllib.error.URLError):
        return ""


class KubectlError(RuntimeError):
    """kubectl ended with an error; holds what it said."""


@dataclass(frozen=True)
class Kubectl:
    """kubectl of the same version, bound to one kubeconfig."""

    kubeconfig: Path

    def __call__(self, *arguments: str, stdin: str | None = None, seconds: float = 120) -> str:
        """Runs kubectl and returns what it printed.

        Raises:
            KubectlError: it ended with an error, or took longer than `seconds`.
        """
        command = [*toolchain.kubectl(), f"--kubeconfig={self.kubeconfig}", *arguments]
        try:
            done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=seconds)
        except subprocess.TimeoutExpired as late:
            raise KubectlError(f"kubectl {' '.join(arguments)}: no answer after {seconds:g} s") from late
        if done.returncode != 0:
            raise KubectlError(f"kubectl {' '.join(arguments)}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout

    def get(self, *arguments: str) -> dict[str, Any]:
        """Returns `kubectl get -o json` as a dict."""
        found: dict[str, Any] = json.loads(self("get", "-o", "json", *arguments))
        return found

    def apply(self, *files: Path) -> None:
        """Applies files server-side (KubeRay's CRDs are too large for the annotation of a client-side apply)."""
        sources = [part for file in files for part in ("-f", str(file))]
        self("apply", "--server-side", "--force-conflicts", *sources)

    def apply_text(self, text: str) -> None:
        """Applies YAML or JSON server-side."""
        self("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=text)

    def apply_objects(self, objects: Sequence[dict[str, Any]]) -> None:
        """Applies objects server-side, in their order."""
        self.apply_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)}))


class ControlPlane:
    """A real Kubernetes API on loopback, ready in seconds, as a context manager.

    Objects live, get validated, defaulted, garbage-collected; nothing schedules or runs pods.

    Args:
        folder: its data, keys and logs; a temporary folder without it.
        controllers: also run kube-controller-manager (garbage collection, namespaces, service accounts).

    Attributes:
        kubeconfig: path of the admin's kubeconfig.
        server: the URL.
        kubectl: runs the kubectl of the same version.
    """

    def __init__(self, folder: Path | None = None, *, controllers: bool = True) -> None:
        self._temporary = tempfile.TemporaryDirectory(prefix="kuberec-api-") if folder is None else None
        self.folder = (Path(self._temporary.name) if self._temporary is not None else Path(folder or "")).absolute()
        self.pki = Pki(self.folder / "pki")
        self.kubeconfig = self.folder / "kubeconfig"
        self.kubectl = Kubectl(self.kubeconfig)
        self._controllers = controllers
        self._at = Endpoints.free()
        self._running: dict[str, Tethered] = {}

    @property
    def server(self) -> str:
        return self._at.server

    def start(self) -> Self:
        """Starts what is not running and returns once the API serves requests.

        Raises:
            ServerError: a process ended, or the API was not ready in time.
        """
        self.pki.create([LOOPBACK], ["localhost"])
        self.pki.write_kubeconfig(self.kubeconfig, self.server)
        kube = toolchain.ensure("kube")
        try:
            self._run("etcd", etcd_command(toolchain.ensure("etcd"), self.folder, self._at))
            api = self._run("kube-apiserver", apiserver_command(kube, self.pki, self._at))
            wait_until(lambda: api_ready(self.pki, self.server), "kube-apiserver is ready", 60, alive=api.ended)
            if self._controllers:
                wait_until(self._controllers_work, "kube-controller-manager works", 60, every=0.1)
        except BaseException:
            self.kill()
            raise
        return self

    def _controllers_work(self) -> bool:
        """Starts the controllers as often as it takes: they end when the API goes away while they start."""
        command = controller_manager_command(
            toolchain.ensure("kube"), self.pki, self.kubeconfig, self._at, CONTROLLERS_WITHOUT_NODES
        )
        certificate = [f"--tls-cert-file={self.pki.server_cert}", f"--tls-private-key-file={self.pki.server_key}"]
        self._run("kube-controller-manager", [*command, *certificate])
        health = _answer(self.pki, f"https://{LOOPBACK}:{self._at.controllers}/healthz?verbose")
        return "garbage-collector-controller ok" in health  # a controller is listed once it has started

    def _run(self, name: str, command: list[str]) -> Tethered:
        if name not in self._running or self._running[name].ended():
            self._running[name] = Tethered(command, self.folder / "logs" / f"{name}.log")
        return self._running[name]

    def stop_api(self) -> None:
        """Ends the API server only, as in an outage; `start` brings it back with all objects."""
        api = self._running.pop("kube-apiserver", None)
        if api is None:
            raise ServerError("kube-apiserver is not running")
        api.kill()

    def kill(self) -> None:
        """Ends everything; the folder stays, and `start` continues with the same objects."""
        for process in reversed(self._running.values()):
            process.kill()
        self._running.clear()

    def install_kuberay(self) -> None:
        """Applies KubeRay's CRDs, so that RayJobs and RayServices are accepted (and validated) here."""
        self.kubectl.apply(*sorted(toolchain.kuberay_crds().glob("*.yaml")))
        self.kubectl("wait", "--for=condition=Established", "--timeout=60s", "crd", "--all")

    def close(self) -> None:
        """Ends everything for good."""
        self.kill()
        if self._temporary is not None:
            self._temporary.cleanup()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
