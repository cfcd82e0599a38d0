"""A 64-bit digest of every output column: a replica writes it beside a request, and a replay can compare all bits.

Canonical bytes of a column: its number of rows, then each part with its length, or -1 for a part that the column does
not have. A digest is FarmHash Fingerprint64 (the hash of ids, portable by definition) over `rows`, and length and
Fingerprint64 of every part; so two columns have equal digests if and only if (but for a chance of 2^-64) they are equal
bit for bit. A user-side column of a ranking has one row and is digested as that one row.
"""

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from featuregen.results import Column, Features
from featuregen.vectors.hash import hash_texts

PARTS: dict[str, str] = {
    "ids": "<i8",
    "offsets": "<i4",
    "values": "<f4",
    "weights": "<f4",
    "elements": "<i4",
    "element_offsets": "<i4",
}
"""Arrays of a column in the order in which they are digested, and their types in memory."""

_ABSENT = -1
_HEADER = 1 + 2 * len(PARTS)


def digests(features: Features) -> NDArray[np.uint64]:
    """Returns uint64[outputs], one digest for each column, in the plan's order."""
    headers = np.full((len(features.columns), _HEADER), _ABSENT, "<i8")
    pieces: list[Any] = []
    places: list[tuple[int, int]] = []
    for index, column in enumerate(features.columns.values()):
        headers[index, 0] = column.rows
        for place, (name, kind) in enumerate(PARTS.items()):
            part = getattr(column, name, None)
            if part is not None:
                pieces.append(np.ascontiguousarray(part, kind))
                places.append((index, 1 + 2 * place))
                headers[index, 1 + 2 * place] = pieces[-1].nbytes
    if pieces:
        rows, at = np.array(places).T
        headers[rows, at + 1] = _hash()(pieces).view("<i8")
    return _hash()(list(headers))


def digest(column: Column) -> int:
    """Returns the digest of one column."""
    return int(digests(Features(column.rows, {"": column}))[0])


def hash_without_numba(pieces: list[Any]) -> NDArray[np.uint64]:
    """Returns uint64[n]: FarmHash Fingerprint64 of the bytes of n arrays, all side by side in NumPy."""
    return hash_texts("farm64", pa.array([piece.tobytes() for piece in pieces], pa.binary()))


@cache
def _hash() -> Callable[[list[Any]], NDArray[np.uint64]]:
    if find_spec("numba") is None:
        return hash_without_numba
    from featuregen.replay.kernel import farm64_pieces

    return farm64_pieces
