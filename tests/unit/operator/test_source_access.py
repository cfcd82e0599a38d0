"""Credentials of a source reach those who read it, as references, and nobody else."""

from typing import Any

import pytest

from kuberec_api import RecTraining
from kuberec_operator.plan.input import input_hash
from kuberec_operator.render.attempt import render_attempt
from tests.unit.operator.resources import RUNTIME, example_model, example_training


def pods(source: dict[str, Any]) -> dict[str, dict[str, Any]]:
    body = example_training().model_dump(mode="json", by_alias=True, exclude_none=True)
    body["spec"]["source"] = source
    training, model = RecTraining.model_validate(body), example_model()
    cluster = render_attempt(model, training, 1, input_hash(training, model), RUNTIME)[-1]["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return {g["template"]["spec"]["containers"][0]["name"]: g["template"]["spec"] for g in groups}


def test_files_get_the_keys_of_their_secret_under_a_prefix_of_their_own() -> None:
    files = {"uri": "s3://samples/day=01", "credentials": {"secretRef": {"name": "lake"}}}
    secrets = {name: pod["containers"][0]["envFrom"] for name, pod in pods({"files": files}).items()}
    own, lake = {"secretRef": {"name": "s3"}}, {"prefix": "KUBEREC_SOURCE_", "secretRef": {"name": "lake"}}
    assert secrets == {"driver": [own, lake], "worker": [own, lake], "shard": [own]}


def test_kafka_gets_name_and_password_as_variables_and_certificates_as_files() -> None:
    security = {"secretRef": {"name": "login"}, "tlsSecretRef": {"name": "certs"}}
    kafka = {"bootstrapServers": "k:9093", "topic": "t", "security": security}
    for name, pod in pods({"kafka": kafka}).items():
        env = {e["name"]: e.get("valueFrom") for e in pod["containers"][0]["env"]}
        mounts = {m["mountPath"]: m for m in pod["containers"][0]["volumeMounts"]}
        reads = name != "shard"
        assert ("KUBEREC_KAFKA_PASSWORD" in env) == ("/etc/kuberec-kafka" in mounts) == reads
        if reads:
            assert env["KUBEREC_KAFKA_PASSWORD"] == {"secretKeyRef": {"name": "login", "key": "password"}}
            assert mounts["/etc/kuberec-kafka"]["readOnly"] is True
            assert {"name": "etc-kuberec-kafka", "secret": {"secretName": "certs"}} in pod["volumes"]


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ({}, "exactly one of kafka, files"),
        ({"files": {"uri": "file:///a"}, "kafka": {"bootstrapServers": "k:1", "topic": "t"}}, "exactly one"),
        ({"kafka": {"bootstrapServers": "k:1", "topic": "t", "security": {}}}, "secretRef"),
        ({"kafka": {"bootstrapServers": "k:1", "topic": "t", "startFrom": "Timestamp"}}, "startTimestamp"),
        ({"kafka": {"bootstrapServers": "k:1", "topic": "t", "startOffsets": {"0": 1}}}, "startOffsets"),
        ({"kafka": {"bootstrapServers": "k:1", "topic": "t", "format": "Csv"}}, r"csv\.columns"),
    ],
)
def test_a_source_that_says_too_little_or_too_much_is_refused(source: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        pods(source)
