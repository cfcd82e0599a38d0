"""The configuration of the node's programs, as functions of values: what `cluster` writes and starts.

Each setting that is not the obvious one carries its reason.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import yaml

from kuberec_devcluster.network import ADDRESS, BRIDGE, NODE_PODS, POD_NETWORK
from kuberec_devcluster.pki import Pki

NAME = "kuberec-node"
PAUSE_IMAGE = "localhost/kuberec/pause:1"
CNI_PROGRAMS = Path("/usr/lib/cni")


@dataclass(frozen=True)
class NodeFolders:
    """Where the node's programs keep their files.

    Attributes:
        state: goes away with `down`.
        cache: survives `down`: imported images.
        run: sockets; outside the repository, for a socket's path has at most 107 characters.
    """

    state: Path
    cache: Path
    run: Path

    @property
    def containerd_socket(self) -> Path:
        return self.run / "containerd.sock"

    @property
    def images(self) -> Path:
        return self.cache / "containerd"


def cni_config(folders: NodeFolders) -> str:
    """Returns the pod network: one bridge, addresses from the node's range, no way out of the machine."""
    addresses = {
        "type": "host-local",
        "dataDir": str(folders.state / "cni-addresses"),
        "ranges": [[{"subnet": NODE_PODS}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    bridge = {
        "type": "bridge",
        "bridge": BRIDGE,
        "isGateway": True,
        "ipMasq": False,
        "hairpinMode": True,
        "ipam": addresses,
    }
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    return json.dumps({"cniVersion": "1.0.0", "name": "kuberec", "plugins": [bridge, ports]}, indent=1)


def containerd_config(folders: NodeFolders, *, may_raise_oom_score: bool) -> str:
    """Returns containerd's configuration.

    Args:
        folders: where it keeps its files.
        may_raise_oom_score: false where CAP_SYS_RESOURCE is missing; runc would die there with "can't get final
            child's PID from pipe: EOF".
    """
    return f"""version = 2
root = "{folders.images}"
state = "{folders.run}/containerd"
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.tracing.processor.v1.otlp"]
[grpc]
  address = "{folders.containerd_socket}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  restrict_oom_score_adj = {"false" if may_raise_oom_score else "true"}
  disable_tcp_service = true
[plugins."io.containerd.grpc.v1.cri".containerd]
  default_runtime_name = "runc"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "{CNI_PROGRAMS}"
  conf_dir = "{folders.state}/cni"
"""


def kubelet_config(folders: NodeFolders, pki: Pki) -> str:
    """Returns the kubelet's configuration; only the API server's certificate and RBAC open its port."""
    config = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": ADDRESS,
        "healthzBindAddress": "127.0.0.1",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(pki.ca)},
        },
        "authorization": {"mode": "Webhook"},
        "cgroupDriver": "cgroupfs",
        "enforceNodeAllocatable": [],  # the node's own processes share the machine with everything else
        "failCgroupV1": False,  # hybrid hierarchies count as v1
        "failSwapOn": False,
        "containerRuntimeEndpoint": f"unix://{folders.containerd_socket}",
        "clusterDNS": [ADDRESS],
        "clusterDomain": "cluster.local",
        "resolvConf": "",
        "evictionHard": {"nodefs.available": "1%", "imagefs.available": "1%", "memory.available": "200Mi"},
        "imageGCHighThresholdPercent": 100,  # images come from here, nobody could pull them again
        "serializeImagePulls": False,
        "volumePluginDir": str(folders.state / "volume-plugins"),
        "staticPodPath": "",
        "makeIPTablesUtilChains": False,  # kube-proxy's nftables table is all we need, and all we have to remove
        "maxPods": 60,
        "registerNode": True,
    }
    return yaml.safe_dump(config)


def dns_config(kubeconfig: Path) -> str:
    """Returns CoreDNS's configuration: the cluster's names and nothing else."""
    return f""".:53 {{
  bind {ADDRESS}
  errors
  kubernetes cluster.local in-addr.arpa ip6.arpa {{
    kubeconfig {kubeconfig}
    pods insecure
    ttl 5
  }}
}}
"""


def kubelet_command(kube: Path, folders: NodeFolders, kubeconfig: Path) -> list[str]:
    # the root folder must not be named like the binary
    root = folders.state / "kubelet-root"
    own = [f"--kubeconfig={kubeconfig}", f"--root-dir={root}", f"--cert-dir={root}/pki"]
    config = f"--config={folders.state}/kubelet.yaml"
    return [str(kube), "kubelet", config, *own, f"--hostname-override={NAME}", f"--node-ip={ADDRESS}"]


def proxy_command(kube: Path, kubeconfig: Path, metrics_port: int, health_port: int) -> list[str]:
    own = [f"--kubeconfig={kubeconfig}", f"--hostname-override={NAME}", f"--cluster-cidr={POD_NETWORK}"]
    listen = [f"--metrics-bind-address=127.0.0.1:{metrics_port}", f"--healthz-bind-address=127.0.0.1:{health_port}"]
    # conntrack sizes are the machine's business
    return [str(kube), "kube-proxy", *own, *listen, "--proxy-mode=nftables", "--conntrack-max-per-core=0"]


def ray_operator_command(binary: Path, metrics_port: int, health_port: int) -> list[str]:
    """Returns KubeRay's command line; outside the cluster it reaches pods through the API server's proxy."""
    listen = [f"-metrics-addr=127.0.0.1:{metrics_port}", f"-health-probe-bind-address=127.0.0.1:{health_port}"]
    return [
        str(binary),
        *listen,
        "-use-kubernetes-proxy",
        "-enable-leader-election=false",
        "-log-stdout-encoder=console",
    ]
