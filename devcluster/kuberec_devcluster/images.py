"""Container images without a registry and without Docker: debootstrap, buildah, and an import of what changed.

Dependencies are the first layers and our code is the last one. An image is rebuilt only when an input changed, and
the import sends containerd only the blobs that it does not have, so a change of code costs megabytes.
"""

import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kuberec_devcluster import network, toolchain
from kuberec_devcluster.node import PAUSE_IMAGE, NodeFolders
from kuberec_devcluster.progress import step

REPOSITORY = toolchain.SOURCE.parent
_BASE_PATH = "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_CODE = ("pyproject.toml", "README.md", "LICENSE", "crds", "featuregen", "operator", "runtime")


@dataclass(frozen=True)
class Image:
    """An image of this repository: how it is called, and which Dockerfile makes it."""

    name: str
    dockerfile: str
    usually: str

    def inputs(self) -> list[Path | str]:
        code = [REPOSITORY / entry for entry in (*_CODE, "constraints.txt")]
        return [*(path for path in code if path.exists()), _base_key(), _BASE_PATH]


_PIP_FOLDER = "/etc/xdg/pip"  # where pip, in the image that is being built, looks for settings of the system
OPERATOR = Image(
    "localhost/kuberec/operator:dev", "operator/Dockerfile", "about 1 minute the first time, then 10 seconds"
)
RUNTIME = Image("localhost/kuberec/runtime:dev", "runtime/Dockerfile", "about 5 minutes the first time, then one")


class ImageError(RuntimeError):
    """An image did not build or import; the message holds the end of the log."""


def _base_key() -> str:
    return toolchain.digest(*_base_inputs())


def _base_inputs() -> list[str]:
    return [_release()["VERSION_CODENAME"], ",".join(_BASE_PACKAGES)]


_BASE_PACKAGES = ("python3", "python3-venv", "ca-certificates", "wget", "procps")


def _release() -> dict[str, str]:
    lines = Path("/etc/os-release").read_text().splitlines()
    return {key: value.strip('"') for key, _, value in (line.partition("=") for line in lines)}


def _mirror(suite: str) -> str:
    """Returns where apt gets this very suite from: the one source of packages that surely works here."""
    asked = ["apt-get", "indextargets", "--format", "$(SITE) $(CODENAME) $(RELEASE)", "Created-By: Packages"]
    for line in subprocess.run(asked, capture_output=True, text=True, check=True).stdout.splitlines():
        site, *names = line.split()
        if suite in names:
            return site
    raise ImageError(f"apt has no source for {suite}; add one to /etc/apt/sources.list, then `apt-get update`")


def _root_filesystem() -> Path:
    def build(out: Path) -> None:
        suite = _release()["VERSION_CODENAME"]
        include = f"--include={','.join(_BASE_PACKAGES)}"
        command = ["debootstrap", "--variant=minbase", include, suite, str(out / "rootfs"), _mirror(suite)]
        toolchain.logged(command, "debootstrap")
        for waste in ("var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/man", "usr/share/locale"):
            shutil.rmtree(out / "rootfs" / waste, ignore_errors=True)
        for machine in ("etc/apt/sources.list", "etc/resolv.conf", "etc/hostname", "var/log/bootstrap.log"):
            (out / "rootfs" / machine).unlink(missing_ok=True)  # whose machine built it is nobody's business
        toolchain.logged(["tar", "-C", str(out / "rootfs"), "-cf", str(out / "rootfs.tar"), "."], "rootfs")
        shutil.rmtree(out / "rootfs")

    return toolchain.cached("base-image", _base_inputs(), "about 2 minutes, once", build) / "rootfs.tar"


def _buildah(*arguments: str, log: str, check: bool = True) -> None:
    storage = toolchain.cache_folder() / "buildah"
    command = ["buildah", "--root", str(storage / "root"), "--runroot", str(storage / "run"), *arguments]
    try:
        toolchain.logged(command, log, env={"STORAGE_DRIVER": "overlay", "BUILDAH_ISOLATION": "chroot"})
    except toolchain.ToolError:
        if check:
            raise


