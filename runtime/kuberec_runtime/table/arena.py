"""Memory that grows without moving: a reserved range of addresses whose pages appear when they are first written.

Kernels see one flat array of the final size, so a row never moves and a pointer to it never dies; the process pays only
for pages it touched. Reservations start at a 2 MiB boundary (so rows start on cache lines) and ask for huge pages.
"""

import math
import mmap
import os
from typing import Any

import numpy as np
import numpy.typing as npt

from kuberec_runtime.table.errors import TableFull

HUGE_PAGE = 2 << 20
PAGE = 4096
LINE_BYTES = 64
_NORESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000)
_SMALLEST = 64 << 20


def lines(dtype: type[np.generic], *shape: int) -> npt.NDArray[Any]:
    """An array that begins at a cache line, not cleared: rows of whole lines then lie in no more lines than they need.

    numpy's own begin 16 bytes behind one, so that every row of 16 floats is in two: copies of rows take a fifth longer.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    raw = np.empty(size + LINE_BYTES, np.uint8)
    start = -raw.ctypes.data % LINE_BYTES
    return raw[start : start + size].view(dtype).reshape(shape)


def physical_memory() -> int:
    """Bytes of memory of this machine: no table can hold more, so nothing more is reserved."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


class Arena:
    """A range of zeroed bytes, `size` long, committed page by page.

    Where the system counts reservations (`vm.overcommit_memory=2`, or a limit on address space), the arena halves its
    reservation until it is granted; `size` says what was.
    """

    def __init__(self, size: int) -> None:
        want = max(size, _SMALLEST)
        while True:
            try:
                self._map = mmap.mmap(-1, want + HUGE_PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NORESERVE)
                break
            except OSError as error:
                if want <= _SMALLEST:
                    raise TableFull(f"cannot reserve {want} bytes of address space for a table: {error}") from error
                want = max(want // 2, _SMALLEST)
        try:
            self._map.madvise(mmap.MADV_HUGEPAGE)
        except OSError:
            # Kernels without huge pages lose 5-15 % of bandwidth and nothing else.
            pass
        raw = np.frombuffer(self._map, np.uint8)
        self._offset = int(-raw.ctypes.data) % HUGE_PAGE
        self.size = want
        self.bytes: npt.NDArray[np.uint8] = raw[self._offset : self._offset + want]

    def release(self, start: int, length: int) -> None:
        """Gives the whole pages inside [start, start + length) back; they read as zeros afterwards."""
        first = -(-(self._offset + start) // PAGE) * PAGE
        last = (self._offset + start + length) // PAGE * PAGE
        if last > first:
            self._map.madvise(mmap.MADV_DONTNEED, first, last - first)
