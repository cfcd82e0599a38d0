"""One row of an output column: as a column of its own, and as Python values that a person can read."""

from itertools import pairwise
from typing import Any

from featuregen.results import Column


def row_of(column: Column, row: int) -> Column:
    """Returns one row as a column; its arrays are views where they can be."""
    if column.offsets is None:
        return Column(1, values=column.values[row : row + 1])
    first, last = column.offsets[row : row + 2].tolist()
    parts: dict[str, Any] = {"offsets": column.offsets[row : row + 2] - first}
    for name in ("ids", "values", "weights"):
        if getattr(column, name) is not None:
            parts[name] = getattr(column, name)[first:last]
    if column.elements is not None:
        begin, end = column.elements[row : row + 2].tolist()
        parts["elements"] = column.elements[row : row + 2] - begin
        parts["element_offsets"] = column.element_offsets[begin : end + 1] - first
    return Column(1, **parts)


def row_values(column: Column, row: int) -> list[Any]:
    """Returns a row's values.

    Ids or numbers; (id, weight) of weighted ids; a list of ids for each element of a multi-value sequence; a number, or
    a list of numbers, for each element of a sequence of numbers.
    """
    one = row_of(column, row)
    if one.offsets is None:
        return list(one.values[0].tolist())
    if one.values is not None:
        return list((one.values[:, 0] if one.values.shape[1] == 1 else one.values).tolist())
    if one.weights is not None:
        return list(zip(one.ids.tolist(), one.weights.tolist(), strict=True))
    if one.elements is not None:
        return [one.ids[a:b].tolist() for a, b in pairwise(one.element_offsets.tolist())]
    return list(one.ids.tolist())
