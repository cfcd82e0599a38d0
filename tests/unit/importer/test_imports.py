"""What features of fg.json become is as imports.yaml says: the native feature, and the types of the fields it reads."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from featuregen.importer import DialectName, import_fg
from featuregen.spec import FeatureSpec, FieldType, HashName

CASES = yaml.safe_load(Path(__file__).with_name("imports.yaml").read_text())


def _types(spec: FeatureSpec) -> dict[str, str]:
    found = {}
    for side in ("user", "item", "context"):
        source = getattr(spec.sources, side)
        found |= {f"{side}.{name}": kind.value for name, kind in (source.fields if source else {}).items()}
    for log, behavior in spec.sources.behavior.items():
        found |= {f"{log}.{name}": kind.value for name, kind in behavior.fields.items()}
    return found


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["title"])
def test_features_become_native_features(case: dict[str, Any]) -> None:
    imported = import_fg(
        json.dumps({"features": case["features"]}),
        DialectName(case.get("dialect", "pyfg")),
        HashName.FARM64,
        pipeline_config=case.get("pipeline"),
        field_types={ref: FieldType(kind) for ref, kind in case.get("field_types", {}).items()},
        behaviors=case.get("behaviors", ()),
    )
    assert imported.features == case["native"]
    assert _types(imported.spec) == case["fields"]
    assert imported.notes == case.get("notes", [])
