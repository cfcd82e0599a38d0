"""examples/feed.yaml, rendered: the goldens are what Kubernetes gets. `UPDATE_GOLDENS=1` rewrites them."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from kuberec_api import RecModel, RecTraining
from kuberec_operator.plan.input import input_hash
from kuberec_operator.render.attempt import render_attempt
from kuberec_operator.render.pod import cores, start_params
from kuberec_operator.render.rayservice import render_service
from tests.unit.operator.resources import RUNTIME, example_model, example_serving, example_training

GOLDEN = Path(__file__).parent / "golden"


FILES = {
    "words": {"sha256": "ab" * 32, "configMap": {"name": "shop-words", "key": "words.txt"}},
    "brands": {"sha256": "cd" * 32, "configMap": {"name": "shop", "key": "brands.v3"}},
}


def rendered(files: dict[str, Any] | None = None) -> dict[str, list[dict[str, Any]]]:
    body, training = example_model().model_dump(mode="json", by_alias=True, exclude_none=True), example_training()
    body["spec"]["features"]["files"] = files or {}
    model = RecModel.model_validate(body)
    return {
        "attempt.yaml": list(render_attempt(model, training, 3, input_hash(training, model), RUNTIME)),
        "rayservice.yaml": list(render_service(model, training, example_serving(), RUNTIME)),
    }


@pytest.mark.parametrize("name", ["attempt.yaml", "rayservice.yaml"])
def test_the_example_renders_as_its_golden(name: str) -> None:
    text = yaml.safe_dump_all(json.loads(json.dumps(rendered()[name])), sort_keys=False, width=120)
    if os.environ.get("UPDATE_GOLDENS") == "1":
        (GOLDEN / name).write_text(text)
    assert text == (GOLDEN / name).read_text()


def pods(files: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    job = rendered(files)["attempt.yaml"][-1]["spec"]["rayClusterSpec"]
    service = rendered(files)["rayservice.yaml"][0]["spec"]["rayClusterConfig"]
    groups = [job["headGroupSpec"], service["headGroupSpec"], *job["workerGroupSpecs"], *service["workerGroupSpecs"]]
    return [group["template"] for group in groups]


@pytest.mark.parametrize("files", [None, FILES])
def test_every_pod_meets_the_restricted_standard(files: dict[str, Any] | None) -> None:
    for pod in pods(files):
        spec = pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert all(set(v) - {"name"} <= {"emptyDir", "configMap", "projected"} for v in spec["volumes"])
        for container in spec["containers"]:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def in_etc(pod: dict[str, Any]) -> dict[str, Any]:
    """What lies in /etc/kuberec: path -> (ConfigMap, key); a whole ConfigMap as its name -> None."""
    found: dict[str, Any] = {}
    (container,) = pod["spec"]["containers"]
    for mount in container["volumeMounts"]:
        if not mount["mountPath"].startswith("/etc"):
            continue
        assert mount["readOnly"] is True
        volume = next(v for v in pod["spec"]["volumes"] if v["name"] == mount["name"])
        for source in volume.get("projected", {}).get("sources", [volume]):
            name = source["configMap"]["name"]
            items = source["configMap"].get("items")
            found |= {f"{mount['mountPath']}/{i['path']}": (name, i["key"]) for i in items} if items else {name: None}
    return found


def test_files_of_features_are_mounted_where_features_are_computed() -> None:
    files = {
        "/etc/kuberec/files/words": ("shop-words", "words.txt"),
        "/etc/kuberec/files/brands": ("shop", "brands.v3"),
    }
    driver, serve_head, shard, worker, replica = (in_etc(pod) for pod in pods(FILES))
    assert driver == {"feed-a3": None, **files}
    assert shard == {}
    assert worker == serve_head == replica == files


def test_a_model_without_files_mounts_only_the_input() -> None:
    assert [in_etc(pod) for pod in pods()] == [{"feed-a3": None}, {}, {}, {}, {}]


def test_a_changed_digest_is_another_serving_and_another_attempt() -> None:
    other = {**FILES, "words": {**FILES["words"], "sha256": "ef" * 32}}
    for name in ("attempt.yaml", "rayservice.yaml"):
        hashes = [[m["metadata"]["annotations"]["kuberec.dev/hash"] for m in rendered(f)[name]] for f in (FILES, other)]
        assert hashes[0] != hashes[1]


def test_only_the_drivers_pod_gets_a_token() -> None:
    tokens = [p["spec"]["automountServiceAccountToken"] for p in pods()]
    assert tokens.count(True) == 1


def test_the_driver_may_touch_its_own_training_only() -> None:
    role = next(m for m in rendered()["attempt.yaml"] if m["kind"] == "Role")
    assert all(rule["resourceNames"] == ["feed"] for rule in role["rules"])
    assert {verb for rule in role["rules"] for verb in rule["verbs"]} == {"get", "patch"}


def test_the_input_is_what_the_driver_reads() -> None:
    config = next(m for m in rendered()["attempt.yaml"] if m["kind"] == "ConfigMap")
    given = json.loads(config["data"]["input.json"])
    RecModel.model_validate(given["model"])
    RecTraining.model_validate(given["training"])
    assert (given["attempt"], config["immutable"]) == (3, True)


def test_no_secret_value_is_rendered() -> None:
    text = json.dumps(rendered())
    assert '"secretRef": {"name": "s3"}' in text
    assert "AWS_SECRET_ACCESS_KEY" not in text


def test_every_child_belongs_to_its_resource() -> None:
    for name, owner in (("attempt.yaml", "RecTraining"), ("rayservice.yaml", "RecServing")):
        for manifest in rendered()[name]:
            (reference,) = manifest["metadata"]["ownerReferences"]
            assert (reference["kind"], reference["controller"]) == (owner, True)


def test_custom_resources_are_written_as_kuberay_wants_them() -> None:
    assert start_params(0, {"kuberec_shard": 1})["resources"] == '"{\\"kuberec_shard\\": 1}"'


@pytest.mark.parametrize(("cpu", "expected"), [("250m", 1), ("1", 1), ("1500m", 2), ("8", 8), ("0.5", 1)])
def test_threads_follow_cpu(cpu: str, expected: int) -> None:
    assert cores(cpu) == expected
