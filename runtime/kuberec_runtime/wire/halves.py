"""Rows in two bytes a value, if a training asks for it: BFloat16 or Float16 on the wire, float32 on both sides.

Rounded to nearest even; NaN stays NaN. BFloat16 keeps float32's range. Float16 has more digits and ends at 65504: what
is larger becomes infinite, and what is below 6e-8 becomes 0.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from kuberec_api.training import RowType
from kuberec_runtime.table.compiled import kernel
from kuberec_runtime.table.initial import F32

ITEM = {RowType.FLOAT32: 4, RowType.BFLOAT16: 2, RowType.FLOAT16: 2}
"""Bytes of a value."""
DTYPE: dict[RowType, type[np.generic]] = {
    RowType.FLOAT32: np.float32,
    RowType.BFLOAT16: np.uint16,
    RowType.FLOAT16: np.float16,
}
"""How a value lies in a body."""
CODES = (RowType.FLOAT32, RowType.BFLOAT16, RowType.FLOAT16)
"""A type's number in HELLO is its position here."""

Values = npt.NDArray[Any]


@kernel
def _to_bfloat16(bits: Any, out: Any) -> None:
    for i in range(bits.size):
        x = bits[i]
        if (x & np.uint32(0x7FFFFFFF)) > np.uint32(0x7F800000):
            out[i] = np.uint16((x >> np.uint32(16)) | np.uint32(0x40))
        else:
            out[i] = np.uint16((x + np.uint32(0x7FFF) + ((x >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16))


@kernel
def _from_bfloat16(halves: Any, out: Any) -> None:
    for i in range(halves.size):
        out[i] = np.uint32(halves[i]) << np.uint32(16)


def encode(rows: F32, dtype: RowType, out: Values) -> None:
    """Writes float32 rows, C order, into `out`: same shape, of `DTYPE[dtype]`."""
    if dtype is RowType.BFLOAT16:
        _to_bfloat16(rows.reshape(-1).view(np.uint32), out.reshape(-1))
        return
    with np.errstate(over="ignore", under="ignore"):
        np.copyto(out, rows, casting="same_kind")


def decode(values: Values, dtype: RowType) -> F32:
    """Float32 rows of values as they lie in a body; the same array if they are float32 already."""
    if dtype is RowType.FLOAT32:
        return values
    out = np.empty(values.shape, np.float32)
    if dtype is RowType.BFLOAT16:
        _from_bfloat16(values.reshape(-1), out.reshape(-1).view(np.uint32))
    else:
        np.copyto(out, values)
    return out
