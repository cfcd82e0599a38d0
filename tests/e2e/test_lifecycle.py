"""What a user does to a running line: suspend, resume, scale, pin; no record is lost or counted twice on the way."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.conftest import TestCluster
from tests.e2e.line import TOPIC, Line, ends, eventually, producer
from tests.e2e.test_first_line import EXAMPLE, SYSTEM, _committed, _start_clean

POD_LABEL = "kuberec.dev/training=feed"


@pytest.fixture
def line(cluster: TestCluster) -> Iterator[Line]:
    line = Line(cluster)
    _start_clean(line)
    line.install()
    try:
        yield line
    except BaseException:
        print(line.describe(), flush=True)
        raise
    finally:
        line.kubectl("-n", cluster.namespace, "delete", "--ignore-not-found", "-f", str(EXAMPLE), seconds=180)
        line.helm("uninstall", "kuberec", "--namespace", SYSTEM, "--ignore-not-found", "--wait")


def _patch(line: Line, kind: str, patch: str) -> None:
    line.say(f"$ kubectl patch {kind} feed --type merge -p '{patch}'")
    line.kubectl("-n", line.cluster.namespace, "patch", kind, "feed", "--type", "merge", "-p", patch)


def _samples(line: Line, attempt: int, beyond: int) -> dict[str, Any] | None:
    checkpoint: dict[str, Any] = line.training().get("checkpoint") or {}
    return checkpoint if checkpoint.get("attempt") == attempt and checkpoint["samples"] > beyond else None


@pytest.mark.timeout(2400)
def test_suspended_resumed_and_scaled_it_applies_every_record_once(line: Line) -> None:
    namespace = ("-n", line.cluster.namespace)
    # Two pods are enough here, and leave room for a third.
    with producer(line.cluster, rate=200) as produced:
        line.kubectl(*namespace, "apply", "-f", str(EXAMPLE))
        _patch(line, "recserving", '{"spec":{"replicas":0}}')
        line.wait("Running", "rectraining/feed", 420)
        eventually("an epoch", 300, lambda: _samples(line, 1, 0))

        _patch(line, "rectraining", '{"spec":{"suspend":true}}')
        line.wait("Suspended", "rectraining/feed", 200)
        assert not line.kubectl(*namespace, "get", "pods", "-l", POD_LABEL, "-o", "name").strip()
        status = line.training()
        assert status["outcome"]["reason"] == "Suspended"
        assert sum(o["offset"] for o in status["checkpoint"]["offsets"]) == status["checkpoint"]["samples"]
        line.show()

        _patch(line, "rectraining", '{"spec":{"suspend":false}}')
        eventually("attempt 2 goes on", 420, lambda: _samples(line, 2, status["checkpoint"]["samples"]))

        line.say("$ kubectl scale rectraining/feed --replicas=1")
        line.kubectl(*namespace, "scale", "rectraining/feed", "--replicas=1")
        eventually("attempt 3 with one worker", 420, lambda: _samples(line, 3, status["checkpoint"]["samples"]))
        line.show()
        training = line.training()
        assert (training["workers"], training["failures"]) == (1, 0)
        assert training["restarts"][-1]["reason"] == "SpecChanged"
        produced.terminate()
        produced.wait(60)
    expected = ends(line.cluster.kafka, TOPIC)
    last = eventually(
        "everything is committed", 300, lambda: _committed(line, {p: e for p, (_, e) in expected.items()})
    )
    assert last["samples"] == sum(end - start for start, end in expected.values())
    line.say(f"{last['samples']} records, {last['samples']} samples")
    assert "forbidden" not in line.kubectl("-n", SYSTEM, "logs", "deploy/kuberec")
