"""The one compiled program: runs a table of operations, without the GIL.

A first use compiles for some seconds, later ones load it from a cache in about one.
"""

import numba as nb

from featuregen.compiled import compile_program
from featuregen.kernels import layout
from featuregen.kernels.arrow import release
from featuregen.kernels.combo import combo_capacity, run_combo
from featuregen.kernels.describe import run_describe
from featuregen.kernels.dot import run_kv_dot
from featuregen.kernels.events import run_select, run_window
from featuregen.kernels.expression import run_expr
from featuregen.kernels.index import run_index
from featuregen.kernels.lookup import run_lookup
from featuregen.kernels.match import run_match
from featuregen.kernels.memory import get
from featuregen.kernels.numbers import finish_numbers, run_combine, run_raw
from featuregen.kernels.overlap import run_overlap
from featuregen.kernels.sequence import run_sequence
from featuregen.kernels.sources import SOURCES
from featuregen.kernels.texts import run_id


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
        elif kind == layout.OP_RELEASE:
            release(get(op, layout.O_EXPORTS), get(op, layout.O_PART_COUNT))
        elif kind == layout.OP_COUNT_COMBO:
            result = combo_capacity(op)
        if get(op, layout.O_FOUND) != 0:
            finish_numbers(op)
    return result


run_program = compile_program(_run, "int64(int64, int64)", SOURCES)
"""`run_program(address, count) -> int64`: runs `count` rows of an operation table and writes all outputs.

The result is meant for a single operation of kind OP_COUNT_COMBO or OP_COUNT_MATCH, which writes nothing: the number of
ids, or numbers, that it may make.
"""
