"""Rows as the bytes that lie in the tier: Float32, BFloat16 and Float16, little endian, and back.

BFloat16 rounds to nearest even by integer arithmetic on the float32 bits; NaN stays NaN.
"""

import numpy as np
from numpy.typing import NDArray

from kuberec_api.training import RowType

ITEM_BYTES = {RowType.FLOAT32: 4, RowType.BFLOAT16: 2, RowType.FLOAT16: 2}


def row_bytes(width: int, dtype: RowType) -> int:
    """Returns the bytes of one row of `width` floats."""
    return width * ITEM_BYTES[dtype]


def encode_rows(rows: NDArray[np.float32], dtype: RowType) -> NDArray[np.uint8]:
    """Returns uint8[n, row_bytes(w, dtype)] of rows float32[n, w]."""
    rows = np.ascontiguousarray(rows, np.float32)
    encoded: NDArray[np.generic]
    if dtype is RowType.FLOAT32:
        encoded = rows
    elif dtype is RowType.FLOAT16:
        with np.errstate(over="ignore"):
            encoded = rows.astype(np.float16)
    else:
        encoded = _to_bfloat16(rows)
    return encoded.view(np.uint8).reshape(rows.shape[0], row_bytes(rows.shape[1], dtype))


def decode_rows(data: NDArray[np.uint8], dtype: RowType) -> NDArray[np.float32]:
    """Returns float32[n, w] of uint8[n, row_bytes(w, dtype)]."""
    data = np.ascontiguousarray(data)
    if dtype is RowType.FLOAT32:
        return data.view(np.float32)
    if dtype is RowType.FLOAT16:
        return data.view(np.float16).astype(np.float32)
    return (data.view(np.uint16).astype(np.uint32) << np.uint32(16)).view(np.float32)


def _to_bfloat16(rows: NDArray[np.float32]) -> NDArray[np.uint16]:
    bits = rows.view(np.uint32)
    rounded = bits >> np.uint32(16)
    rounded &= np.uint32(1)
    rounded += np.uint32(0x7FFF)
    rounded += bits
    rounded >>= np.uint32(16)
    out = rounded.astype(np.uint16)
    nan = np.isnan(rows)
    if nan.any():
        out[nan] = np.uint16(0x7FC0)
    return out