def release_storage() -> None:
    """Unmounts what buildah leaves mounted between two builds; a build that runs keeps its mounts (they are busy)."""
    for point in network.mounts_below(toolchain.cache_folder() / "buildah"):
        network.run("umount", point, check=False)


def _exists(name: str) -> bool:
    try:
        _buildah("inspect", "--type", "image", name, log="inspect")
    except toolchain.ToolError:
        return False
    return True


def build(image: Image, *, force: bool = False) -> str:
    """Builds one of our images if an input changed.

    Returns:
        The digest of its inputs.
    """
    key = toolchain.digest(*image.inputs())
    note = toolchain.cache_folder() / "images" / f"{Path(image.dockerfile).parent}.json"
    known = json.loads(note.read_text())["inputs"] if note.exists() else ""
    if known == key and not force and _exists(image.name):
        return key
    reason = "first build" if not known else "its inputs changed" if known != key else "the image is gone"
    rootfs = _root_filesystem()
    base = f"localhost/kuberec/base:{toolchain.digest(_base_key(), _BASE_PATH)}"
    if not _exists(base):
        _from_scratch(base, {"rootfs.tar": rootfs}, f"ADD rootfs.tar /\n{_BASE_PATH}")
    with step(f"building image {image.name}: {reason}", image.usually), tempfile.TemporaryDirectory() as secrets:
        context = Path(secrets, "context")
        _copy_context(context)
        command = ["bud", "--layers", "--network", "host", "--format", "oci", "--build-arg", f"BASE={base}"]
        mounts = ["-v", f"{_pip_settings(Path(secrets, 'pip'))}:{_PIP_FOLDER}:ro"]
        dockerfile = ["-f", str(REPOSITORY / image.dockerfile), "-t", image.name, str(context)]
        _buildah(*command, *mounts, *dockerfile, log=f"image-{Path(image.dockerfile).parent}")
    note.parent.mkdir(parents=True, exist_ok=True)
    note.write_text(json.dumps({"inputs": key}))
    return key


def _copy_context(context: Path) -> None:
    """Copies what a Dockerfile may use; compiled Python and caches would make equal code look different."""
    context.mkdir()
    skip = shutil.ignore_patterns("__pycache__", "*.pyc", "*.egg-info", ".*")
    for entry in (*_CODE, "constraints.txt"):
        source = REPOSITORY / entry
        if source.is_dir():
            shutil.copytree(source, context / entry, ignore=skip)
        elif source.exists():
            shutil.copy2(source, context / entry)


def _pip_settings(folder: Path) -> Path:
    """Writes this machine's pip settings and certificates for a build to mount; no image keeps them."""
    folder.mkdir()
    lines = ["[global]"]
    configured = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True)
    wanted = ("index-url", "extra-index-url", "trusted-host", "timeout", "proxy")
    for line in configured.stdout.splitlines():
        key, _, value = line.partition("=")
        name = key.rpartition(".")[2].replace("_", "-")
        if name in wanted:
            lines.append(f"{name} = {value.strip().strip(chr(39))}")
    bundle = next((it for it in _bundles() if it.exists()), None)
    if bundle is not None:
        shutil.copy(bundle, folder / "ca.crt")
        lines.append(f"cert = {_PIP_FOLDER}/ca.crt")
    (folder / "pip.conf").write_text("\n".join(lines) + "\n")
    return folder


def _bundles() -> list[Path]:
    named = [os.environ.get(name, "") for name in ("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")]
    usual = ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"]
    return [Path(path) for path in (*named, *usual) if path]


def _from_scratch(name: str, files: dict[str, Path], instructions: str) -> None:
    with step(f"making image {name}"), tempfile.TemporaryDirectory(dir=toolchain.cache_folder()) as folder:
        for target, source in files.items():
            os.link(source, Path(folder, target))  # the same file system: all of it is in the cache
        Path(folder, "Dockerfile").write_text(f"FROM scratch\n{instructions}\n")
        _buildah("bud", "--format", "oci", "-t", name, folder, log="image-scratch")


