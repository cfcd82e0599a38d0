"""One cluster for the whole session: ours, brought up if it is not, or the user's (KUBECONFIG)."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from kuberec_devcluster import own_cluster
from kuberec_devcluster.backing import NAMESPACE, S3_SECRET, servers
from kuberec_devcluster.cluster import Cluster
from kuberec_devcluster.control_plane import Kubectl
from kuberec_devcluster.images import OPERATOR, RUNTIME


@dataclass(frozen=True)
class TestCluster:
    """What an end-to-end test needs to know.

    Attributes:
        kubeconfig: path of the kubeconfig.
        kubectl: runs kubectl with it: `cluster.kubectl("get", "pods")`.
        namespace: where the tests work; pods there must meet the `restricted` standard.
        kafka: bootstrap address for programs on this machine; pods use `kafka:9092`.
        redis: URL likewise; pods use `redis://redis:6379/0`.
        s3: endpoint likewise; pods use `http://s3:9000`.
        bucket: the bucket that exists.
        s3_secret: name of the Secret with AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT.
        s3_options: `obstore.store.S3Store(bucket, **s3_options)` for programs on this machine.
        operator_image: the operator's image, present on every node.
        runtime_image: the runtime's image likewise.
        own: a user's cluster, whose services the environment names.
    """

    __test__ = False

    kubeconfig: Path
    kubectl: Kubectl
    namespace: str
    kafka: str
    redis: str
    s3: str
    bucket: str
    s3_secret: str
    s3_options: dict[str, str]
    operator_image: str
    runtime_image: str
    own: bool


@pytest.fixture(scope="session")
def cluster() -> Iterator[TestCluster]:
    """A cluster with KubeRay, Kafka, Redis and S3; ours goes down at the end unless it was up before or KEEP=1."""
    kubeconfig = own_cluster.chosen()
    if kubeconfig is not None:
        own_cluster.check(kubeconfig)
        yield _of_the_user(kubeconfig)
        return
    ours = Cluster.here()
    was_up = ours.is_up()
    try:
        ours.up()
        yield _ours(ours)
    finally:
        if not was_up and os.environ.get("KEEP") != "1":
            ours.down()


def _ours(cluster: Cluster) -> TestCluster:
    kafka, redis, s3 = servers(cluster.state, cluster.settings)
    return TestCluster(
        kubeconfig=cluster.kubeconfig,
        kubectl=cluster.kubectl,
        namespace=NAMESPACE,
        kafka=kafka.bootstrap,
        redis=redis.url,
        s3=s3.endpoint,
        bucket=s3.bucket,
        s3_secret=S3_SECRET,
        s3_options=s3.options,
        operator_image=OPERATOR.name,
        runtime_image=RUNTIME.name,
        own=False,
    )


def _of_the_user(kubeconfig: Path) -> TestCluster:
    """Reads from the environment how this machine reaches the services of the user's cluster."""
    names = ("KUBEREC_KAFKA", "KUBEREC_REDIS", "KUBEREC_S3", "KUBEREC_OPERATOR_IMAGE", "KUBEREC_RUNTIME_IMAGE")
    missing = [name for name in names if name not in os.environ]
    if missing:
        pytest.skip(f"KUBECONFIG names your own cluster; these tests then also need {', '.join(missing)}")
    kafka, redis, s3, operator, runtime = (os.environ[name] for name in names)
    access, secret = os.environ.get("AWS_ACCESS_KEY_ID", ""), os.environ.get("AWS_SECRET_ACCESS_KEY", "")
    return TestCluster(
        kubeconfig=kubeconfig,
        kubectl=Kubectl(kubeconfig),
        namespace=os.environ.get("KUBEREC_NAMESPACE", NAMESPACE),
        kafka=kafka,
        redis=redis,
        s3=s3,
        bucket=os.environ.get("KUBEREC_BUCKET", "kuberec"),
        s3_secret=S3_SECRET,
        s3_options={"endpoint": s3, "access_key_id": access, "secret_access_key": secret, "region": "us-east-1"},
        operator_image=operator,
        runtime_image=runtime,
        own=True,
    )
