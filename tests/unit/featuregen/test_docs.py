"""The examples of docs/features.md and of every operator's page compute what the pages say."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from featuregen.engine import Engine
from featuregen.errors import FeatureError
from featuregen.oracle import compute_row
from featuregen.spec import Op
from tests.unit.featuregen.cases import plan_of, row_of, table_of

DOCS = Path(__file__).parents[3] / "docs"
FILES = DOCS / "features/files"
PAGES = [DOCS / "features.md", *sorted((DOCS / "features").glob("*.md"))]


def _examples() -> Iterator[tuple[str, dict[str, Any], str, str]]:
    """Yields (page, sources and files, features, lines of `input -> output`)."""
    for page in PAGES:
        text = page.read_text()
        found = re.search(r"```yaml\n(sources:.*?)```", text, re.S)
        assert found, f"{page.name} has no sources"
        for spec, lines in re.findall(r"```yaml\n(- .*?)```\n```\n(.*?)```", text, re.S):
            yield page.stem, yaml.safe_load(found.group(1)), spec, lines


EXAMPLES = list(_examples())


def test_every_operator_has_a_page_and_the_index_names_it() -> None:
    operators = {op.value for op in Op}
    assert {page.stem for page in PAGES[1:]} == operators
    assert set(re.findall(r"\(features/(\w+)\.md\)", PAGES[0].read_text())) == operators


@pytest.mark.parametrize("page", PAGES[1:], ids=lambda page: page.stem)
def test_a_page_shows_its_operator(page: Path) -> None:
    assert page.stem in {
        feature["op"] for name, _, spec, _ in EXAMPLES if name == page.stem for feature in yaml.safe_load(spec)
    }


@pytest.mark.parametrize(("page", "head", "spec", "lines"), EXAMPLES, ids=lambda value: str(value)[:24])
def test_example(page: str, head: dict[str, Any], spec: str, lines: str) -> None:
    plan = plan_of(head["sources"], yaml.safe_load(spec), files=head.get("files", {}))
    pairs = [line.split(" -> ") for line in lines.strip().split("\n")]
    rows: list[dict[str, Any]] = [{"now": 0} | json.loads(given) for given, _ in pairs]
    table = table_of(plan, rows)
    results = [Engine(plan, files=FILES, backend=backend).batch(table) for backend in ("numba", "numpy")]
    for index, (_, expected) in enumerate(pairs):
        computed = compute_row(plan, rows[index], files=FILES)
        assert computed == {name: _approximately(value) for name, value in json.loads(expected).items()}
        for features in results:
            assert row_of(features, index) == computed


def _approximately(value: Any) -> Any:
    """Pages show numbers rounded, and the pairs of weighted ids as lists."""
    if value and isinstance(value[0], list):
        pairs = isinstance(value[0][-1], float)
        return [tuple(pytest.approx(one, rel=1e-5) for one in pair) for pair in value] if pairs else value
    return pytest.approx(value, rel=1e-5)


def test_the_refusal_that_the_page_shows() -> None:
    shown = re.search(r"```\n(feature 'cate'.*?)\n```", PAGES[0].read_text(), re.S)
    wrong = {"name": "cate", "op": "id", "in": ["item.catte"], "encode": {"hashBuckets": 10}}
    with pytest.raises(FeatureError) as raised:
        plan_of(EXAMPLES[0][1]["sources"], [wrong])
    assert shown and str(raised.value) == shown.group(1)
