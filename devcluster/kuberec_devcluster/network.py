"""The node's network on the host: one address that pods can reach, and everything to undo.

The address is an alias on `lo` (not every kernel has `dummy` devices). Without it a request to that address would
leave the machine, so it is checked before any request is made. Nothing outside this machine may use it: Linux
answers on any interface for any of its addresses, hence the nftables rule.
"""

import json
import os
import subprocess
from collections.abc import Iterable
from pathlib import Path

from kuberec_devcluster.processes import ServerError
from kuberec_devcluster.toolchain import search_path

ADDRESS = "10.250.0.1"
POD_NETWORK = "10.244.0.0/16"
NODE_PODS = "10.244.0.0/24"
BRIDGE = "krbr0"
_TABLE = "kuberec-devcluster"
_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")


def run(*command: str, check: bool = True, stdin: str | None = None) -> str:
    """Runs a system command and returns what it printed.

    Raises:
        ServerError: it failed and `check` is set.
    """
    env = {**os.environ, "PATH": search_path()}
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, env=env)
    if check and done.returncode != 0:
        raise ServerError(f"`{' '.join(command)}`: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout if done.returncode == 0 else ""


def present() -> bool:
    """Tells whether the alias exists."""
    links = json.loads(run("ip", "-j", "addr", "show", "dev", "lo") or "[]")
    return any(it.get("local") == ADDRESS for link in links for it in link.get("addr_info", []))


def set_up(state: Path) -> None:
    """Adds the alias, lets pods' packets through, keeps everybody else's out; safe to repeat."""
    if not present():
        run("ip", "addr", "add", f"{ADDRESS}/32", "dev", "lo")
    if not present():
        raise ServerError(f"address {ADDRESS} did not appear on lo; requests to it would leave this machine")
    before = state / "ip_forward.before"
    if not before.exists():
        before.write_text(_FORWARD.read_text())
    _FORWARD.write_text("1\n")
    run("nft", "-f", "-", stdin=_guard())


def _guard() -> str:
    """Returns the rule that only this machine and its pods reach the alias."""
    return f"""
table ip {_TABLE}
delete table ip {_TABLE}
table ip {_TABLE} {{
  chain input {{
    type filter hook input priority -10; policy accept;
    ip daddr {ADDRESS} iifname != {{ "lo", "{BRIDGE}" }} drop
  }}
}}
"""


def tear_down(state: Path, namespaces: Iterable[str]) -> None:
    """Removes the pods' network namespaces, the bridge, all rules and the alias; safe to repeat."""
    for namespace in namespaces:
        run("ip", "netns", "delete", Path(namespace).name, check=False)
    run("ip", "link", "delete", BRIDGE, check=False)
    for family, table in (("ip", _TABLE), ("ip", "kube-proxy"), ("ip6", "kube-proxy")):
        run("nft", "delete", "table", family, table, check=False)
    run("ip", "addr", "del", f"{ADDRESS}/32", "dev", "lo", check=False)
    before = state / "ip_forward.before"
    if before.exists():
        _FORWARD.write_text(before.read_text())


def mounts_below(*folders: Path) -> list[str]:
    """Returns the mount points inside some folders, deepest first."""
    points = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    inside = [it for it in points if any(Path(it).is_relative_to(folder) for folder in folders)]
    return sorted(inside, key=len, reverse=True)
