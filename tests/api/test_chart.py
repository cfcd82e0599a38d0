"""The chart, rendered by helm."""

import subprocess
from pathlib import Path
from typing import Any

import yaml

from kuberec_devcluster import toolchain

CHART = Path(__file__).parents[2] / "helm" / "kuberec"


def helm(*arguments: str) -> str:
    done = subprocess.run([str(toolchain.ensure("helm")), *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def render(*values: str) -> list[dict[str, Any]]:
    sets = [part for value in values for part in ("--set", value)]
    text = helm("template", "kuberec", str(CHART), "-n", "system", "--kube-version", "1.35.0", *sets)
    return [document for document in yaml.safe_load_all(text) if document]


def of_kind(documents: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [d for d in documents if d["kind"] == kind]


def test_the_chart_passes_strict_lint() -> None:
    helm("lint", "--strict", str(CHART))


def test_watching_namespaces_needs_no_cluster_wide_right() -> None:
    documents = render("watchNamespaces={shop,feed}")
    assert not of_kind(documents, "ClusterRole")
    assert not of_kind(documents, "ClusterRoleBinding")
    assert {r["metadata"]["namespace"] for r in of_kind(documents, "Role")} == {"shop", "feed", "system"}


def test_no_rule_uses_a_star() -> None:
    for role in (*of_kind(render(), "ClusterRole"), *of_kind(render(), "Role")):
        for rule in role["rules"]:
            assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]


def test_secrets_are_out_of_reach() -> None:
    for role in (*of_kind(render(), "ClusterRole"), *of_kind(render(), "Role")):
        assert all("secrets" not in rule["resources"] for rule in role["rules"])


def test_crds_are_kept_on_uninstall_and_can_be_left_out() -> None:
    crds = of_kind(render(), "CustomResourceDefinition")
    assert len(crds) == 3
    assert all(c["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep" for c in crds)
    assert not of_kind(render("crds.enabled=false"), "CustomResourceDefinition")
    assert "annotations" not in of_kind(render("crds.keep=false"), "CustomResourceDefinition")[0]["metadata"]


def test_the_operators_pod_meets_the_restricted_standard() -> None:
    (deployment,) = of_kind(render(), "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    (container,) = pod["containers"]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["resources"]["limits"]["memory"]


def test_two_replicas_come_with_a_disruption_budget() -> None:
    assert len(of_kind(render("replicas=2"), "PodDisruptionBudget")) == 1
    assert not of_kind(render(), "PodDisruptionBudget")


def test_a_misspelt_value_is_refused() -> None:
    done = subprocess.run(
        [str(toolchain.ensure("helm")), "template", str(CHART), "--kube-version", "1.35.0", "--set", "replcas=2"],
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert "replcas" in done.stderr
