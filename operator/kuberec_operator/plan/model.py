"""Decides a RecModel's status: compiled, or wrong and why. A model has no children."""

from datetime import datetime
from typing import Any

from featuregen.errors import FeatureError
from kuberec_api import RecModel
from kuberec_api.layout import NetworkError
from kuberec_api.validation import check_model
from kuberec_operator import events
from kuberec_operator.plan.decision import Decision, Note, Verdict, conditions

READY = "Ready"
SHOWN_DIGITS = 12


def plan(model: RecModel, now: datetime) -> Decision:
    """Compiles features and network; every mistake in them ends in the condition `Ready`."""
    if model.metadata.deletion_timestamp:
        return Decision()
    facts: dict[str, Any] = {}
    try:
        checked = check_model(model.spec)
        _check_files(model)
    except FeatureError as error:
        verdict = Verdict(READY, False, events.INVALID_FEATURE, str(error))
    except NetworkError as error:
        verdict = Verdict(READY, False, events.INVALID_NETWORK, str(error))
    else:
        facts = {
            "digest": checked.digest[:SHOWN_DIGITS],
            "features": checked.features,
            "tables": checked.tables,
            "parameters": checked.parameters,
        }
        verdict = Verdict(READY, True, events.COMPILED)
    generation = model.metadata.generation
    wanted = {
        "conditions": conditions(model.status.conditions, [verdict], generation, now),
        "observedGeneration": generation,
        **facts,
    }
    said = next((c for c in model.status.conditions if c.type == READY), None)
    news = said is None or (said.reason, said.message) != (verdict.reason, verdict.message)
    message = verdict.message or f"{facts.get('features')} features, plan {str(facts.get('digest'))[:8]}"
    return Decision(status=wanted, events=(Note(verdict.reason, message, not verdict.true),) if news else ())


def _check_files(model: RecModel) -> None:
    """Refuses a file that no pod could read; a local run takes it from a folder instead."""
    for name, file in model.spec.features.files.items():
        if file.config_map is None:
            hint = f"name a ConfigMap and its key: files.{name}.configMap: {{name: ..., key: ...}}"
            raise FeatureError(None, f"file '{name}' has no configMap, and pods read it from one", hint)
