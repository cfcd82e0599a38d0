"""Ends what containerd runs and forgets it, so that `down` leaves no process, mount or namespace behind.

containerd's shims live on when containerd ends (that is their point), and so do the pods. What they own is asked
from containerd first, and taken down by hand after it.
"""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

from kuberec_devcluster.network import mounts_below, run
from kuberec_devcluster.node import NodeFolders

_CGROUPS = Path("/sys/fs/cgroup")


def ctr(folders: NodeFolders, *arguments: str) -> str:
    """Runs containerd's own client in the kubelet's namespace; returns nothing on an error."""
    return run("ctr", "-a", str(folders.containerd_socket), "-n", "k8s.io", *arguments, check=False)


def remove_containers(folders: NodeFolders) -> list[str]:
    """Kills and removes every container; needs a running containerd.

    Returns:
        The network namespaces of the removed pods.
    """
    namespaces = set()
    for container in ctr(folders, "containers", "list", "-q").split():
        info = json.loads(ctr(folders, "containers", "info", container) or "{}")
        for entry in info.get("Spec", {}).get("linux", {}).get("namespaces", []):
            if entry.get("type") == "network" and entry.get("path", "").startswith("/var/run/netns/cni-"):
                namespaces.add(entry["path"])
        ctr(folders, "tasks", "delete", "--force", container)
        ctr(folders, "containers", "delete", container)
    return sorted(namespaces)


def kill_shims(folders: NodeFolders) -> None:
    """Kills the shims of our containerd, and the processes of their containers."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = process.joinpath("cmdline").read_bytes().decode(errors="replace").split("\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if "containerd-shim" in command[0] and str(folders.containerd_socket) in command:
            children = process.joinpath("task", process.name, "children").read_text().split()
            for pid in (*children, process.name):
                try:
                    os.kill(int(pid), signal.SIGKILL)
                except ProcessLookupError:
                    continue


def unmount(folders: NodeFolders) -> None:
    """Unmounts everything below our folders."""
    for point in mounts_below(folders.state, folders.run, folders.images):
        subprocess.run(["umount", "--lazy", point], capture_output=True)


def remove_cgroups() -> None:
    """Removes the kubelet's control groups, deepest first; those of another kubelet are in use and stay."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        roots = [_CGROUPS / "kubepods", *_CGROUPS.glob("*/kubepods")]
        left = [Path(folder) for root in roots if root.exists() for folder, _, _ in os.walk(root, topdown=False)]
        for folder in left:
            try:
                folder.rmdir()
            except OSError:
                continue
        if not left:
            return
        time.sleep(0.1)
