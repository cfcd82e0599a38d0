"""The node's programs get the settings that the recipe's traps ask for, whatever machine they run on."""

import json
from pathlib import Path

import pytest
import yaml

from kuberec_devcluster import node
from kuberec_devcluster.control_plane import Endpoints, apiserver_command, controller_manager_command
from kuberec_devcluster.network import ADDRESS
from kuberec_devcluster.pki import Pki

FOLDERS = node.NodeFolders(Path("/repo/.devcluster/state"), Path("/repo/.devcluster/cache"), Path("/run/x"))
PKI = Pki(Path("/pki"))


@pytest.mark.parametrize(("may", "restricted"), [(True, "false"), (False, "true")])
def test_containers_keep_their_oom_score_where_the_machine_cannot_raise_it(may: bool, restricted: str) -> None:
    config = node.containerd_config(FOLDERS, may_raise_oom_score=may)
    assert f"restrict_oom_score_adj = {restricted}" in config


def test_imported_images_survive_down_and_sockets_have_short_paths() -> None:
    config = node.containerd_config(FOLDERS, may_raise_oom_score=True)
    assert 'root = "/repo/.devcluster/cache/containerd"' in config
    assert 'address = "/run/x/containerd.sock"' in config


def test_nobody_talks_to_the_kubelet_without_a_certificate() -> None:
    config = yaml.safe_load(node.kubelet_config(FOLDERS, PKI))
    assert config["authentication"]["anonymous"]["enabled"] is False
    assert config["authentication"]["x509"]["clientCAFile"] == "/pki/ca.crt"
    assert config["authorization"]["mode"] == "Webhook"


def test_the_kubelet_leaves_no_rules_that_down_would_have_to_find() -> None:
    assert yaml.safe_load(node.kubelet_config(FOLDERS, PKI))["makeIPTablesUtilChains"] is False


def test_the_kubelets_folder_is_not_named_like_its_program() -> None:
    command = node.kubelet_command(Path("/bin/kube"), FOLDERS, Path("/k"))
    root = next(part.partition("=")[2] for part in command if part.startswith("--root-dir="))
    assert Path(root).name not in ("kubelet", "kube")


def test_pod_addresses_are_forgotten_with_the_cluster() -> None:
    bridge = json.loads(node.cni_config(FOLDERS))["plugins"][0]
    assert Path(bridge["ipam"]["dataDir"]).is_relative_to(FOLDERS.state)
    assert bridge["ipMasq"] is False


def test_an_api_on_loopback_announces_no_address_to_pods() -> None:
    alone = apiserver_command(Path("kube"), PKI, Endpoints("127.0.0.1", 1, 2, 3, 4))
    cluster = apiserver_command(Path("kube"), PKI, Endpoints(ADDRESS, 1, 2, 3, 4))
    assert "--endpoint-reconciler-type=none" in alone
    assert f"--advertise-address={ADDRESS}" in cluster


def test_no_secret_is_on_a_command_line() -> None:
    at = Endpoints("127.0.0.1", 1, 2, 3, 4)
    commands = [
        *apiserver_command(Path("kube"), PKI, at),
        *controller_manager_command(Path("kube"), PKI, Path("k"), at),
    ]
    assert all(part.partition("=")[2].startswith("/pki") for part in commands if "key-file" in part)
