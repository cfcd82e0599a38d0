"""A cluster where KubeRay is not installed yet."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from kubernetes.aio import client, config

from kuberec_devcluster.control_plane import ControlPlane
from kuberec_operator.cluster import ApiTransport
from kuberec_operator.kinds import RAYJOB, SERVING
from tests.api.world import World

CRDS = Path(__file__).parents[2] / "crds"


@pytest.fixture
def bare() -> Iterator[ControlPlane]:
    with ControlPlane(controllers=False) as plane:
        plane.kubectl.apply(*sorted(CRDS.glob("kuberec.dev_*.yaml")))
        plane.kubectl("wait", "--for=condition=Established", "--timeout=60s", "crd", "--all")
        yield plane


async def test_it_is_said_once_and_everything_goes_on_when_kuberay_comes(bare: ControlPlane) -> None:
    loader = client.Configuration()
    await config.load_kube_config(config_file=str(bare.kubeconfig), client_configuration=loader)
    transport = ApiTransport(client.ApiClient(loader))
    world = World(transport, "default")
    try:
        await world.apply_example()
        await world.settle()
        conditions = {c["type"]: c for c in (await world.status())["conditions"]}
        assert (conditions["Degraded"]["status"], conditions["Degraded"]["reason"]) == ("True", "KubeRayMissing")
        ready = {c["type"]: c for c in (await world.status(SERVING))["conditions"]}["Ready"]
        assert ready["reason"] == "KubeRayMissing"
        assert (await world.settle()).writes == []

        bare.install_kuberay()
        await world.settle()
        assert await world.names(RAYJOB) == ["feed-a1"]
        assert "Degraded" not in {c["type"] for c in (await world.status())["conditions"]}
    finally:
        await transport.close()