def import_all(folders: NodeFolders, images: tuple[Image, ...]) -> None:
    """Builds what changed, and gives containerd what it does not have."""
    for image in images:
        build(image)
        import_image(folders, image.name)


def import_pause(folders: NodeFolders) -> None:
    """Makes and imports the image that holds each pod's namespaces."""
    if not _exists(PAUSE_IMAGE):
        _from_scratch(PAUSE_IMAGE, {"pause": toolchain.ensure("pause")}, 'COPY pause /pause\nENTRYPOINT ["/pause"]')
    import_image(folders, PAUSE_IMAGE)


def import_image(folders: NodeFolders, name: str) -> None:
    """Imports an image from buildah's storage, unless containerd has exactly it already."""
    layout = toolchain.cache_folder() / "oci" / name.rpartition("/")[2].partition(":")[0]
    layout.parent.mkdir(parents=True, exist_ok=True)
    _write_layout(name, layout)
    index = json.loads((layout / "index.json").read_text())
    manifest = index["manifests"][-1]
    ctr = ["ctr", "-a", str(folders.containerd_socket), "-n", "k8s.io"]
    listed = subprocess.run([*ctr, "images", "list"], capture_output=True, text=True, check=True).stdout
    if any(line.split()[0] == name and manifest["digest"] in line for line in listed.splitlines()[1:]):
        return
    held = set(subprocess.run([*ctr, "content", "list", "-q"], capture_output=True, text=True).stdout.split())
    wanted = [blob for blob in _blobs(layout, manifest["digest"]) if blob not in held]
    size = sum(_blob(layout, blob).stat().st_size for blob in wanted)
    manifest["annotations"] = {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": "dev"}
    for stale in layout.parent.glob("*.tar"):  # of an import that was killed
        stale.unlink()
    with step(f"importing {name} ({size / 1e6:,.0f} MB new)", "gigabytes take a minute or two, the first time"):
        with tempfile.NamedTemporaryFile(dir=layout.parent, suffix=".tar") as archive:
            _write_archive(Path(archive.name), layout, {**index, "manifests": [manifest]}, wanted)
            toolchain.logged([*ctr, "images", "import", archive.name], "import")
    _forget_blobs(layout, index, manifest)


def _write_layout(name: str, layout: Path) -> None:
    """Brings a folder of blobs up to date with an image; layers that are there already cost nothing.

    `buildah push` would compress every layer anew each time; `commit` leaves them as they are, and then a layer's
    digest tells that the folder has it. The date is fixed, so that equal images get equal digests.
    """
    work = f"export-{layout.name}"
    _buildah("rm", work, log="export", check=False)
    _buildah("from", "--pull-never", "--name", work, name, log="export")
    commit = ["commit", "--quiet", "--rm", "--disable-compression", "--timestamp", "0"]
    _buildah(*commit, work, f"oci:{layout}:dev", log="export")


def _blob(layout: Path, digest: str) -> Path:
    return layout / "blobs" / digest.replace(":", "/")


def _blobs(layout: Path, manifest: str) -> list[str]:
    content: dict[str, Any] = json.loads(_blob(layout, manifest).read_text())
    return [manifest, content["config"]["digest"], *(layer["digest"] for layer in content["layers"])]


def _write_archive(archive: Path, layout: Path, index: dict[str, Any], blobs: list[str]) -> None:
    with tarfile.open(archive, "w") as out:
        out.add(layout / "oci-layout", "oci-layout")
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            json.dump(index, file)
            file.flush()
            out.add(file.name, "index.json")
        for blob in dict.fromkeys(blobs):
            out.add(_blob(layout, blob), f"blobs/{blob.replace(':', '/')}")


def _forget_blobs(layout: Path, index: dict[str, Any], manifest: dict[str, Any]) -> None:
    """Removes what only older versions of the image used."""
    keep = _blobs(layout, manifest["digest"])
    for path in (layout / "blobs" / "sha256").iterdir():
        if f"sha256:{path.name}" not in keep:
            path.unlink()
    (layout / "index.json").write_text(json.dumps({**index, "manifests": [manifest]}))
