"""Cursors over a body: one that refuses to leave it, and one that lays it out."""

import math
import struct
from collections.abc import Mapping

import numpy as np

from kuberec_api.training import RowType
from kuberec_runtime.table.buckets import I64
from kuberec_runtime.wire.errors import FrameError
from kuberec_runtime.wire.frames import Body
from kuberec_runtime.wire.halves import DTYPE, Values

BLOCK = struct.Struct("<QQ")
"""An entry of a block list."""
MOST_BLOCKS = 4096


class Reader:
    """A cursor that refuses to leave the body."""

    def __init__(self, body: Body, what: str, shared: bool = False) -> None:
        self._body, self._what, self._at, self._shared = body, what, 0, shared

    def unpack(self, form: struct.Struct) -> tuple[int, ...]:
        """The next numbers; raises FrameError where the body ends, as all methods do."""
        self._need(form.size)
        out = form.unpack_from(self._body.data, self._at)
        self._at += form.size
        return out

    def array(self, dtype: type[np.generic], count: int) -> Values:
        """A view of the next `count` values."""
        size = count * np.dtype(dtype).itemsize
        self._need(size)
        out = self._body[self._at : self._at + size].view(dtype)
        self._at += size
        return out

    def keys(self, count: int) -> I64:
        """The next keys, copied if others may change them."""
        keys: I64 = self.array(np.int64, count)
        return keys.copy() if self._shared else keys

    def values(self, dtype: RowType, count: int, width: int) -> Values:
        """The next `count` rows, shape (count, width), as they lie."""
        return self.array(DTYPE[dtype], count * width).reshape(count, width)

    def blocks(self, count: int) -> dict[int, int]:
        """A block list: rows by width, none more than the body can hold."""
        if count > MOST_BLOCKS:
            raise FrameError(f"{self._what} names {count} row widths, more than {MOST_BLOCKS}")
        table = self.array(np.uint64, 2 * count).reshape(count, 2)
        rows: dict[int, int] = {}
        for width, n in table.tolist():
            if not 1 <= width <= 1024 or width in rows:
                raise FrameError(f"{self._what} names row width {width} twice or out of range")
            if 2 * n > self._body.size:
                raise FrameError(f"{self._what} names {n} rows of width {width}, more than its body holds")
            rows[width] = n
        return rows

    def end(self) -> None:
        """Raises FrameError if bytes are left."""
        if self._at != self._body.size:
            raise FrameError(f"{self._what} has {self._body.size - self._at} bytes too many")

    def _need(self, size: int) -> None:
        if self._at + size > self._body.size:
            raise FrameError(f"{self._what} is cut short: {self._body.size} bytes, {self._at + size} needed")


class Writer:
    """A cursor that lays out a body which is exactly as long as the caller computed."""

    def __init__(self, body: Body) -> None:
        self._body, self._at = body, 0

    def pack(self, form: struct.Struct, *values: int) -> None:
        """Writes numbers."""
        form.pack_into(self._body.data, self._at, *values)
        self._at += form.size

    def blocks(self, rows: Mapping[int, int]) -> None:
        """Writes a block list."""
        for width, n in rows.items():
            self.pack(BLOCK, width, n)

    def array(self, dtype: type[np.generic], *shape: int) -> Values:
        """Makes room for an array, to be filled."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        out = self._body[self._at : self._at + size].view(dtype).reshape(shape)
        self._at += size
        return out
