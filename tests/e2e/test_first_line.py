"""The whole line on a whole cluster, as a user drives it: helm, kubectl, and a producer that stops for no failure."""

from collections.abc import Iterator
from typing import Any

import obstore
import pytest
import redis
from obstore.store import S3Store

from tests.e2e.conftest import TestCluster
from tests.e2e.line import REPOSITORY, SYSTEM, TOPIC, Line, ends, eventually, new_topic, producer, rank

EXAMPLE = REPOSITORY / "examples" / "feed.yaml"
PARTITIONS = 4
# What the operator and KubeRay make; Services and ConfigMaps of the cluster itself have no such label.
MADE = "rayjob,raycluster,rayservice,configmap,serviceaccount,role,rolebinding,pod"


@pytest.fixture
def line(cluster: TestCluster) -> Iterator[Line]:
    line = Line(cluster)
    namespace = ("-n", cluster.namespace)
    _start_clean(line)
    line.say("$ helm install kuberec helm/kuberec")
    line.install()
    try:
        yield line
    finally:
        line.kubectl(*namespace, "delete", "--ignore-not-found", "-f", str(EXAMPLE), seconds=180)
        line.helm("uninstall", "kuberec", "--namespace", SYSTEM, "--ignore-not-found", "--wait")


def _start_clean(line: Line) -> None:
    cluster = line.cluster
    if "recmodels.kuberec.dev" in line.kubectl("get", "crd", "-o", "name"):
        line.kubectl("-n", cluster.namespace, "delete", "--ignore-not-found", "-f", str(EXAMPLE), seconds=180)
    new_topic(cluster.kafka, TOPIC, PARTITIONS)
    store = S3Store(cluster.bucket, client_options={"allow_http": True}, **cluster.s3_options)
    for page in obstore.list(store, prefix="feed/"):
        obstore.delete(store, [entry["path"] for entry in page])
    database = redis.Redis.from_url(cluster.redis)
    for key in database.scan_iter(f"kr:{cluster.namespace}/*", count=10_000):
        database.delete(key)


@pytest.mark.timeout(2400)
def test_one_yaml_trains_publishes_ranks_and_survives_the_loss_of_its_head(line: Line) -> None:
    try:
        _the_first_line(line)
    except BaseException:
        print(line.describe(), flush=True)
        raise


def _the_first_line(line: Line) -> None:
    cluster, namespace = line.cluster, ("-n", line.cluster.namespace)
    with producer(cluster, rate=400) as produced:
        line.say("$ kubectl apply -f examples/feed.yaml")
        line.kubectl(*namespace, "apply", "-f", str(EXAMPLE))
        line.wait("Ready", "recmodel/feed", 60)
        line.wait("Running", "rectraining/feed", 420)

        first = eventually("progress in status", 240, lambda: _progress(line, beyond=0))
        line.show()
        second = eventually("progress that moves on", 120, lambda: _progress(line, beyond=first["step"] + 20))
        assert second["samplesPerSecond"] > 0
        assert second["auc"] != first["auc"]
        assert "lag" in second
        line.show()

        committed = eventually("offsets of every partition", 120, lambda: _covered(line, PARTITIONS))
        line.say(f"committed offsets {committed}")
        rows = eventually("rows in Redis", 120, lambda: _rows(cluster))
        line.say(f"rows in Redis: {rows}")

        line.wait("Ready", "recserving/feed", 420)
        eventually("version and freshness", 90, lambda: _served(line))
        line.show()
        _ranks(line)

        head = line.head_pod(attempt=1)
        before = line.training()["checkpoint"]
        line.say(
            f"$ kubectl delete pod {head}      (epoch {before['epoch']}, {before['samples']} samples are committed)"
        )
        line.kubectl(*namespace, "delete", "pod", head, "--wait=false")
        eventually("attempt 2", 120, lambda: line.training()["attempt"] == 2)
        line.wait("Running", "rectraining/feed", 420)
        after = eventually("an epoch of attempt 2", 300, lambda: _checkpoint(line, attempt=2, beyond=before["samples"]))
        line.say(f"attempt 2 committed epoch {after['epoch']}, {after['samples']} samples")
        assert line.training()["restarts"][-1]["reason"] == "HeadLost"
        line.show()
        produced.terminate()
        produced.wait(60)

    expected = ends(cluster.kafka, TOPIC)
    wanted = {p: end for p, (_, end) in expected.items()}
    last = eventually("everything is committed", 300, lambda: _committed(line, wanted), every_s=2)
    count = sum(end - start for start, end in expected.values())
    line.say(f"records in the topic {count}, samples applied in the committed state {last['samples']}")
    line.show()
    assert last["samples"] == count
    _ranks(line)

    line.say("$ kubectl delete -f examples/feed.yaml")
    line.kubectl(*namespace, "delete", "-f", str(EXAMPLE), seconds=180)
    eventually("nothing is left", 180, lambda: not _left(line) or None)
    line.say("nothing is left")
    assert "forbidden" not in line.kubectl("-n", SYSTEM, "logs", "deploy/kuberec")


def _progress(line: Line, beyond: int) -> dict[str, Any] | None:
    progress: dict[str, Any] = line.training().get("progress") or {}
    return progress if progress.get("step", 0) > beyond and progress.get("auc") is not None else None


def _checkpoint(line: Line, attempt: int, beyond: int) -> dict[str, Any] | None:
    checkpoint: dict[str, Any] = line.training().get("checkpoint") or {}
    return checkpoint if checkpoint.get("attempt") == attempt and checkpoint["samples"] > beyond else None


def _offsets(checkpoint: dict[str, Any]) -> dict[int, int]:
    return {o["partition"]: o["offset"] for o in checkpoint.get("offsets", [])}


def _covered(line: Line, partitions: int) -> dict[int, int] | None:
    known = _offsets(line.training().get("checkpoint") or {})
    return known if len(known) == partitions and all(known.values()) else None


def _committed(line: Line, wanted: dict[int, int]) -> dict[str, Any] | None:
    """One read: offsets and samples of the same epoch."""
    checkpoint: dict[str, Any] = line.training()["checkpoint"]
    return checkpoint if _offsets(checkpoint) == wanted else None


def _rows(cluster: TestCluster) -> int:
    database = redis.Redis.from_url(cluster.redis)
    return sum(1 for _ in database.scan_iter(f"kr:{cluster.namespace}/feed/*/t/*", count=10_000))


def _served(line: Line) -> bool:
    status = line.get("recserving").get("status", {})
    return bool(status.get("version")) and bool(status.get("freshness"))


def _ranks(line: Line) -> None:
    database = redis.Redis.from_url(line.cluster.redis)
    prefix = f"kr:{line.cluster.namespace}"
    user = next(database.scan_iter(f"{prefix}/user/*")).decode().rpartition("/")[2]
    found = database.scan_iter(f"{prefix}/item/*", count=100)
    items = [next(found).decode().rpartition("/")[2] for _ in range(20)]
    answer = rank(line, user, items)
    scores = answer["scores"]["click"]
    assert len(scores) == len(items)
    assert all(0 < score < 1 for score in scores)
    assert len(set(scores)) > 1
    best = sorted(zip(scores, items, strict=True), reverse=True)[:3]
    shown = ", ".join(f"{item} {score:.3f}" for score, item in best)
    line.say(f"rank for {user}, version {answer['version']}: best of {len(items)}: {shown}")


def _left(line: Line) -> str:
    return line.kubectl(
        *("-n", line.cluster.namespace, "get", MADE, "-o", "name", "--ignore-not-found"),
        *("-l", "app.kubernetes.io/managed-by=kuberec"),
    ).strip()
