"""The values of operators in NumPy: an operation and columns in, texts or numbers of each row out.

One function for each operator, all over whole columns; the tails that make outputs of values are `program`, and
`derivations` makes columns of them. Written from the contract, apart from the oracle and from the kernels: three
independent readings of it that must agree bit for bit.
"""

from collections.abc import Callable

from featuregen.plan import Operation, Plan
from featuregen.vectors.columns import Reader, Texts
from featuregen.vectors.events import window
from featuregen.vectors.expression import expression
from featuregen.vectors.ids import combo_texts
from featuregen.vectors.maps import Several, kv_dot, lookup, match
from featuregen.vectors.numbers import combine, raw
from featuregen.vectors.sequences import Sequence, sequence
from featuregen.vectors.spans import Floats
from featuregen.vectors.words import overlap

Value = Texts | Floats | Several | Sequence
"""Texts, numbers (float64[rows, dim], NaN is missing), several numbers that are kept apart, or the elements of rows."""

_OF_COLUMNS: dict[str, Callable[[Reader, Operation, int], Value]] = {
    "raw": raw,
    "combo": combo_texts,
    "combine": combine,
    "lookup": lookup,
    "match": match,
    "expr": expression,
    "overlap": overlap,
    "kv_dot": kv_dot,
}


def compute_value(reader: Reader, plan: Plan, operation: Operation, rows: int) -> Value:
    """Returns the value of an operation for each row; not of those that are columns only (`text`)."""
    if operation.op == "id":
        return reader.texts(operation.columns[0], rows)
    if operation.op == "window":
        return window(reader, plan, operation, rows)
    if operation.op == "sequence":
        return sequence(reader, plan, operation, rows)
    return _OF_COLUMNS[operation.op](reader, operation, rows)
