"""Metadata that every child has: its owner, by which Kubernetes deletes it, and the labels by which we find it."""

from typing import Any

from kuberec_api import RecServing, RecTraining

MANAGED = {"app.kubernetes.io/managed-by": "kuberec"}


def metadata(
    owner: RecTraining | RecServing,
    name: str,
    labels: dict[str, str],
    annotations: dict[str, str] | None = None,
) -> dict[str, Any]:
    """Returns the metadata of a child."""
    made: dict[str, Any] = {
        "name": name,
        "namespace": owner.metadata.namespace,
        "labels": {**MANAGED, **labels},
        "ownerReferences": [
            {
                "apiVersion": owner.api_version,
                "kind": owner.kind,
                "name": owner.metadata.name,
                "uid": owner.metadata.uid,
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ],
    }
    if annotations:
        made["annotations"] = annotations
    return made
