"""The engine runs with numba and without it, and says which backend it took."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from featuregen.engine import Engine, choose_backend
from featuregen.errors import FeatureError
from tests.unit.featuregen.cases import plan_of

WITHOUT_NUMBA = """
import sys
sys.modules["numba"] = sys.modules["llvmlite"] = None

from random import Random

from featuregen.engine import Engine
from tests.unit.featuregen.cases import table_of
from tests.unit.featuregen.random_rows import random_rows
from tests.unit.featuregen.random_specs import FILES, OPERATORS, random_plan

rng = Random(5)
for case in range(30):
    plan, _ = random_plan(rng, list(OPERATORS))
    engine = Engine(plan, files=FILES)
    assert engine.backend == "numpy"
    assert engine.batch(table_of(plan, random_rows(rng, plan, 2))).rows == 2
try:
    Engine(plan, files=FILES, backend="numba")
except ValueError as error:
    print(error)
"""


def test_featuregen_runs_without_numba() -> None:
    root = Path(__file__).parents[3]
    ran = subprocess.run([sys.executable, "-c", WITHOUT_NUMBA], cwd=root, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    assert "numba is not installed\n  install it, or use FEATUREGEN_BACKEND=numpy" in ran.stdout


@pytest.mark.parametrize(
    ("argument", "variable", "chosen"),
    [("auto", None, "numba"), ("auto", "numpy", "numpy"), ("numba", "numpy", "numba"), ("numpy", None, "numpy")],
)
def test_an_argument_goes_before_the_environment(
    argument: Any, variable: str | None, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FEATUREGEN_BACKEND", raising=False)
    if variable:
        monkeypatch.setenv("FEATUREGEN_BACKEND", variable)
    plan = plan_of(
        {"user": {"key": "uid"}}, [{"name": "u", "op": "id", "in": ["user.uid"], "encode": {"hashBuckets": 3}}]
    )
    assert Engine(plan, backend=argument).backend == chosen


def test_another_backend_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEATUREGEN_BACKEND", "nunba")
    with pytest.raises(FeatureError, match=r"there is no backend 'nunba'.*\n.*did you mean 'numba'"):
        choose_backend("auto")
