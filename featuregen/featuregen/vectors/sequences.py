"""sequence in NumPy: the elements of each row, and the texts or numbers that each element has."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from featuregen.expression import Code
from featuregen.plan import Operation, Plan
from featuregen.vectors.columns import Reader, Texts, lists_of, numbers_of, texts_of
from featuregen.vectors.events import attribute, visible_events
from featuregen.vectors.expression import evaluate
from featuregen.vectors.numbers import whole_vectors
from featuregen.vectors.spans import Floats, Ints, Spans, spans_of_lengths, spans_of_rows


@dataclass(frozen=True, slots=True)
class Sequence:
    """The elements of each row one after the other, and what each of them has: texts, or `dim` numbers."""

    spans: Spans
    values: Texts | Floats


@dataclass(frozen=True, slots=True)
class _Elements:
    """Where elements come from.

    Attributes:
        spans: the elements of each row.
        row: of each element.
        position: of each element in the row's lists; -1 of one that only fills an empty sequence.
        ts: of each element of a behaviour.
        length: of each row, how long its lists must be to be aligned.
    """

    spans: Spans
    row: Ints
    position: Ints
    ts: Ints | None
    length: Ints


def sequence(reader: Reader, plan: Plan, operation: Operation, rows: int) -> Sequence:
    """Returns the elements of each row: the newest visible events, or the first elements of the row's lists."""
    elements = _of_events(reader, plan, operation, rows) if operation.behavior else _of_lists(reader, operation, rows)
    if operation.pad_empty:
        elements = _padded(elements)
    if operation.program is not None:
        return Sequence(elements.spans, _computed(reader, operation, elements, rows))
    index, values = _attribute(reader, operation.columns[0], elements, rows)
    if operation.encoder is not None:
        return Sequence(elements.spans, _texts(texts_of(values), index))
    if pa.types.is_list(values.type):
        spans, numbers = lists_of(values)
        vectors = whole_vectors(spans, numbers_of(numbers), operation.dim)
    else:
        vectors = numbers_of(values)[:, None]
    return Sequence(elements.spans, np.append(vectors, np.full((1, operation.dim), np.nan), axis=0)[index])


def _of_events(reader: Reader, plan: Plan, operation: Operation, rows: int) -> _Elements:
    events = visible_events(reader, plan, operation, rows)
    owners = events.owners(rows)
    row, event = events.spans.take(owners).last(operation.output.length).expand()
    spans = spans_of_rows(row, rows)
    return _Elements(spans, row, events.position[event], events.ts[event], events.length[owners])


def _of_lists(reader: Reader, operation: Operation, rows: int) -> _Elements:
    whole, _ = reader.lists(operation.aligned, rows)
    spans = spans_of_lengths(np.minimum(whole.lengths, operation.output.length))
    row, element = spans.expand()
    return _Elements(spans, row, element - spans.starts[row], None, whole.lengths)


def _padded(elements: _Elements) -> _Elements:
    """Gives each row without elements one that is missing."""
    lengths = elements.spans.lengths
    spans = spans_of_lengths(np.maximum(lengths, 1))
    _, place = Spans(spans.starts, spans.starts + lengths).expand()
    row, _ = spans.expand()
    position = np.full(len(row), -1)
    position[place] = elements.position
    ts = None
    if elements.ts is not None:
        ts = np.zeros(len(row), np.int64)
        ts[place] = elements.ts
    return _Elements(spans, row, position, ts, elements.length)


def _attribute(reader: Reader, name: str, elements: _Elements, rows: int) -> tuple[Ints, pa.Array]:
    index, values = attribute(reader, name, rows, elements.length, elements.row, elements.position)
    return np.where(elements.position < 0, -1, index), values


def _texts(texts: Texts, index: Ints) -> Texts:
    """Returns the texts of each element; none of a missing one."""
    spans = Spans(np.append(texts.spans.starts, 0), np.append(texts.spans.stops, 0))
    return Texts(spans.take(index), texts.values)


def _computed(reader: Reader, operation: Operation, elements: _Elements, rows: int) -> Floats:
    """Returns the expression's number of each element; missing where a variable is."""
    assert operation.program is not None
    variables = [_variable(reader, name, operation, elements, rows) for name in operation.columns]
    result = evaluate(operation.program, lambda index: variables[index][:, None], len(elements.row))
    read = {argument for code, argument in operation.program.code if code == Code.VARIABLE}
    missing = elements.position < 0
    for index in read:
        missing = missing | np.isnan(variables[index])
    return np.where(missing[:, None], np.nan, result)


def _variable(reader: Reader, name: str, operation: Operation, elements: _Elements, rows: int) -> Floats:
    """Returns a variable for each element: of the element itself, or of its row."""
    if operation.behavior and name == f"behavior.{operation.behavior}.ts":
        assert elements.ts is not None
        return elements.ts.astype(np.float64)
    if not pa.types.is_list(reader.array(name).type):
        return reader.numbers(name, rows)[elements.row]
    index, values = _attribute(reader, name, elements, rows)
    return np.append(numbers_of(values), np.nan)[index]
