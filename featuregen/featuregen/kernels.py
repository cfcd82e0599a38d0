"""The one compiled program: runs a table of operations over a table of columns, without the GIL.

Its cache on disk is keyed by the sources of all kernel modules (`_STAMP`), because numba by itself watches only this
file. A first use compiles for some seconds, later ones load in well under one.
"""

import hashlib
from pathlib import Path
from typing import Any

import numba as nb

from featuregen.kernels_events import run_select, run_sequence, run_window
from featuregen.kernels_ids import combo_capacity, run_combo, run_id
from featuregen.kernels_numbers import run_lookup, run_raw
from featuregen.layout import O_KIND, OP_COMBO, OP_COUNT, OP_ID, OP_LOOKUP, OP_RAW, OP_SELECT, OP_SEQUENCE, OP_WINDOW

_SOURCES = (
    "hash64",
    "layout",
    "kernels_memory",
    "kernels_hash",
    "kernels_columns",
    "kernels_ids",
    "kernels_numbers",
    "kernels_events",
    "kernels",
)


def _stamp() -> int:
    digest = hashlib.sha256()
    for name in _SOURCES:
        digest.update(Path(__file__).with_name(f"{name}.py").read_bytes())
    return int.from_bytes(digest.digest()[:4], "little")


def _program(stamp: int) -> Any:
    def run(operations: Any, columns: Any) -> int:
        result = nb.int64(0)
        for index in range(operations.shape[0]):
            operation = operations[index]
            kind = operation[O_KIND]
            if kind == OP_ID:
                run_id(operation, columns)
            elif kind == OP_RAW:
                run_raw(operation, columns)
            elif kind == OP_COMBO:
                run_combo(operation, columns)
            elif kind == OP_LOOKUP:
                run_lookup(operation, columns)
            elif kind == OP_SELECT:
                run_select(operation, columns)
            elif kind == OP_WINDOW:
                run_window(operation, columns)
            elif kind == OP_SEQUENCE:
                run_sequence(operation, columns)
            elif kind == OP_COUNT:
                result = combo_capacity(operation, columns)
            else:
                result = nb.int64(stamp)
        return result

    return run


def _compile() -> Any:
    """Compiles for one signature now, so that no request ever pays for it; without a cache if no folder is writable."""
    program, options = _program(_stamp()), {"nogil": True, "boundscheck": False, "error_model": "numpy"}
    signature = "int64(int64[:,::1], int64[:,::1])"
    try:
        return nb.njit(signature, cache=True, **options)(program)
    except RuntimeError as error:
        if "cannot cache" not in str(error):
            raise
        return nb.njit(signature, **options)(program)


run_program = _compile()
"""`run_program(operations int64[o, OPERATION_WIDTH], columns int64[c, COLUMN_WIDTH]) -> int64`: writes all outputs.

A single operation of kind OP_COUNT writes nothing and returns how many ids a combo may write.
"""
