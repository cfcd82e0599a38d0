"""What the API server accepts, refuses, shows and merges: CRDs as a user and two field managers see them."""

import copy
import json
from typing import Any

import pytest

from kuberec_devcluster.control_plane import ControlPlane, KubectlError
from kuberec_operator.kinds import TRAINING
from tests.api.world import EXAMPLE, World, example


def apply(plane: ControlPlane, namespace: str, body: dict[str, Any]) -> None:
    plane.kubectl("-n", namespace, "apply", "-f", "-", stdin=json.dumps(body))


def test_the_example_is_accepted_as_it_stands(control_plane: ControlPlane, namespace: str) -> None:
    control_plane.kubectl("-n", namespace, "apply", "-f", str(EXAMPLE))
    shown = control_plane.kubectl("-n", namespace, "get", "kuberec")
    for column in ("SAMPLES/S", "LAG", "AUC", "CHECKPOINT", "PUBLISHED", "PARAMETERS", "FRESHNESS", "URL"):
        assert column in shown
    for short in ("recm", "rect", "recs"):
        assert "feed" in control_plane.kubectl("-n", namespace, "get", short)


def test_the_example_of_every_operator_is_accepted_as_it_stands(control_plane: ControlPlane, namespace: str) -> None:
    control_plane.kubectl("-n", namespace, "apply", "-f", str(EXAMPLE.with_name("operators.yaml")))
    assert "operators" in control_plane.kubectl("-n", namespace, "get", "recm")


def _with(kind: str, path: str, value: Any) -> dict[str, Any]:
    body = copy.deepcopy(example(kind))
    *parents, last = path.split("/")
    at: Any = body
    for name in parents:
        at = at[int(name)] if isinstance(at, list) else at[name]
    if value is None:
        del at[last]
    else:
        at[int(last) if isinstance(at, list) else last] = value
    return body


BAD = [
    ("RecTraining", "spec/source", {}, "exactly one of kafka, files"),
    ("RecTraining", "spec/checkpoint/uri", "/tmp/x", "checkpoint.uri"),
    ("RecTraining", "spec/checkpoint/interval", "0s", "longer than 0s"),
    ("RecTraining", "spec/checkpoint/interval", "soon", "spec.checkpoint.interval"),
    ("RecTraining", "spec/monitors/0/range", {}, "min, max or both"),
    ("RecTraining", "spec/monitors/0/range", {"min": 2, "max": 1}, "min is above max"),
    ("RecTraining", "spec/monitors/1/name", "positive-ratio", "Duplicate value"),
    ("RecTraining", "spec/publish/redis/url", "redis://user:secret@redis:6379/0", "spec.publish.redis.url"),
    ("RecTraining", "spec/workers/replicas", 0, "spec.workers.replicas"),
    ("RecTraining", "metadata/name", "a" * 41, "at most 40 characters"),
    ("RecTraining", "metadata/name", "1st", "at most 40 characters"),
    ("RecTraining", "spec/worker", {"replicas": 2}, "unknown field"),
    ("RecTraining", "spec/warmStart", {}, "exactly one of uri, trainingRef"),
    (
        "RecTraining",
        "spec/warmStart",
        {"uri": "s3://b/a", "trainingRef": {"name": "a"}},
        "exactly one of uri, trainingRef",
    ),
    ("RecTraining", "spec/warmStart", {"uri": "/tmp/x"}, "warmStart.uri"),
    ("RecServing", "spec/version", {"policy": "Pinned"}, "policy Pinned needs `version`"),
    ("RecServing", "spec/version", {"policy": "Pinned", "version": "newest"}, "spec.version.version"),
    ("RecModel", "spec/features/list/0/encode", {"hashBuckets": 5, "identityBuckets": 5}, "exactly one of hashBuckets"),
    ("RecModel", "spec/features/list/0/encode", None, "needs one encoder"),
    ("RecModel", "spec/features/list/0/encode", {"vocabFile": "words"}, "needs `unknown` and `vocabSize`"),
    ("RecModel", "spec/features/list/0/like", "gender", "not both"),
    ("RecModel", "spec/features/list/0/stub", True, "a stub has no output"),
    ("RecModel", "spec/features/list/12/fields/0/expr", "now - ts", "either `in` or `expr`"),
    ("RecModel", "spec/features/list/1/name", "user_id", "Duplicate value"),
    ("RecModel", "spec/features/list/0/op", "md5", "Unsupported value"),
    ("RecModel", "spec/tasks", [], "spec.tasks"),
    ("RecModel", "spec/embeddings/defaults/optimizer", {"beta1": 0.5}, "only Adam has beta1, beta2"),
    ("RecModel", "spec/embeddings/defaults/optimizer", {"kind": "Adam", "l1": 0.1}, "only FTRL has l1, l2"),
    ("RecModel", "spec/embeddings/defaults/eviction", {"maxBytes": "0"}, "maxBytes: give at least 1Mi"),
    ("RecModel", "spec/embeddings/defaults/eviction", {"maxBytes": "900Ki"}, "maxBytes: give at least 1Mi"),
    ("RecModel", "spec/embeddings/defaults/optimizer", {"kind": "Adam", "beta2": 1}, "should be less than 1"),
]


@pytest.mark.parametrize(("kind", "path", "value", "told"), BAD, ids=[f"{b[0]}-{b[1]}-{i}" for i, b in enumerate(BAD)])
def test_a_wrong_field_is_refused_with_a_reason(
    control_plane: ControlPlane, namespace: str, kind: str, path: str, value: Any, told: str
) -> None:
    with pytest.raises(KubectlError) as refused:
        apply(control_plane, namespace, _with(kind, path, value))
    assert told in str(refused.value)


@pytest.mark.parametrize(("kind", "field"), [("RecTraining", "modelRef"), ("RecServing", "trainingRef")])
def test_references_never_change(control_plane: ControlPlane, namespace: str, kind: str, field: str) -> None:
    apply(control_plane, namespace, example(kind))
    with pytest.raises(KubectlError, match="immutable"):
        apply(control_plane, namespace, example(kind, **{field: {"name": "other"}}))


def test_scale_changes_replicas(control_plane: ControlPlane, namespace: str) -> None:
    control_plane.kubectl("-n", namespace, "apply", "-f", str(EXAMPLE))
    control_plane.kubectl("-n", namespace, "scale", "rectraining/feed", "--replicas=5")
    control_plane.kubectl("-n", namespace, "scale", "recserving/feed", "--replicas=3")
    assert control_plane.kubectl.get("-n", namespace, "rect", "feed")["spec"]["workers"]["replicas"] == 5
    assert control_plane.kubectl.get("-n", namespace, "recs", "feed")["spec"]["replicas"] == 3


async def test_operator_and_driver_write_one_status_without_touching_each_other(world: World) -> None:
    await world.apply_example()
    paused = {
        "type": "PublishingPaused",
        "status": "True",
        "reason": "auc",
        "message": "0.4 is below 0.5",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    await world.settle()
    await world.write_status(TRAINING, "feed", {"progress": {"step": 7}, "conditions": [paused]}, "kuberec-runtime")
    await world.kuberay_runs(1)
    await world.settle()
    status = await world.status()
    assert status["progress"]["step"] == 7
    kinds = {c["type"]: c["status"] for c in status["conditions"]}
    assert (kinds["PublishingPaused"], kinds["Running"]) == ("True", "True")
