"""Memory that grows without moving: address space is reserved at once, pages come when they are first written.

What a reader holds therefore stays where it is while a writer appends behind it, and growth copies nothing.
"""

import mmap
from typing import Any

import numpy as np

from featuregen.errors import FeatureError

_RESERVED = 1 << 36
"""Bytes of address space of one region (64 GiB); memory is used for what is written only."""
_NORESERVE = 0x4000
_HUGE_PAGES_FROM = 1 << 20
"""A region of this size asks for huge pages: reads of it are random, and each would miss the small TLB."""


def zeros(count: int) -> Any:
    """Returns int64[count], all 0, in huge pages if it is large; `numpy.zeros` takes small ones from its heap."""
    size = count * 8
    if size < _HUGE_PAGES_FROM:
        return np.zeros(count, np.int64)
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        memory.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(memory, np.int64)


class Region:
    """An array that is appended to. One thread writes; others read what it had when they began.

    Attributes:
        address: of the first byte; it never changes.
        array: the whole reserved space; only the first `size` elements mean anything.
        size: number of elements.
    """

    def __init__(self, dtype: Any) -> None:
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _NORESERVE
        try:
            self._memory = mmap.mmap(-1, _RESERVED, flags=flags)
        except OSError as error:
            hint = "the item cache needs address space, not memory: lift the limit (ulimit -v, vm.overcommit_memory=2)"
            raise FeatureError(None, f"cannot reserve address space: {error.strerror}", hint) from None
        self.array = np.frombuffer(self._memory, dtype)
        self.address = int(self.array.ctypes.data)
        self.size = 0
        self._huge = False

    @property
    def nbytes(self) -> int:
        """Bytes that are in use."""
        return int(self.size * self.array.itemsize)

    def extend(self, count: int) -> Any:
        """Makes room for more elements and returns the view to write them to.

        Raises:
            FeatureError: if the region is full.
        """
        self.reserve(count)
        self.size += count
        return self.array[self.size - count : self.size]

    def reserve(self, count: int) -> None:
        """Raises FeatureError if there is no room for `count` more elements."""
        if (self.size + count) * self.array.itemsize > _RESERVED - 64:  # kernels read up to 32 bytes past the end
            raise FeatureError(None, "a column of the item cache is full: 64 GiB", "delete items, then compact")
        if not self._huge and (self.size + count) * self.array.itemsize >= _HUGE_PAGES_FROM:
            self._huge = True
            if hasattr(mmap, "MADV_HUGEPAGE"):
                self._memory.madvise(mmap.MADV_HUGEPAGE)
