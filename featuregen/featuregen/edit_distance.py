"""The built-in custom function `edit_distance`: Levenshtein's distance of all pairs of texts at once.

Row by row of the table of distances, as Wagner and Fischer (1974) fill it; within a row, insertions are a running
minimum, so that every step is one NumPy call over all pairs and all columns.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

_BLOCK = 256
"""Pairs that are computed together: pairs of like lengths, so that one long text does not widen the table of all."""


def edit_distance(a: pa.StringArray, b: pa.StringArray, encoding: str = "utf-8") -> pa.Array:
    """Returns how many insertions, deletions and substitutions make one text the other; null if one is missing.

    Args:
        a: texts.
        b: texts.
        encoding: `utf-8` counts code points, `latin` bytes.

    Raises:
        ValueError: if there is no such encoding, or the arguments are no texts.
    """
    if encoding not in ("utf-8", "latin"):
        raise ValueError(f"there is no encoding '{encoding}': it is utf-8 or latin")
    if not (pa.types.is_string(a.type) and pa.types.is_string(b.type)):
        raise ValueError(f"edit_distance takes two texts, it got {a.type} and {b.type}")
    present = np.flatnonzero(pc.and_(a.is_valid(), b.is_valid()).to_numpy(zero_copy_only=False))
    (x, x_starts, x_lengths), (y, y_starts, y_lengths) = (
        _characters(texts.take(pa.array(present)), encoding) for texts in (a, b)
    )
    distances = np.zeros(len(present))
    order = np.lexsort((y_lengths, x_lengths))
    for at in range(0, len(order), _BLOCK):
        block = order[at : at + _BLOCK]
        left = _matrix(x, x_starts[block], x_lengths[block], 0)
        right = _matrix(y, y_starts[block], y_lengths[block], -1)
        distances[block] = _distances(left, right, x_lengths[block], y_lengths[block])
    result = np.zeros(len(a))
    result[present] = distances
    missing = np.ones(len(a), np.bool_)
    missing[present] = False
    return pa.array(result, mask=missing)


def _characters(texts: pa.StringArray, encoding: str) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Returns the characters of all texts as numbers, and where each text begins and how many it has."""
    joined = "".join(texts.to_pylist())
    if encoding == "latin":
        characters, lengths = np.frombuffer(joined.encode(), np.uint8), pc.binary_length(texts)
    else:
        characters, lengths = np.frombuffer(joined.encode("utf-32-le"), "<u4"), pc.utf8_length(texts)
    counts = np.asarray(lengths).astype(np.int64)
    return characters.astype(np.int64), np.cumsum(counts) - counts, counts


def _matrix(
    characters: NDArray[np.int64], starts: NDArray[np.int64], lengths: NDArray[np.int64], filler: int
) -> NDArray[np.int64]:
    """Returns one row for each text, filled up with what is no character of the other side."""
    columns = np.arange(int(lengths.max(initial=0)))
    inside = columns < lengths[:, None]
    padded = np.append(characters, filler)
    return padded[np.where(inside, starts[:, None] + columns, len(characters))]


def _distances(
    left: NDArray[np.int64], right: NDArray[np.int64], left_lengths: NDArray[np.int64], right_lengths: NDArray[np.int64]
) -> NDArray[np.int64]:
    columns = np.arange(right.shape[1] + 1)
    row = np.broadcast_to(columns, (len(left), len(columns))).copy()
    result = row[np.arange(len(left)), right_lengths]
    for at in range(left.shape[1]):
        following = np.empty_like(row)
        following[:, 0] = at + 1
        substituted = row[:, :-1] + (left[:, at : at + 1] != right)
        following[:, 1:] = np.minimum(row[:, 1:] + 1, substituted)
        row = np.minimum.accumulate(following - columns, axis=1) + columns
        done = left_lengths == at + 1
        result[done] = row[done, right_lengths[done]]
    return result
