"""The one compiled program: runs a table of operations, without the GIL.

A first use compiles for some seconds, later ones load it from a cache in about one.
"""

from pathlib import Path

import numba as nb

from featuregen import layout
from featuregen.compiled import compile_program
from featuregen.kernels_combo import combo_capacity, run_combo
from featuregen.kernels_describe import run_describe
from featuregen.kernels_dot import run_kv_dot
from featuregen.kernels_events import run_select, run_window
from featuregen.kernels_expression import run_expr
from featuregen.kernels_index import run_index
from featuregen.kernels_lookup import run_lookup
from featuregen.kernels_match import run_match
from featuregen.kernels_memory import get
from featuregen.kernels_numbers import finish_numbers, run_combine, run_raw
from featuregen.kernels_overlap import run_overlap
from featuregen.kernels_sequence import run_sequence
from featuregen.kernels_texts import run_id

_SOURCES = (
    "compiled",
    "hash64",
    "expression",
    "layout",
    *sorted(path.stem for path in Path(__file__).parent.glob("kernels*.py")),
)


def _run(operations: int, count: int) -> int:
    result = nb.int64(0)
    for index in range(count):
        op = operations + 8 * layout.OPERATION_WIDTH * index
        kind = get(op, layout.O_KIND)
        if kind == layout.OP_ID:
            run_id(op)
        elif kind == layout.OP_COMBO:
            run_combo(op)
        elif kind == layout.OP_RAW:
            run_raw(op)
        elif kind == layout.OP_COMBINE:
            run_combine(op)
        elif kind == layout.OP_LOOKUP:
            run_lookup(op)
        elif kind == layout.OP_MATCH or kind == layout.OP_COUNT_MATCH:
            result = run_match(op)
        elif kind == layout.OP_EXPR:
            run_expr(op)
        elif kind == layout.OP_OVERLAP:
            run_overlap(op)
        elif kind == layout.OP_KV_DOT:
            run_kv_dot(op)
        elif kind == layout.OP_WINDOW:
            run_window(op)
        elif kind == layout.OP_SEQUENCE:
            run_sequence(op)
        elif kind == layout.OP_SELECT:
            run_select(op)
        elif kind == layout.OP_INDEX:
            run_index(op)
        elif kind == layout.OP_DESCRIBE:
            run_describe(op)
        elif kind == layout.OP_COUNT_COMBO:
            result = combo_capacity(op)
        if get(op, layout.O_FOUND) != 0:
            finish_numbers(op)
    return result


run_program = compile_program(
    _run, "int64(int64, int64)", [Path(__file__).with_name(f"{name}.py") for name in _SOURCES]
)
"""`run_program(address, count) -> int64`: runs `count` rows of an operation table and writes all outputs.

The result is meant for a single operation of kind OP_COUNT_COMBO or OP_COUNT_MATCH, which writes nothing: the number of
ids, or numbers, that it may make.
"""
