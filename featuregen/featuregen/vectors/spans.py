"""Rows of several elements in NumPy: expansion, folds in the order of the elements, and joins by (owner, key).

What the kernels do in loops over rows is done here over all rows at once. Sums are exact about their order: a fold adds
element by element, from left to right, as the kernels and the oracle do, which `np.add.reduceat` does not.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

_FEW = 8
"""So few rows are folded one by one: a step over all rows costs as much as a whole long row."""


@dataclass(frozen=True, slots=True)
class Spans:
    """Row i has the elements starts[i] to stops[i] - 1 of something flat; rows may share elements."""

    starts: Ints
    stops: Ints

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def lengths(self) -> Ints:
        """Number of elements of each row."""
        return self.stops - self.starts

    def expand(self) -> tuple[Ints, Ints]:
        """Returns (row, element) of every element, row by row."""
        lengths = self.lengths
        row = np.repeat(np.arange(len(lengths)), lengths)
        first = np.cumsum(lengths) - lengths
        return row, np.arange(len(row)) + np.repeat(self.starts - first, lengths)

    def take(self, rows: Ints) -> "Spans":
        """Returns the spans of other rows, in their order."""
        return Spans(self.starts[rows], self.stops[rows])

    def first(self, length: int) -> "Spans":
        """Returns the first `length` elements of each row."""
        return Spans(self.starts, np.minimum(self.stops, self.starts + length))

    def last(self, length: int) -> "Spans":
        """Returns the last `length` elements of each row."""
        return Spans(np.maximum(self.starts, self.stops - length), self.stops)


def spans_of_lengths(lengths: Ints) -> Spans:
    """Returns rows whose elements lie one after the other."""
    stops = np.cumsum(lengths, dtype=np.int64)
    return Spans(stops - lengths, stops)


def spans_of_rows(row: Ints, rows: int) -> Spans:
    """Returns spans of elements that are sorted by row."""
    return spans_of_lengths(np.bincount(row, minlength=rows).astype(np.int64))


def offsets_of(spans: Spans) -> NDArray[np.int32]:
    """Returns int32[rows + 1] of rows whose elements lie one after the other."""
    return np.concatenate((np.zeros(1, np.int64), spans.stops)).astype(np.int32)


def keep(spans: Spans, flags: Flags) -> Spans:
    """Returns spans over the flat elements that are left when only flagged ones are kept."""
    before = np.concatenate((np.zeros(1, np.int64), np.cumsum(flags, dtype=np.int64)))
    return Spans(before[spans.starts], before[spans.stops])


def first_of_pairs(row: Ints, code: Ints) -> Ints:
    """Returns the positions of the first of equal (row, code) pairs, ascending."""
    order = np.lexsort((code, row))
    starts = _runs(row[order], code[order])
    return np.sort(order[starts])


def last_of_pairs(row: Ints, code: Ints) -> Ints:
    """Returns the positions of the last of equal (row, code) pairs, ascending."""
    return (len(row) - 1 - first_of_pairs(row[::-1], code[::-1]))[::-1]


def _runs(*sorted_by: Ints) -> Flags:
    """Flags where a run of equal values begins."""
    begins = np.ones(len(sorted_by[0]), np.bool_)
    begins[1:] = np.logical_or.reduce([values[1:] != values[:-1] for values in sorted_by])
    return begins


def fold(values: Floats, spans: Spans, combiner: str) -> Floats:
    """Combines the numbers of each row: sum, mean, product, min, max or count; NaN of an empty row.

    Additions go from left to right. Of equal numbers (0.0 and -0.0) min and max keep the first. No value may be NaN.
    """
    lengths = spans.lengths
    filled = np.flatnonzero(lengths)
    result = np.full(len(lengths), np.nan)
    if combiner == "count":
        result[filled] = lengths[filled]
        return result
    result[filled] = values[spans.starts[filled]]
    with np.errstate(over="ignore", invalid="ignore"):
        at, active = 1, filled
        while len(active := active[lengths[active] > at]):
            if len(active) <= _FEW:
                for row in active.tolist():
                    rest = values[spans.starts[row] + at : spans.stops[row]]
                    result[row] = _fold_one(np.concatenate((result[row : row + 1], rest)), combiner)
                break
            result[active] = _combined(result[active], values[spans.starts[active] + at], combiner)
            at += 1
        return result / np.maximum(lengths, 1) if combiner == "mean" else result


def _combined(total: Floats, value: Floats, combiner: str) -> Floats:
    if combiner == "min":
        return np.where(value < total, value, total)
    if combiner == "max":
        return np.where(value > total, value, total)
    return total * value if combiner == "product" else total + value


def _fold_one(values: Floats, combiner: str) -> float:
    if combiner == "min":
        return float(values[np.argmin(values)])
    if combiner == "max":
        return float(values[np.argmax(values)])
    ufunc: Any = np.multiply if combiner == "product" else np.add
    return float(ufunc.accumulate(values)[-1])  # accumulate goes from left to right, reduce adds in pairs


class PairIndex:
    """Finds the entry of (owner, code); of equal pairs the last entry."""

    def __init__(self, owner: Ints, code: Ints, codes: int) -> None:
        self._codes = max(1, codes)
        pairs = owner * self._codes + code
        self._order = np.argsort(pairs, kind="stable")
        self._pairs = pairs[self._order]

    def find(self, owner: Ints, code: Ints) -> Ints:
        """Returns the entry of each pair, -1 where there is none; a negative code is found nowhere."""
        if not len(self._pairs):
            return np.full(len(code), -1)
        pairs = owner * self._codes + code
        at = np.searchsorted(self._pairs, pairs, side="right") - 1
        found = (at >= 0) & (code >= 0)
        found &= self._pairs[at] == pairs
        return np.where(found, self._order[at], -1)
