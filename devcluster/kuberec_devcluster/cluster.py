"""The one-node Kubernetes: what `up` brings up and `down` takes away, in steps that can be repeated at any point.

`up` looks at each part and starts what is not there, so a second `up` is a check, and an `up` after a killed one
goes on where that one stopped. `down` assumes nothing: it removes whatever it finds.
"""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from kuberec_devcluster import backing, control_plane, images, network, node, node_cleanup, toolchain
from kuberec_devcluster.control_plane import Endpoints, Kubectl
from kuberec_devcluster.daemons import Daemon, Record
from kuberec_devcluster.node import NodeFolders
from kuberec_devcluster.pki import Pki, write_private
from kuberec_devcluster.processes import ServerError, wait_until
from kuberec_devcluster.progress import say, step

API_PORT = 6443
FIRST_SERVICE_ADDRESS = "10.96.0.1"
_RUN = Path("/run/kuberec-devcluster")
_LOCK = Path("/run/kuberec-devcluster.lock")
# Not the user's: a daemon must not look changed because `up` was called from another shell.
_PATH = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}


@dataclass(frozen=True)
class Cluster:
    """A one-node cluster and its folder.

    Attributes:
        home: the state folder, git-ignored; `down` leaves only its `cache`.
    """

    home: Path

    @classmethod
    def here(cls) -> "Cluster":
        """Returns this repository's cluster."""
        return cls(images.REPOSITORY / ".devcluster")

    @property
    def state(self) -> Path:
        return self.home / "state"

    @property
    def folders(self) -> NodeFolders:
        return NodeFolders(self.state, self.home / "cache", _RUN)

    @property
    def kubeconfig(self) -> Path:
        return self.home / "kubeconfig"

    @property
    def kubectl(self) -> Kubectl:
        return Kubectl(self.kubeconfig)

    @property
    def pki(self) -> Pki:
        return Pki(self.state / "pki")

    @cached_property
    def settings(self) -> backing.Settings:
        """The ports and secrets of this cluster."""
        return backing.Settings.load(self.state)

    @property
    def endpoints(self) -> Endpoints:
        chosen = self.settings
        return Endpoints(network.ADDRESS, API_PORT, chosen.etcd, chosen.etcd_peer, chosen.controllers)

    def is_up(self) -> bool:
        """Tells whether the API serves requests and every process of the last `up` still runs."""
        records = Record.all(self.state)
        if not records or not all(record.alive() for record in records) or not network.present():
            return False
        return control_plane.api_ready(self.pki, self.endpoints.server)

    # -- up ---------------------------------------------------------------------------------------------------------

    def up(self, *, with_images: bool = True) -> None:
        """Brings everything up, or checks that it is.

        Args:
            with_images: also build and import the operator's and the runtime's image.

        Raises:
            ServerError: not root, another checkout's cluster runs, or a part did not come up; the message holds
                the end of its log.
            ToolError: a program is missing.
        """
        with self._alone():
            self._up(with_images)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Lets one `up` or `down` run at a time, whoever started it."""
        if os.geteuid() != 0:
            raise ServerError("the devcluster makes network namespaces and mounts: run it as root, or set KUBECONFIG")
        with _LOCK.open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                say("another `up` or `down` is at work; waiting for it")
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _up(self, with_images: bool) -> None:
        self._claim()
        toolchain.setup()
        self._write_files()
        with step("starting the control plane"):
            self._start_control_plane()
        with step("starting the node"):
            self._containerd().ensure_running()
            wait_until(
                lambda: "Version" in node_cleanup.ctr(self.folders, "version"),
                "containerd answers",
                30,
                alive=self._containerd().ended,
            )
        images.import_pause(self.folders)
        with step("starting kubelet, kube-proxy, DNS"):
            for daemon in self._node_daemons():
                daemon.ensure_running()
        with step("starting Kafka, Redis and S3"):
            self._start_backing()
        with step("installing KubeRay", "15 seconds the first time"):
            self._install_kuberay()
        with step("waiting for the node"):
            self.kubectl("wait", "--for=condition=Ready", f"node/{node.NAME}", "--timeout=90s")
        if with_images:
            images.import_all(self.folders, (images.OPERATOR, images.RUNTIME))
        self._check()

    def _claim(self) -> None:
        _RUN.mkdir(mode=0o700, exist_ok=True)
        owner = _RUN / "owner"
        if owner.exists() and owner.read_text() != str(self.home):
            raise ServerError(
                f"the cluster of {owner.read_text()} is up; one machine holds one: run `down` there first"
            )
        owner.write_text(str(self.home))

    def _write_files(self) -> None:
        for folder in (self.state, self.folders.cache):
            folder.mkdir(parents=True, exist_ok=True)
        network.set_up(self.state)
        self.pki.create(
            [network.ADDRESS, FIRST_SERVICE_ADDRESS],
            ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"],
        )
        self.pki.write_kubeconfig(self.kubeconfig, self.endpoints.server, backing.NAMESPACE)
        (self.state / "cni").mkdir(exist_ok=True)
        (self.state / "cni" / "10-kuberec.conflist").write_text(node.cni_config(self.folders))
        config = node.containerd_config(self.folders, may_raise_oom_score=_may_raise_oom_score())
        (self.state / "containerd.toml").write_text(config)
        (self.state / "kubelet.yaml").write_text(node.kubelet_config(self.folders, self.pki))
        (self.state / "Corefile").write_text(node.dns_config(self.kubeconfig))
        self._link_programs()

    def _link_programs(self) -> None:
        programs = self.home / "bin"
        programs.mkdir(exist_ok=True)
        for name, target in (("kubectl", toolchain.ensure("kube")), ("helm", toolchain.ensure("helm"))):
            (programs / name).unlink(missing_ok=True)
            (programs / name).symlink_to(target)

    def _start_control_plane(self) -> None:
        kube, at = toolchain.ensure("kube"), self.endpoints
        etcd = Daemon.of("etcd", control_plane.etcd_command(toolchain.ensure("etcd"), self.state, at), self.state)
        api = Daemon.of("kube-apiserver", control_plane.apiserver_command(kube, self.pki, at), self.state)
        etcd.ensure_running()
        api.ensure_running()
        wait_until(
            lambda: control_plane.api_ready(self.pki, at.server),
            "kube-apiserver is ready",
            90,
            alive=lambda: etcd.ended() or api.ended(),
        )
        pods = [f"--cluster-cidr={network.POD_NETWORK}", "--allocate-node-cidrs=true"]
        controllers = control_plane.controller_manager_command(kube, self.pki, self.kubeconfig, at, extra=pods)
        scheduler = [str(kube), "kube-scheduler", *control_plane.client_flags(self.kubeconfig)]
        scheduler.append(f"--secure-port={self.settings.scheduler}")
        Daemon.of("kube-controller-manager", controllers, self.state).ensure_running()
        Daemon.of("kube-scheduler", scheduler, self.state).ensure_running()

    def _containerd(self) -> Daemon:
        command = [str(toolchain.ensure("containerd")), "-c", str(self.state / "containerd.toml")]
        return Daemon.of("containerd", command, self.state, _PATH)

    def _node_daemons(self) -> Iterator[Daemon]:
        kube, chosen = toolchain.ensure("kube"), self.settings
        yield Daemon.of("kubelet", node.kubelet_command(kube, self.folders, self.kubeconfig), self.state, _PATH)
        proxy = node.proxy_command(kube, self.kubeconfig, chosen.proxy_metrics, chosen.proxy_health)
        yield Daemon.of("kube-proxy", proxy, self.state, _PATH)
        dns = [str(toolchain.ensure("dns")), "-conf", str(self.state / "Corefile")]
        yield Daemon.of("dns", dns, self.state)

    def _start_backing(self) -> None:
        kafka, redis, s3 = backing.servers(self.state, self.settings)
        daemons = [backing.daemon(server, self.state) for server in (kafka, redis, s3)]
        for daemon in daemons:
            daemon.ensure_running()
        for server, daemon in zip((kafka, redis, s3), daemons, strict=True):
            wait_until(server.answers, f"{server.name} answers", 90, alive=daemon.ended)
        self.kubectl.apply_objects(backing.manifests(self.settings, s3))

    def _install_kuberay(self) -> None:
        crds, applied = toolchain.kuberay_crds(), self.state / "kuberay-crds"
        if not applied.exists() or applied.read_text() != crds.name:  # 2 MB of schema: worth not repeating
            self.kubectl.apply(*sorted(crds.glob("*.yaml")))
            self.kubectl("wait", "--for=condition=Established", "--timeout=60s", "crd", "--all")
            applied.write_text(crds.name)
        self._ray_operator().ensure_running()

    def _ray_operator(self) -> Daemon:
        chosen = self.settings
        command = node.ray_operator_command(toolchain.ensure("ray-operator"), chosen.ray_metrics, chosen.ray_health)
        return Daemon.of("ray-operator", command, self.state, {"KUBECONFIG": str(self.kubeconfig)})

    def _check(self) -> None:
        dead = [record.name for record in Record.all(self.state) if not record.alive()]
        if dead:
            endings = [Daemon.of(name, [], self.state).ended() for name in dead]
            raise ServerError("\n".join(endings))
        write_private(self.state / "complete", "")
        kafka, redis, s3 = backing.servers(self.state, self.settings)
        say("the cluster is up. Next:")
        say(f"  export KUBECONFIG={self.kubeconfig} PATH={self.home}/bin:$PATH")
        say(f"  kubectl get nodes,services   (namespace {backing.NAMESPACE})")
        say(
            f"  here: Kafka {kafka.bootstrap}, Redis {redis.url}, S3 {s3.endpoint} (keys in Secret {backing.S3_SECRET})"
        )
        say(
            f"  in pods: kafka:{backing.PORTS['kafka']}, redis:{backing.PORTS['redis']}, http://s3:{backing.PORTS['s3']}"
        )

    # -- down -------------------------------------------------------------------------------------------------------

    def down(self) -> None:
        """Removes processes, pods, mounts, network and state; only caches stay. Running it twice is fine.

        Raises:
            ServerError: not root.
        """
        with self._alone(), step("taking the cluster down"):
            records = {record.name: record for record in Record.all(self.state)}
            for name in ("kubelet", "ray-operator", "kube-scheduler", "kube-controller-manager"):
                self._stop(records.pop(name, None))
            namespaces = self._remove_pods(records.pop("containerd", None))
            for record in reversed(records.values()):
                self._stop(record)
            node_cleanup.kill_shims(self.folders)
            node_cleanup.unmount(self.folders)
            node_cleanup.remove_cgroups()
            network.tear_down(self.state, namespaces)
            images.release_storage()
            shutil.rmtree(self.state, ignore_errors=True)
            self.kubeconfig.unlink(missing_ok=True)
            shutil.rmtree(self.home / "bin", ignore_errors=True)
            owner = _RUN / "owner"
            if owner.exists() and owner.read_text() == str(self.home):
                shutil.rmtree(_RUN, ignore_errors=True)
        self.__dict__.pop("settings", None)

    def _remove_pods(self, containerd: Record | None) -> list[str]:
        if (self.state / "containerd.toml").exists() and (containerd is None or not containerd.alive()):
            self._containerd().ensure_running()  # only it knows what is left of a killed cluster
            wait_until(lambda: "Version" in node_cleanup.ctr(self.folders, "version"), "containerd answers", 30)
            containerd = Record.read(self.state, "containerd")
        namespaces = node_cleanup.remove_containers(self.folders) if containerd is not None else []
        self._stop(containerd)
        return namespaces

    @staticmethod
    def _stop(record: Record | None) -> None:
        if record is not None:
            record.stop()


def _may_raise_oom_score() -> bool:
    """Tells whether this process has CAP_SYS_RESOURCE (bit 24 of its effective capabilities)."""
    status = Path("/proc/self/status").read_text()
    effective = next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff:"))
    return bool(int(effective, 16) >> 24 & 1)
