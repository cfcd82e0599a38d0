from typing import Any

from kuberec_operator.status import needs_write

CONDITION = {"type": "Running", "status": "True", "reason": "AttemptRunning", "message": ""}


def resource(status: dict[str, Any], fields: dict[str, Any] | None = None) -> dict[str, Any]:
    managed = {"manager": "kuberec", "subresource": "status", "fieldsV1": {"f:status": fields or {}}}
    return {"metadata": {"managedFields": [managed]}, "status": status}


def test_equal_values_need_no_write_whatever_others_wrote() -> None:
    theirs = {"progress": {"step": 3}, "conditions": [CONDITION, {"type": "PublishingPaused", "status": "True"}]}
    assert not needs_write(resource({"attempt": 1, **theirs}), {"attempt": 1, "conditions": [CONDITION]})


def test_a_changed_field_or_condition_needs_a_write() -> None:
    held = resource({"attempt": 1, "conditions": [CONDITION]})
    assert needs_write(held, {"attempt": 2, "conditions": [CONDITION]})
    assert needs_write(held, {"attempt": 1, "conditions": [{**CONDITION, "reason": "Other"}]})
    assert needs_write(held, {"attempt": 1, "conditions": [CONDITION, {"type": "Failed", "status": "False"}]})


def test_something_written_before_and_not_wanted_any_more_needs_a_write() -> None:
    fields = {"f:attempt": {}, "f:conditions": {'k:{"type":"Degraded"}': {}, 'k:{"type":"Running"}': {}}}
    held = resource({"attempt": 1, "conditions": [CONDITION, {"type": "Degraded", "status": "True"}]}, fields)
    assert needs_write(held, {"attempt": 1, "conditions": [CONDITION]})
