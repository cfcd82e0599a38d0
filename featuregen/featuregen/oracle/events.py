"""What window and sequence mean: which events are visible, what is added up over them, what their elements are."""

from collections.abc import Sequence

from featuregen.oracle.expression import evaluate, read_variables
from featuregen.oracle.values import (
    Context,
    Number,
    Row,
    combine,
    elements,
    encode_default,
    encode_text,
    number,
    number_tail,
    numbers,
    texts,
)
from featuregen.plan import Operation

Sequenced = list[int] | list[list[int]] | list[float] | list[list[float]]


def visible_events(context: Context, operation: Operation, row: Row) -> list[tuple[int, int]]:
    """Returns (position in the list, ts) of the events a feature may see, oldest first.

    In this order: events with ts < now; of those the last `maxEvents` as they arrived; no older than `maxAge`; of the
    actions that are asked for. The request's own event (ts == now) is never seen.
    """
    behavior, now = context.plan.behaviors[operation.behavior], _now(row)
    stamps = elements(row.get(f"behavior.{behavior.name}.ts"))
    actions = event_values(row, f"behavior.{behavior.name}.action")
    before = [(at, ts) for at, ts in enumerate(stamps) if isinstance(ts, int) and ts < now]
    kept = before[-behavior.max_events :]
    fresh = [(at, ts) for at, ts in kept if ts >= now - behavior.max_age_ms]
    return [(at, ts) for at, ts in fresh if not operation.actions or actions[at] in operation.actions]


def _now(row: Row) -> int:
    now = row["now"]
    assert isinstance(now, int), "now is int64 milliseconds"
    return now


def event_values(row: Row, column: str) -> list[object]:
    """Returns a field of each event; a list that is not as long as `ts` is not aligned: all missing."""
    events = len(elements(row.get(column.rpartition(".")[0] + ".ts")))
    values = elements(row.get(column))
    return values if len(values) == events else [None] * events


def window(context: Context, operation: Operation, row: Row) -> list[Number]:
    """Aggregates events with now - w <= ts < now; with `by` only those whose attribute equals the candidate's.

    `count` counts events, the others are of their numbers; an event without a number takes no part. The sum of a
    window is that of the next smaller one plus the sum of the numbers that only the larger one has, oldest first.
    """
    events = visible_events(context, operation, row)
    if operation.columns:
        event_column, candidate_column = operation.columns
        candidate = row.get(candidate_column)
        attributes = event_values(row, event_column)
        missing = candidate is None or candidate == ""
        events = [] if missing else [event for event in events if attributes[event[0]] == candidate]
    if operation.method == "count":
        return [float(sum(ts >= _now(row) - length for _, ts in events)) for length in operation.windows_ms]
    values = event_values(row, operation.value_column)
    known = [(ts, x) for at, ts in events if (x := number(values[at])) is not None]
    return _aggregate(operation, known, _now(row))


def _aggregate(operation: Operation, known: Sequence[tuple[int, float]], now: int) -> list[Number]:
    results: list[Number] = []
    total, shorter = 0.0, 0
    for length in operation.windows_ms:
        inside = [x for ts, x in known if ts >= now - length]
        added = 0.0
        for x in [x for ts, x in known if now - length <= ts < now - shorter]:
            added += x
        total, shorter = total + added, length
        if operation.method == "sum":
            results.append(number(total) or 0.0)
        elif operation.method == "avg":
            results.append(number(total / len(inside)) if inside else None)
        elif operation.method == "last":
            results.append(inside[-1] if inside else None)
        else:
            results.append(combine(operation.method, inside))
    return results


def sequence(context: Context, operation: Operation, row: Row) -> Sequenced:
    """Element by element: the newest `length` events, or the first `length` elements of lists; fields stay aligned."""
    length = operation.output.length
    if operation.behavior:
        places = [at for at, _ in visible_events(context, operation, row)[-length:]]
    else:
        places = list(range(len(elements(row.get(operation.aligned)))))[:length]
    if operation.program is not None:
        values = _expression(operation, row, places)
    else:
        values = [_all_elements(operation, row, operation.columns[0])[at] for at in places]
    if not values and operation.pad_empty:
        values = [None]
    if operation.encoder is not None:
        return _encoded(context, operation, values)
    return _numbers(operation, values)


def _all_elements(operation: Operation, row: Row, column: str) -> list[object]:
    """Returns every element of a field; a list of another length than the others is missing as a whole."""
    if operation.behavior:
        return event_values(row, column)
    count, values = len(elements(row.get(operation.aligned))), elements(row.get(column))
    return values if len(values) == count else [None] * count


def _expression(operation: Operation, row: Row, places: Sequence[int]) -> list[object]:
    """A number for each element; missing if a variable that the expression reads is missing."""
    program = operation.program
    assert program is not None
    read, _ = read_variables(program)
    columns = [_variable(operation, row, column) for column in operation.columns]
    results: list[object] = []
    for at in places:
        element = [values if not isinstance(values, list) else number(values[at]) for values in columns]
        if any(element[variable] is None for variable in read):
            results.append(None)
        else:
            results.append(number(evaluate(program, [0.0 if x is None else x for x in element])))
    return results


def _variable(operation: Operation, row: Row, column: str) -> Number | list[object]:
    """Returns a number that holds for every element, or one for each."""
    value = row.get(column)
    is_list = isinstance(value, Sequence) and not isinstance(value, str)
    return _all_elements(operation, row, column) if is_list else number(value)


def _encoded(context: Context, operation: Operation, values: Sequence[object]) -> list[int] | list[list[int]]:
    """Ids of each element; an element without one is the default."""
    default = encode_default(context, operation)
    assert default is not None, operation.output.name
    ids = []
    for value in values:
        found = [one for text in texts(value) if (one := encode_text(context, operation, text)) is not None]
        ids.append(found or [default])
    return ids if operation.output.multi else [found[0] for found in ids]


def _numbers(operation: Operation, values: Sequence[object]) -> list[int] | list[float] | list[list[float]]:
    """Numbers of each element; a vector of another length than `dim` is missing as a whole."""
    results = []
    for value in values:
        found = numbers(value)
        results.append(number_tail(operation, found if len(found) == operation.dim else [None] * operation.dim))
    if operation.dim > 1:
        return [[float(x) for x in vector] for vector in results]
    return [vector[0] for vector in results]
