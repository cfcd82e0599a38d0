"""The oracle: what every operator means, as plainly as Python can say it. One row of Python values in, one row out.

It is the normative text of the semantics: the kernels must agree with it bit for bit, and a doubt about an operator is
settled by reading this file. It is never used to train or to serve.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from ctypes import c_float

from featuregen.hash64 import HASHES, cross
from featuregen.plan import Encoder, Operation, Plan, Rescale

Row = Mapping[str, object]
Result = list[int] | list[float]


def compute_row(plan: Plan, row: Row) -> dict[str, Result]:
    """Computes every output of a plan for one sample.

    Args:
        plan: the plan.
        row: flat column name -> Python value. None, "" and [] are missing, and so is a column that is absent.
            Maps are dicts or sequences of pairs; of equal keys the last one counts.

    Returns:
        Output name -> ids (sparse, sequence; empty if missing), or float32 values (dense).
    """
    return {operation.output.name: _OPERATORS[operation.op](plan, operation, row) for operation in plan.operations}


def texts(value: object) -> list[str]:
    """Returns the non-missing values of an id-like field as texts: a whole number is its decimal text."""
    values = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    return [str(one) for one in values if one is not None and one != ""]


def encode(plan_hash: str, encoder: Encoder, text: str) -> int | None:
    """Returns the id of a non-empty text, None if the encoder does not take it (identity, out of range)."""
    if encoder.kind == "hash":
        return HASHES[plan_hash](text.encode()) % encoder.buckets
    if encoder.kind == "vocab":
        return dict(encoder.words).get(text, encoder.unknown)
    digits = text.isascii() and text.isdigit() and len(text) <= 18
    return int(text) if digits and int(text) < encoder.buckets else None


def default_id(plan_hash: str, encoder: Encoder, default: str | None) -> int | None:
    """Returns the id of a feature's default, None if it has none."""
    return None if default is None else encode(plan_hash, encoder, default)


def _id(plan: Plan, operation: Operation, row: Row) -> Result:
    encoder = _encoder(operation)
    encoded = (encode(plan.hash, encoder, text) for text in texts(row.get(operation.columns[0])))
    return _or_default(plan, operation, [one for one in encoded if one is not None])


def _combo(plan: Plan, operation: Operation, row: Row) -> Result:
    """Cartesian product; the first field is the outermost loop. Any field without a value: missing."""
    encoder = _encoder(operation)
    products: list[tuple[str, ...]] = [()]
    for column in operation.columns:
        products = [(*head, text) for head in products for text in texts(row.get(column))]
    hash64 = HASHES[plan.hash]
    if operation.mix:
        ids = [cross([hash64(text.encode()) for text in parts]) % encoder.buckets for parts in products]
    else:
        ids = [hash64("_".join(parts).encode()) % encoder.buckets for parts in products]
    return _or_default(plan, operation, ids)


def _or_default(plan: Plan, operation: Operation, ids: list[int]) -> Result:
    default = default_id(plan.hash, _encoder(operation), operation.default_text)
    return [default] if not ids and default is not None else ids


def _encoder(operation: Operation) -> Encoder:
    assert operation.encoder is not None, operation.output.name
    return operation.encoder


def float32(value: float) -> float:
    """Returns a float64 rounded once to float32 (overflow gives infinity)."""
    return c_float(value).value


def _rescale(rescale: Rescale | None, x: float) -> float:
    if rescale is None:
        return x
    if rescale.kind == "log10":
        return math.log10(x) if x > rescale.a else rescale.b
    if rescale.kind == "zscore":
        return (x - rescale.a) / rescale.b
    return (x - rescale.a) / (rescale.b - rescale.a)


def _number(operation: Operation, x: float | None) -> Result:
    """Rescales a value, or takes the default as it is; then counts the boundaries that are <= it."""
    default = operation.default_numbers[0] if operation.default_numbers else None
    x = default if x is None else _rescale(operation.rescale, x)
    if operation.boundaries is None:
        return [float32(x if x is not None else 0.0)]
    return [] if x is None else [sum(boundary <= x for boundary in operation.boundaries)]


