"""A real kube-apiserver for the session (no nodes: nothing runs), and a namespace for each test."""

import itertools
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from kubernetes.aio import client, config

from kuberec_devcluster.control_plane import ControlPlane
from kuberec_operator.cluster import ApiTransport
from tests.api.world import World

REPOSITORY = Path(__file__).parents[2]
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def control_plane() -> Iterator[ControlPlane]:
    with ControlPlane() as plane:
        plane.kubectl.apply(*sorted((REPOSITORY / "crds").glob("kuberec.dev_*.yaml")))
        plane.install_kuberay()
        yield plane


@pytest.fixture
def namespace(control_plane: ControlPlane) -> str:
    name = f"test-{next(_numbers)}"
    control_plane.kubectl("create", "namespace", name)
    return name


@pytest.fixture
async def world(control_plane: ControlPlane, namespace: str) -> AsyncIterator[World]:
    loader = client.Configuration()
    await config.load_kube_config(config_file=str(control_plane.kubeconfig), client_configuration=loader)
    transport = ApiTransport(client.ApiClient(loader))
    try:
        yield World(transport, namespace)
    finally:
        await transport.close()
