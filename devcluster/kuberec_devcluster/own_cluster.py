"""The user's own cluster: when KUBECONFIG names one, we use it, and change nothing in it.

Only KubeRay has to be there, for it is what our operator builds on.
"""

import os
from pathlib import Path

from kuberec_devcluster.cluster import Cluster
from kuberec_devcluster.control_plane import Kubectl, KubectlError
from kuberec_devcluster.processes import ServerError
from kuberec_devcluster.progress import say

RAY_CRDS = ("rayclusters.ray.io", "rayjobs.ray.io", "rayservices.ray.io")


def chosen() -> Path | None:
    """Returns the kubeconfig that the user chose, unless it is our own cluster's."""
    named = os.environ.get("KUBECONFIG", "")
    if not named:
        return None
    path = Path(named).absolute()
    return None if path == Cluster.here().kubeconfig else path


def check(kubeconfig: Path) -> None:
    """Makes sure that the user's cluster answers and has KubeRay.

    Raises:
        ServerError: it does not; says how to install KubeRay.
    """
    kubectl = Kubectl(kubeconfig)
    context = kubectl("config", "current-context").strip()
    say(f"KUBECONFIG is set: using your cluster (context {context}, {kubeconfig}), starting none of our own")
    for crd in RAY_CRDS:
        try:
            kubectl("get", "crd", crd, "-o", "name")
        except KubectlError as problem:
            raise ServerError(
                f"{problem}\nyour cluster needs KubeRay:\n"
                "  helm repo add kuberay https://ray-project.github.io/kuberay-helm/\n"
                "  helm install kuberay-operator kuberay/kuberay-operator --version 1.6.2"
            ) from problem
    say("KubeRay's resources are there")
