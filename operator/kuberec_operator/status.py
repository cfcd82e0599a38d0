"""Whether a status has to be written at all: pure, so that an operator at rest writes nothing.

The API server's managed fields say what this operator wrote before. A write is needed when a wanted value differs from
the present one, or when something it wrote before is no longer wanted.
"""

from collections.abc import Mapping
from typing import Any

from kuberec_operator.kinds import FIELD_MANAGER


def needs_write(resource: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Tells whether applying `wanted` to the resource's status would change anything."""
    present: Mapping[str, Any] = resource.get("status") or {}
    for name, value in wanted.items():
        if name != "conditions" and present.get(name) != value:
            return True
    held = {c["type"]: c for c in present.get("conditions") or []}
    for condition in wanted.get("conditions", []):
        before = held.get(condition["type"])
        if before is None or any(before.get(field) != value for field, value in condition.items()):
            return True
    fields, types = _written(resource)
    return bool(fields - set(wanted)) or bool(types - {c["type"] for c in wanted.get("conditions", [])})


def _written(resource: Mapping[str, Any]) -> tuple[set[str], set[str]]:
    """Returns the top-level status fields and the condition types that this field manager owns."""
    for entry in resource["metadata"].get("managedFields") or []:
        if entry.get("manager") == FIELD_MANAGER and entry.get("subresource") == "status":
            status = (entry.get("fieldsV1") or {}).get("f:status") or {}
            fields = {name.removeprefix("f:") for name in status if name.startswith("f:")}
            keys = [key for key in status.get("f:conditions") or {} if key.startswith("k:")]
            return fields, {key.split('"type":"')[1].split('"')[0] for key in keys}
    return set(), set()
