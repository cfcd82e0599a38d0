"""Random specs over random rows: oracle, NumPy and numba give the same bits, in batches and in rankings.

Twice: seeded cases, which are the same whenever they are run and spread over processes, and Hypothesis, which looks for
the smallest case that fails. `FEATUREGEN_EXAMPLES` is the number of seeded cases, a quarter as many are Hypothesis's;
`make test-fuzz` runs thousands of both.
"""

import os
import struct
from random import Random
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis.strategies import randoms

from featuregen.engine import Backend, Engine, Features
from featuregen.oracle import compute_row
from featuregen.plan import Plan
from tests.unit.featuregen.cases import plan_of, request_of, row_of, table_of
from tests.unit.featuregen.random_rows import random_rows
from tests.unit.featuregen.random_specs import FILES, OPERATORS, random_plan

CASES = int(os.environ.get("FEATUREGEN_EXAMPLES", "160"))
BACKENDS: tuple[Backend, ...] = ("numpy", "numba")
BLOCK = 40
GROUPS = (
    ["id", "combo", "bool_mask"],
    ["raw", "combine"],
    ["expr"],
    ["lookup", "match", "kv_dot"],
    ["overlap"],
    ["tokenize", "text_normalizer", "regex_replace", "str_slice", "str_format", "custom"],
    ["window"],
    ["sequence"],
    list(OPERATORS),
    list(OPERATORS),
)


@pytest.mark.parametrize("block", range(0, CASES, BLOCK))
def test_oracle_batch_and_rank_agree_bit_for_bit(block: int) -> None:
    for case in range(block, block + BLOCK):
        rng = Random(case)
        plan, spec = random_plan(rng, GROUPS[case % len(GROUPS)])
        rows, others = random_rows(rng, plan, 3), random_rows(rng, plan, 1)
        try:
            _check(plan, rows, others, rng.randrange(3))
        except Exception as error:
            error.add_note(f"case {case}: {spec.features}")
            raise


@pytest.mark.parametrize("group", range(len(GROUPS)))
def test_hypothesis_finds_no_smallest_case_where_they_differ(group: int) -> None:
    @settings(max_examples=max(CASES // 4 // len(GROUPS), 1), deadline=None, suppress_health_check=list(HealthCheck))
    @given(randoms(use_true_random=False))
    def check(rng: Random) -> None:
        plan, spec = random_plan(rng, GROUPS[group])
        note(f"{spec.features}")
        _check(plan, random_rows(rng, plan, 3), random_rows(rng, plan, 1), rng.randrange(3))

    check()


@pytest.mark.parametrize("case", range(8))
def test_many_candidates_are_ranked_as_a_few_are(case: int) -> None:
    rng = Random(-case)
    plan, _ = random_plan(rng, list(OPERATORS))
    rows = random_rows(rng, plan, 400)
    expected = {index: compute_row(plan, rows[index], files=FILES) for index in (0, 7, 211, 399)}
    for backend in BACKENDS:
        ranked = Engine(plan, files=FILES, backend=backend).rank(**request_of(plan, rows[0], rows))
        for index, wanted in expected.items():
            _compare(ranked, index, wanted, rows[index], f"{backend} rank")


FUNCTIONS = "sin cos tan asin acos atan sinh cosh tanh asinh acosh atanh log2 log10 log exp sqrt sigmoid".split()
TERMS = [f"{name}(x)" for name in FUNCTIONS] + [
    "x ^ 1.7",
    "haversine(x, 1, 2, x)",
    "sphere_dist(x, 1, 2, x)",
    "roundp(x, 9)",
]
TERMS += ["feature_log10"]


def test_functions_agree_in_bits_that_no_float32_shows() -> None:
    """The fraction of 1e12 times a float64 has its last bits."""
    sources = {"item": {"key": "iid", "fields": {"x": "float"}}}
    logarithm = {"name": "feature_log10", "op": "raw", "in": ["item.x"], "normalizer": {"kind": "log10"}, "stub": True}
    features = [
        {"name": f"f{index}", "op": "expr", "in": ["item.x", "feature.feature_log10"], "expr": f"mod({term} * 1e12, 1)"}
        for index, term in enumerate(TERMS)
    ]
    plan = plan_of(sources, [logarithm, *features])
    rng = Random(3)
    rows = [{"item.x": rng.uniform(0, limit)} for limit in (1, 5, 100) for _ in range(150)]
    for backend in BACKENDS:
        batch = Engine(plan, backend=backend).batch(table_of(plan, rows))
        for index, row in enumerate(rows):
            _compare(batch, index, compute_row(plan, row), row, backend)


def _check(plan: Plan, rows: list[dict[str, Any]], others: list[dict[str, Any]], skipped: int) -> None:
    """Compares a batch of two users, a slice of a larger one, and a ranking of the first user."""
    samples = rows + others
    expected = [compute_row(plan, row, files=FILES) for row in samples]
    table = table_of(plan, samples)
    twice = pa.concat_tables([table, table]).combine_chunks()
    for backend in BACKENDS:
        engine = Engine(plan, files=FILES, backend=backend)
        batch, part = engine.batch(table), engine.batch(twice.slice(skipped, 4))
        for index in range(4):
            at = (skipped + index) % 4
            _compare(batch, index, expected[index], samples[index], f"{backend} batch")
            _compare(part, index, expected[at], samples[at], f"{backend} slice")
        ranked = engine.rank(**request_of(plan, rows[0], rows))
        for index in range(3):
            _compare(ranked, index, expected[index], rows[index], f"{backend} rank")
        for output in plan.outputs:
            assert ranked.columns[output.name].rows == (1 if output.side == "user" else 3)


def _compare(found: Features, index: int, expected: dict[str, Any], row: dict[str, Any], where: str) -> None:
    computed = row_of(found, index)
    assert computed.keys() == expected.keys()
    for name, value in expected.items():
        assert _bits(computed[name]) == _bits(value), f"{where}: {name} is {computed[name]}, not {value}, of {row}"


def _bits(value: Any) -> Any:
    """Floats as their float32 bits, so that -0.0 and infinities are compared exactly."""
    if isinstance(value, list | tuple):
        return [_bits(one) for one in value]
    return struct.pack("<f", value).hex() if isinstance(value, float) else value
