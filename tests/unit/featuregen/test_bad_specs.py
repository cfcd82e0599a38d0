"""Every mistake is refused with the text in bad_specs.yaml: which feature, what is wrong, how to mend it."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from featuregen.errors import FeatureError
from featuregen.spec import FeatureSpec
from tests.unit.featuregen.cases import plan_of

TABLE = yaml.safe_load(Path(__file__).with_name("bad_specs.yaml").read_text())


@pytest.mark.parametrize("case", TABLE["cases"], ids=lambda case: case["title"])
def test_a_bad_spec_is_refused_with_this_text(case: dict[str, Any]) -> None:
    with pytest.raises(FeatureError) as raised:
        plan_of(case.get("sources", TABLE["sources"]), case["list"], files=case.get("files"))
    assert str(raised.value) == case["error"].rstrip()
    assert raised.value.hint, "an error without a way out"


@pytest.mark.parametrize(
    "feature",
    [
        {"name": "f", "op": "bm25", "map": "user.prefs"},
        {"name": "f", "op": "id", "in": ["item.cate"], "encoder": {"hashBuckets": 3}},
        {"name": "f", "op": "id", "in": ["item.cate"], "encode": {"hashBuckets": 0}},
        {"name": "f", "op": "id", "in": ["cate"], "encode": {"hashBuckets": 3}},
        {"name": "1f", "op": "id", "in": ["item.cate"], "encode": {"hashBuckets": 3}},
        {"name": "f", "op": "window", "behavior": "clicks", "windows": ["1d"]},
        {"name": "f", "op": "window", "behavior": "clicks", "windows": ["1h"], "agg": "median"},
        {"name": "f", "op": "raw", "in": ["item.price"], "normalizer": {"kind": "box_cox"}},
    ],
)
def test_what_is_not_implemented_is_no_valid_spec(feature: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        FeatureSpec.model_validate({"sources": TABLE["sources"], "list": [feature]})
