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


def rendered() -> dict[str, list[dict[str, Any]]]:
    model, training = example_model(), example_training()
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


def pods() -> list[dict[str, Any]]:
    job = rendered()["attempt.yaml"][-1]["spec"]["rayClusterSpec"]
    service = rendered()["rayservice.yaml"][0]["spec"]["rayClusterConfig"]
    groups = [job["headGroupSpec"], service["headGroupSpec"], *job["workerGroupSpecs"], *service["workerGroupSpecs"]]
    return [group["template"] for group in groups]


def test_every_pod_meets_the_restricted_standard() -> None:
    for pod in pods():
        spec = pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert all(set(v) - {"name"} <= {"emptyDir", "configMap"} for v in spec["volumes"])
        for container in spec["containers"]:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


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
