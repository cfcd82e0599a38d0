"""The hash of many pieces of memory as one kernel, so that a digest of all outputs costs microseconds and no GIL.

A kernel of its own, because a digest is taken beside requests and not within them: the feature program neither waits
for it nor is compiled with it.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featuregen.compiled import compile_program
from featuregen.kernels.hash import farm64
from featuregen.kernels.sources import SOURCES


def _run(addresses: Any, sizes: Any, found: Any) -> None:
    for index in range(addresses.shape[0]):
        found[index] = farm64(addresses[index], sizes[index])


_hash_all = compile_program(_run, "void(int64[::1], int64[::1], uint64[::1])", [*SOURCES, Path(__file__)])


def farm64_pieces(pieces: list[Any]) -> NDArray[np.uint64]:
    """Returns uint64[n]: FarmHash Fingerprint64 of the bytes of n contiguous arrays."""
    where = [(piece.__array_interface__["data"][0], piece.nbytes) for piece in pieces]
    table = np.array(where, np.int64).reshape(-1, 2).T.copy()
    found = np.empty(len(pieces), np.uint64)
    _hash_all(table[0], table[1], found)
    return found
