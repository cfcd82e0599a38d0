"""Memory for copies that is used again: touching fresh pages would take a cut as long as the copy itself."""

import math
import threading
from typing import Any

import numpy as np
import numpy.typing as npt

from kuberec_runtime.table.arena import Arena


class _Lease:
    """Lends the memory for as long as an array sees it: arrays made of this keep it alive."""

    def __init__(self, room: "Room", dtype: type[np.generic], shape: tuple[int, ...]) -> None:
        self._room = room
        self.__array_interface__ = {
            "shape": shape, "typestr": np.dtype(dtype).str, "data": (room.address, False), "version": 3,
        }  # fmt: skip

    def __del__(self) -> None:
        self._room.lent.release()


class Room:
    """One piece of memory, lent to one array at a time.

    Args:
        size: the most bytes that it lends; only those that were ever lent are committed.
    """

    def __init__(self, size: int) -> None:
        self._arena = Arena(size)
        self.address = int(self._arena.bytes.ctypes.data)
        self.lent = threading.Lock()
        self.committed = 0
        """Bytes that are held."""

    def array(self, dtype: type[np.generic], shape: tuple[int, ...], most: int) -> npt.NDArray[Any]:
        """An array, not cleared, in this memory until its last view is gone.

        If the memory is lent already, or more than `most` bytes are asked for, the array is one of its own.
        """
        size = np.dtype(dtype).itemsize * math.prod(shape)
        if not 0 < size <= min(most, self._arena.size) or not self.lent.acquire(blocking=False):
            return np.empty(shape, dtype)
        self.committed = max(self.committed, size)
        return np.asarray(_Lease(self, dtype, shape))


class Rooms:
    """Where one consumer's copies go: their rows, and their keys, which some keep longer."""

    def __init__(self, most: int, row_bytes: int) -> None:
        self.rows = Room(most * row_bytes)
        self.keys = Room(most * 8)

    @property
    def committed(self) -> int:
        """Bytes that are held."""
        return self.rows.committed + self.keys.committed
