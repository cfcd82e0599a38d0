"""The examples of docs/features.md compute what the page says."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from featuregen.engine import Engine
from featuregen.errors import FeatureError
from featuregen.oracle import compute_row
from tests.unit.featuregen.cases import plan_of, row_of, table_of

PAGE = (Path(__file__).parents[3] / "docs/features.md").read_text()
SOURCES = yaml.safe_load(re.search(r"```yaml\n(sources:.*?)```", PAGE, re.S).group(1))["sources"]  # type: ignore[union-attr]
EXAMPLES = re.findall(r"```yaml\n(- .*?)```\n```\n(.*?)```", PAGE, re.S)


def test_every_operator_has_an_example() -> None:
    shown = {feature["op"] for spec, _ in EXAMPLES for feature in yaml.safe_load(spec)}
    assert shown == {"id", "raw", "combo", "lookup", "window", "sequence"}


@pytest.mark.parametrize(("spec", "lines"), EXAMPLES, ids=lambda text: str(text).split()[2].rstrip(",")[:20])
def test_example(spec: str, lines: str) -> None:
    plan = plan_of(SOURCES, yaml.safe_load(spec))
    pairs = [line.split(" -> ") for line in lines.strip().split("\n")]
    rows: list[dict[str, Any]] = [{"now": 0} | json.loads(given) for given, _ in pairs]
    features = Engine(plan).batch(table_of(plan, rows))
    for index, (_, expected) in enumerate(pairs):
        wanted = {name: pytest.approx(value, rel=1e-6) for name, value in json.loads(expected).items()}
        assert compute_row(plan, rows[index]) == wanted
        assert row_of(features, index) == compute_row(plan, rows[index])


def test_the_refusal_that_the_page_shows() -> None:
    shown = re.search(r"```\n(feature 'cate'.*?)\n```", PAGE, re.S).group(1)  # type: ignore[union-attr]
    with pytest.raises(FeatureError) as raised:
        plan_of(SOURCES, [{"name": "cate", "op": "id", "in": ["item.catte"], "encode": {"hashBuckets": 10}}])
    assert str(raised.value) == shown
