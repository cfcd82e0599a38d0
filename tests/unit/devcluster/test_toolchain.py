"""A tool is built when its inputs changed and at no other time, and what is missing is named."""

from pathlib import Path

import pytest

from kuberec_devcluster import own_cluster, toolchain
from kuberec_devcluster.toolchain import Package, ToolError, cached, digest, ensure_packages


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBEREC_CACHE", str(tmp_path / "cache"))


def test_an_unchanged_input_is_never_built_twice() -> None:
    builds: list[Path] = []
    first = cached("tool", ["input"], "", builds.append)
    assert cached("tool", ["input"], "", builds.append) == first
    assert len(builds) == 1


def test_a_changed_input_replaces_the_result() -> None:
    first = cached("tool", ["one"], "", lambda out: None)
    second = cached("tool", ["two"], "", lambda out: None)
    assert second.exists()
    assert not first.exists()


def test_a_failed_build_leaves_nothing_that_looks_built() -> None:
    def fail(out: Path) -> None:
        (out / "half").touch()
        raise ToolError("no compiler")

    with pytest.raises(ToolError, match="no compiler"):
        cached("tool", ["input"], "", fail)
    rebuilt: list[Path] = []
    assert not (cached("tool", ["input"], "", rebuilt.append) / "half").exists()
    assert len(rebuilt) == 1


def test_the_digest_sees_contents_names_and_moves(tmp_path: Path) -> None:
    folder = tmp_path / "src"
    (folder / "a").mkdir(parents=True)
    (folder / "b").mkdir()
    file = folder / "a" / "x.py"
    file.write_text("1")
    seen = {digest(folder)}
    file.write_text("2")
    seen.add(digest(folder))
    file = file.rename(folder / "b" / "x.py")
    seen.add(digest(folder))
    file.rename(folder / "b" / "y.py")
    seen.add(digest(folder))
    assert len(seen) == 4


def test_without_root_the_missing_packages_are_named_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(ToolError, match="apt-get install --no-install-recommends -y one two"):
        ensure_packages([Package("one", "/nowhere/one"), Package("two", "no-such-program"), Package("sh", "sh")])


def test_kubernetes_is_stamped_with_the_version_that_go_mod_pins() -> None:
    flags = toolchain.GO_TOOLS["kube"].linker_flags()
    pinned = next(
        line.split()[1]
        for line in (toolchain.SOURCE / "go.mod").read_text().splitlines()
        if "k8s.io/kubernetes " in line
    )
    assert f"gitVersion={pinned}" in flags


def test_our_own_kubeconfig_is_not_a_users_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    assert own_cluster.chosen() is None
    monkeypatch.setenv("KUBECONFIG", str(own_cluster.Cluster.here().kubeconfig))
    assert own_cluster.chosen() is None
    monkeypatch.setenv("KUBECONFIG", "/home/me/.kube/config")
    assert own_cluster.chosen() == Path("/home/me/.kube/config")
