"""Distinct texts with a number each: appended to, never changed, so that a code means the same text for ever."""

from typing import Any

import numpy as np
import pyarrow as pa

from featuregen.items.buffers import buffer_address, validity_of
from featuregen.items.kernels.program import run_steps
from featuregen.items.regions import Region, zeros
from featuregen.items.table import (
    D_COUNT,
    D_ENDS,
    D_LIMIT,
    D_MASK,
    D_SLOTS,
    D_TEXTS,
    DICTIONARY_WIDTH,
    ENCODE,
    REHASH,
    STEP_WIDTH,
    T_BIT,
    T_DATA,
    T_DICTIONARY,
    T_DONE,
    T_FIRST,
    T_KIND,
    T_N,
    T_OUT,
    T_SOURCE,
    T_TEXTS,
    T_VALID,
)

_SLOTS_AT_FIRST = 64
_FULL = 0.6
"""Share of slots in use at which a table is doubled."""


class Dictionaries:
    """Dictionaries by number; one thread writes.

    Attributes:
        table: int64[d, DICTIONARY_WIDTH], a row for each, as kernels read it. Readers have a copy: `snapshot`.
    """

    def __init__(self, count: int) -> None:
        self.table = np.zeros((count, DICTIONARY_WIDTH), np.int64)
        self._ends = [Region(np.int64) for _ in range(count)]
        self._texts = [Region(np.uint8) for _ in range(count)]
        self._slots = [np.zeros(_SLOTS_AT_FIRST, np.int64) for _ in range(count)]
        for number, (ends, texts) in enumerate(zip(self._ends, self._texts, strict=True)):
            ends.extend(2)[:] = 0  # the empty text
            self.table[number, D_COUNT] = 1
            self.table[number, D_ENDS], self.table[number, D_TEXTS] = ends.address, texts.address
            self._use(number, self._slots[number])

    def snapshot(self) -> tuple[Any, list[Any]]:
        """Returns the table as it is now, and what must stay alive while it is used."""
        return self.table.copy(), list(self._slots)

    def count(self, number: int) -> int:
        """Returns the number of codes, that of the empty text among them."""
        return int(self.table[number, D_COUNT])

    @property
    def nbytes(self) -> int:
        """Bytes that are in use."""
        regions = sum(region.nbytes for region in (*self._ends, *self._texts))
        return regions + sum(int(slots.nbytes) for slots in self._slots)

    def encode(self, number: int, texts: pa.StringArray) -> Any:
        """Returns int32[n], the code of each text, new ones appended; -1 of a null."""
        codes = np.empty(len(texts), np.int32)
        step = np.zeros((1, STEP_WIDTH), np.int64)
        row = step[0]
        row[T_KIND], row[T_DICTIONARY], row[T_N], row[T_OUT] = ENCODE, number, len(texts), codes.ctypes.data
        self._texts[number].reserve(read_texts(row, texts))
        self._ends[number].reserve(len(texts))
        while True:
            run_steps(step, self.table, 0)
            if row[T_DONE] == len(texts):
                break
            row[T_FIRST] = row[T_DONE]
            self._double(number)
        ends, count = self._ends[number], self.count(number)
        ends.size = count + 1
        self._texts[number].size = int(ends.array[count])
        return codes

    def texts(self, number: int, first: int) -> pa.StringArray:
        """Returns the texts of the codes from `first` on."""
        ends, count = self._ends[number].array, self.count(number)
        begin, end = int(ends[first]), int(ends[count])
        offsets = (ends[first : count + 1] - begin).astype(np.int32)
        data = self._texts[number].array[begin:end].tobytes()
        return pa.StringArray.from_buffers(count - first, pa.py_buffer(offsets), pa.py_buffer(data))

    def _use(self, number: int, slots: Any) -> None:
        self._slots[number] = slots
        self.table[number, D_SLOTS] = slots.ctypes.data
        self.table[number, D_MASK], self.table[number, D_LIMIT] = len(slots) - 1, int(_FULL * len(slots))

    def _double(self, number: int) -> None:
        """Readers keep the old table: it has all that they know."""
        old = self._slots[number]
        self._use(number, zeros(2 * len(old)))
        step = np.zeros((1, STEP_WIDTH), np.int64)
        step[0, [T_KIND, T_DICTIONARY, T_N, T_SOURCE]] = REHASH, number, len(old), old.ctypes.data
        run_steps(step, self.table, 0)


def read_texts(step: Any, texts: pa.StringArray) -> int:
    """Lets a step read texts, which must stay alive until it ran; returns the bytes of their buffer."""
    valid, offsets, data = texts.buffers()
    step[T_TEXTS], step[T_DATA] = buffer_address(offsets) + 4 * texts.offset, buffer_address(data)
    step[T_VALID], step[T_BIT] = validity_of(texts, valid)
    return int(data.size) if data else 0
