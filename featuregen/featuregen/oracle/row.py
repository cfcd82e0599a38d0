"""The oracle: what every operator means, as plainly as Python can say it. One row of Python values in, one row out.

With the modules beside it (`values`: tails, `expression`, `numbers`, `texts`, `events`) it is the normative text of the
semantics: the engines must agree with it bit for bit, and a doubt about an operator is settled by reading it. It is
never used to train or to serve.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from featuregen.hash64 import HASHES, cross
from featuregen.oracle.events import sequence, window
from featuregen.oracle.numbers import combine_values, expr, kv_dot, lookup, match, overlap, raw
from featuregen.oracle.texts import (
    bool_mask,
    combo,
    custom,
    regex_replace,
    str_format,
    str_slice,
    text_normalizer,
    tokenize,
)
from featuregen.oracle.values import (
    Context,
    Number,
    Row,
    encode_default,
    encode_text,
    encoder_of,
    entries,
    float32,
    number,
    number_tail,
    numbers,
    text_tail,
    texts,
    with_defaults,
)
from featuregen.plan import Derivation, Operation, Plan
from featuregen.sources import FieldType

__all__ = ["Result", "compute_row"]

Result = list[Any]
_NUMBERS: dict[str, Callable[[Operation, Row], list[Number] | list[str]]] = {
    "raw": raw,
    "combine": combine_values,
    "lookup": lookup,
    "match": match,
    "expr": expr,
    "overlap": overlap,
    "kv_dot": kv_dot,
}
_COLUMNS: dict[str, Callable[[Context, Operation, Row], object]] = {
    "bool_mask": bool_mask,
    "tokenize": tokenize,
    "text_normalizer": text_normalizer,
    "regex_replace": regex_replace,
    "str_format": str_format,
    "str_slice": str_slice,
    "custom": custom,
}


def compute_row(plan: Plan, row: Row, files: str | Path | None = None) -> dict[str, Result]:
    """Computes every output of a plan for one sample.

    Args:
        plan: the plan.
        row: flat column name -> Python value. None, "" and [] are missing, and so is a column that is absent.
            Maps are dicts or sequences of pairs; of equal keys the last one counts.
        files: folder of the plan's files.

    Returns:
        Output name -> ids, or float32 values. Weighted ids are (id, weight); an element of a multi-value sequence is a
        list of ids; an element of a sequence of numbers is a number, or a list of `width` numbers.
    """
    context = Context.of(plan, files)
    known: dict[str, object] = dict(row)
    for derivation in plan.derivations:
        known[derivation.column.name] = _derive(context, derivation, known)
    return {operation.output.name: _compute(context, operation, known) for operation in plan.operations}


def _derive(context: Context, derivation: Derivation, row: Row) -> object:
    """The value of a feature: numbers after rescale and default, texts as they are."""
    operation = derivation.operation
    if operation.op == "combo":
        return ["_".join(parts) for parts in combo(operation, row)]
    found: Any = _COLUMNS[operation.op](context, operation, row) if operation.op in _COLUMNS else None
    if operation.op == "window":
        found = window(context, operation, row)
    elif operation.op in _NUMBERS:
        found = _NUMBERS[operation.op](operation, row)
    if derivation.column.type not in (FieldType.FLOAT, FieldType.FLOAT_LIST) or not operation.output.width:
        return found
    values = numbers(found)
    values = with_defaults(operation, values if len(values) == operation.dim else [None] * operation.dim)
    return values[0] if derivation.column.type is FieldType.FLOAT else values


def _compute(context: Context, operation: Operation, row: Row) -> Result:
    if operation.op == "id":
        return _weighted(context, operation, row) if operation.output.weighted else _id(context, operation, row)
    if operation.op == "combo":
        return _combo(context, operation, row)
    if operation.op == "sequence":
        return list(sequence(context, operation, row))
    if operation.op == "window":
        return list(number_tail(operation, window(context, operation, row)))
    found: Any = _NUMBERS[operation.op](operation, row)
    if operation.op in ("lookup", "match") and operation.encoder is not None:
        return list(text_tail(context, operation, found))
    if operation.combiner == "none":  # each number by itself
        return [one for x in found or [None] for one in number_tail(operation, [x])]
    return list(number_tail(operation, found))


def _id(context: Context, operation: Operation, row: Row) -> Result:
    return list(text_tail(context, operation, texts(row.get(operation.columns[0]))))


def _weighted(context: Context, operation: Operation, row: Row) -> Result:
    """Ids of a map's keys with their numbers as weights; an entry without a number, and the default, weigh 1."""
    found = []
    for key, value in entries(row.get(operation.columns[0])):
        one, weight = encode_text(context, operation, key), number(value)
        if one is not None:
            found.append((one, 1.0 if weight is None else float32(weight)))
    default = encode_default(context, operation)
    return [(default, 1.0)] if not found and default is not None else found


def _combo(context: Context, operation: Operation, row: Row) -> Result:
    """Ids of the joined texts; `mix` hashes each text and mixes the hashes."""
    products = combo(operation, row)
    if not operation.mix:
        return list(text_tail(context, operation, ["_".join(parts) for parts in products]))
    hash64, buckets = HASHES[context.plan.hash], encoder_of(operation).buckets
    ids = [cross([hash64(text.encode()) for text in parts]) % buckets for parts in products]
    default = encode_default(context, operation)
    return [default] if not ids and default is not None else ids
