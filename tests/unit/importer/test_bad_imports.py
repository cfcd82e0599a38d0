"""What cannot be imported is refused as bad_imports.yaml says: which feature, what is wrong, how to mend it."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from featuregen.importer import DialectName, ImportFailedError, import_fg
from featuregen.spec import HashName

HERE = Path(__file__).parent
CASES = yaml.safe_load((HERE / "bad_imports.yaml").read_text())


def _import(case: dict[str, Any]) -> None:
    def read(path: str) -> bytes | None:
        return (HERE / path).read_bytes() if case.get("files") else None

    import_fg(
        json.dumps({"features": case["features"]} | case.get("top", {})),
        DialectName(case.get("dialect", "pyfg")),
        HashName(case.get("hash", "farm64")),
        pipeline_config=case.get("pipeline"),
        behaviors=case.get("behaviors", ()),
        read_file=read,
    )


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["title"])
def test_what_cannot_be_imported_is_refused_with_this_text(case: dict[str, Any]) -> None:
    with pytest.raises(ImportFailedError) as raised:
        _import(case)
    assert str(raised.value) == case["error"].rstrip()
    assert all(error.hint for error in raised.value.errors), "an error without a way out"
