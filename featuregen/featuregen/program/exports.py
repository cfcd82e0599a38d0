"""Arrow arrays handed to kernels by Arrow's C data interface, which costs less than to look at their buffers.

A record batch is handed over as a whole, in one call for all of its columns.
"""

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from featuregen.kernels import layout
from featuregen.kernels.arrow import ARRAY_BYTES
from featuregen.kernels.program import run_program

_CHILDREN = 6
"""Which 8 bytes of a `struct ArrowArray` point to its children."""


class Exports:
    """An array for each column of a call, by itself or as a column of one batch. Whoever reads them last releases them.

    Attributes:
        address: of int64[columns], the address of each column's `struct ArrowArray`.
        memory: address of the structures that were exported.
        count: number of those.
    """

    def __init__(self, columns: int) -> None:
        self._memory = np.zeros((columns + 1) * ARRAY_BYTES, np.uint8)
        self._batch = self._memory[:ARRAY_BYTES].view(np.int64)
        self.memory, self.count = int(self._memory.ctypes.data), columns + 1
        self._own = self.memory + ARRAY_BYTES * np.arange(1, columns + 1)
        self._slots = self._own.tolist()
        self._pointers = self._own.copy()
        self.address = int(self._pointers.ctypes.data)
        self._release = np.zeros((1, layout.OPERATION_WIDTH), np.int64)
        self.tell_release(self._release[0])

    def tell_release(self, row: Any) -> None:
        """Makes a row of an operation table one that releases everything."""
        row[layout.O_KIND], row[layout.O_EXPORTS], row[layout.O_PART_COUNT] = layout.OP_RELEASE, self.memory, self.count

    def export(
        self,
        arrays: Sequence[pa.Array | None],
        batch: pa.RecordBatch | None = None,
        columns: Any = None,
        places: Any = None,
    ) -> None:
        """Exports the arrays of a call, which must stay alive until it has ended; all of them or, if it raises, none.

        Args:
            arrays: for each column; None if the batch has it, or if it is exported later.
            batch: has some of the columns.
            columns: int64[k], the numbers of those.
            places: int64[k], where the batch has them.
        """
        self._pointers[:] = self._own
        try:
            if batch is not None:
                batch._export_to_c(self.memory)
                children = (ctypes.c_int64 * batch.num_columns).from_address(int(self._batch[_CHILDREN]))
                self._pointers[columns] = np.frombuffer(children, np.int64)[places]
            for array, address in zip(arrays, self._slots, strict=True):
                if array is not None:
                    array._export_to_c(address)
        except BaseException:
            self.release()
            raise

    def add(self, column: int, array: pa.Array) -> None:
        """Exports the array of a column that was left out."""
        array._export_to_c(self._slots[column])

    def release(self) -> None:
        """Gives everything back to Arrow."""
        run_program(int(self._release.ctypes.data), 1)
