"""Random specs over random rows: oracle, NumPy and numba give the same bits, in batches and in rankings.

`FEATUREGEN_EXAMPLES` is the number of cases; `make test-fuzz` runs thousands. A case is the same whenever it is run.
"""

import os
import struct
from random import Random
from typing import Any

import pyarrow as pa
import pytest

from featuregen.engine import Backend, Engine, Features
from featuregen.oracle import compute_row
from featuregen.plan import Plan
from tests.unit.featuregen.cases import request_of, row_of, table_of
from tests.unit.featuregen.random_rows import random_rows
from tests.unit.featuregen.random_specs import FILES, OPERATORS, random_plan

CASES = int(os.environ.get("FEATUREGEN_EXAMPLES", "160"))
BACKENDS: tuple[Backend, ...] = ("numpy", "numba")
BLOCK = 40
GROUPS = (
    ["id", "combo", "bool_mask"],
    ["raw", "combine", "expr"],
    ["lookup", "match", "kv_dot"],
    ["overlap", "tokenize", "text_normalizer", "regex_replace", "str_slice", "str_format", "custom"],
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


def _check(plan: Plan, rows: list[dict[str, Any]], others: list[dict[str, Any]], skipped: int) -> None:
    """Compares a batch of two users, a slice of a larger one, and a ranking of the first user."""
    expected = [compute_row(plan, row, files=FILES) for row in rows + others]
    table = table_of(plan, rows + others)
    twice = pa.concat_tables([table, table]).combine_chunks()
    for backend in BACKENDS:
        engine = Engine(plan, files=FILES, backend=backend)
        _compare(engine.batch(table), expected, rows + others, f"{backend} batch")
        part = engine.batch(twice.slice(skipped, 4))
        _compare(part, (expected * 2)[skipped : skipped + 4], ((rows + others) * 2)[skipped:], f"{backend} slice")
        ranked = engine.rank(**request_of(plan, rows[0], rows))
        _compare(ranked, expected[:3], rows, f"{backend} rank")
        for output in plan.outputs:
            assert ranked.columns[output.name].rows == (1 if output.side == "user" else 3)


def _compare(found: Features, expected: list[dict[str, Any]], rows: list[dict[str, Any]], where: str) -> None:
    for index, wanted in enumerate(expected):
        row = row_of(found, index)
        assert row.keys() == wanted.keys()
        for name, value in wanted.items():
            assert _bits(row[name]) == _bits(value), f"{where}: {name} is {row[name]}, not {value}, of {rows[index]}"


def _bits(value: Any) -> Any:
    """Floats as their float32 bits, so that -0.0 and infinities are compared exactly."""
    if isinstance(value, list | tuple):
        return [_bits(one) for one in value]
    return struct.pack("<f", value).hex() if isinstance(value, float) else value