def _finite(value: object) -> float | None:
    """Returns a number as float64; null and NaN are missing."""
    if not isinstance(value, int | float) or math.isnan(value):
        return None
    return float(value)


def _raw(plan: Plan, operation: Operation, row: Row) -> Result:
    return _number(operation, _finite(row.get(operation.columns[0])))


def _lookup(plan: Plan, operation: Operation, row: Row) -> Result:
    entries = row.get(operation.columns[0])
    pairs: Iterable[tuple[str, object]] = entries.items() if isinstance(entries, Mapping) else _pairs(entries)
    last = dict(pairs)
    matched = [_finite(last.get(text)) for text in texts(row.get(operation.columns[1]))]
    values = [value for value in matched if value is not None]
    return _number(operation, _combine(operation.combiner, values) if values else None)


def _pairs(entries: object) -> list[tuple[str, object]]:
    return list(entries) if isinstance(entries, Sequence) and not isinstance(entries, str) else []


def _combine(combiner: str, values: list[float]) -> float:
    if combiner == "count":
        return float(len(values))
    result = values[0]
    for value in values[1:]:
        if combiner in ("sum", "mean"):
            result += value
        elif value < result if combiner == "min" else value > result:
            result = value
    return result / len(values) if combiner == "mean" else result


def visible_events(plan: Plan, operation: Operation, row: Row) -> list[tuple[int, int]]:
    """Returns (position in the list, ts) of the events a feature may see, oldest first.

    In this order: events with ts < now; of those the last `maxEvents` as they arrived; no older than `maxAge`; of the
    actions that are asked for. The request's own event (ts == now) is never seen.
    """
    behavior, now = plan.behaviors[operation.behavior], row["now"]
    assert isinstance(now, int), "now is int64 milliseconds"
    stamps = _values(row.get(f"behavior.{behavior.name}.ts"))
    actions = event_attribute(row, behavior.name, "action")
    before = [(at, ts) for at, ts in enumerate(stamps) if isinstance(ts, int) and ts < now]
    kept = before[-behavior.max_events :]
    fresh = [(at, ts) for at, ts in kept if ts >= now - behavior.max_age_ms]
    return [(at, ts) for at, ts in fresh if not operation.actions or actions[at] in operation.actions]


def _values(value: object) -> list[object]:
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else []


def event_attribute(row: Row, behavior: str, attribute: str) -> list[object]:
    """Returns an attribute of each event; a list not as long as `ts` is not aligned: all missing."""
    events = len(_values(row.get(f"behavior.{behavior}.ts")))
    values = _values(row.get(f"behavior.{behavior}.{attribute}"))
    return values if len(values) == events else [None] * events


def _window(plan: Plan, operation: Operation, row: Row) -> Result:
    """Counts events with now - w <= ts < now; with `by` only those whose attribute equals the candidate's."""
    now = row["now"]
    assert isinstance(now, int), "now is int64 milliseconds"
    events = visible_events(plan, operation, row)
    if operation.columns:
        event_column, candidate_column = operation.columns
        candidate = row.get(candidate_column)
        attributes = event_attribute(row, operation.behavior, event_column.rsplit(".", 1)[1])
        missing = candidate is None or candidate == ""
        events = [] if missing else [event for event in events if attributes[event[0]] == candidate]
    return [float(sum(ts >= now - window for _, ts in events)) for window in operation.windows_ms]


def _sequence(plan: Plan, operation: Operation, row: Row) -> Result:
    """Encodes the newest `length` events, oldest first; a missing element is the default (fields stay aligned)."""
    encoder = _encoder(operation)
    default = default_id(plan.hash, encoder, operation.default_text)
    assert default is not None, operation.output.name
    attributes = event_attribute(row, operation.behavior, operation.columns[0].rsplit(".", 1)[1])
    ids = []
    for at, _ in visible_events(plan, operation, row)[-operation.output.length :]:
        found = [encode(plan.hash, encoder, text) for text in texts(attributes[at])]
        ids.append(default if not found or found[0] is None else found[0])
    return ids


_OPERATORS = {"id": _id, "raw": _raw, "combo": _combo, "lookup": _lookup, "window": _window, "sequence": _sequence}
