"""What a plan computes: output columns as NumPy arrays; the same for every engine, so that none knows another."""

from dataclasses import dataclass
from typing import Any


@dataclass(slots=True)
class Column:
    """One output column. Not frozen: a request makes fifty, and to make a frozen one costs ten times as much.

    Attributes:
        rows: rows, or 1 for a user-side output of `rank`.
        ids: int64[k], the ids of all rows one after the other; None if there are none.
        offsets: int32[rows + 1], row i has ids[offsets[i]:offsets[i + 1]], or elements of a sequence of numbers; None
            if dense.
        values: float32[rows, width]; float32[elements, width] of a sequence of numbers; None unless numbers.
        weights: float32[k], the weights of weighted ids; None otherwise.
        elements: int32[rows + 1], row i of a multi-value sequence has elements elements[i] to elements[i + 1] - 1.
        element_offsets: int32[e + 1], element j has ids[element_offsets[j]:element_offsets[j + 1]].
    """

    rows: int
    ids: Any = None
    offsets: Any = None
    values: Any = None
    weights: Any = None
    elements: Any = None
    element_offsets: Any = None


@dataclass(frozen=True, slots=True)
class Features:
    """What a plan computed.

    Attributes:
        rows: number of samples or items.
        columns: output name -> column, in the order of the plan. The arrays are the caller's to keep.
    """

    rows: int
    columns: dict[str, Column]
