"""First values of a row, a pure function of (seed, key): whoever creates a row, and whenever, it is the same row.

The generator is counter based: word j of key k is `mix64(base + j * golden)` with `base = mix64(key ^ mix64(seed))`, so
any value is computed without the ones before it. *Normal* adds eight 16-bit uniforms (Irwin-Hall; two words per value):
the sum is an exact integer and one multiplication scales it, so the bits do not depend on libm, vector width or
processor, as Box-Muller's log and cosine would. It has mean 0, the asked standard deviation, excess kurtosis -0.15, and
no value beyond 4.9 standard deviations. *Uniform* takes 24 bits of one word.
"""

import numba as nb
import numpy as np
import numpy.typing as npt

from kuberec_api.model import Initializer, InitializerKind
from kuberec_runtime.table.buckets import I64, mix64
from kuberec_runtime.table.compiled import kernel

F32 = npt.NDArray[np.float32]

GOLDEN = 0x9E3779B97F4A7C15
KIND_CODE = {InitializerKind.ZEROS: 0, InitializerKind.NORMAL: 1, InitializerKind.UNIFORM: 2}
_M16 = 0xFFFF
_CENTRE = 8 * 0xFFFF / 2.0
# The variance of one 16-bit uniform is (2^32 - 1) / 12.
_UNIT = 1.0 / float(np.sqrt(8.0 * (2.0**32 - 1.0) / 12.0))


@nb.njit(inline="always")
def _lanes(x: np.uint64) -> np.int64:
    low = (x & np.uint64(_M16)) + ((x >> np.uint64(16)) & np.uint64(_M16))
    return np.int64(low + ((x >> np.uint64(32)) & np.uint64(_M16)) + (x >> np.uint64(48)))


@kernel
def fill_rows(
    rows: F32, places: I64, keys: I64, width: int, pitch: int, kind: int, scale: float, seed: np.uint64
) -> None:
    """Writes first weights, and zeros behind them, into the rows `places`.

    Args:
        rows: the arena, flat; row r starts at `r * pitch`.
        places: int64, shape (n,), row numbers.
        keys: int64, shape (n,), the rows' keys.
        width: weights of a row.
        pitch: floats of a row.
        kind: 0 zeros, 1 normal, 2 uniform.
        scale: standard deviation (normal) or half width (uniform).
        seed: of the model.
    """
    golden = np.uint64(GOLDEN)
    start = mix64(np.uint64(seed))
    for i in range(keys.size):
        at = places[i] * pitch
        base = mix64(np.uint64(keys[i]) ^ start)
        for j in range(pitch):
            rows[at + j] = np.float32(0.0)
        if kind == 1:
            for j in range(width):
                a = mix64(base + np.uint64(2 * j) * golden)
                b = mix64(base + np.uint64(2 * j + 1) * golden)
                rows[at + j] = np.float32((np.float64(_lanes(a) + _lanes(b)) - _CENTRE) * _UNIT * scale)
        elif kind == 2:
            for j in range(width):
                a = np.int64(mix64(base + np.uint64(j) * golden) >> np.uint64(40))
                rows[at + j] = np.float32((np.float64(a) * (2.0 / 16777216.0) - 1.0) * scale)


def initial_rows(keys: I64, width: int, initializer: Initializer, seed: int) -> F32:
    """First weights of `keys` without a table: float32, shape (n, width). For tests and for servers' missing rows."""
    out = np.empty((keys.size, width), np.float32)
    fill_rows(
        out.reshape(-1), np.arange(keys.size), np.ascontiguousarray(keys, np.int64), width, width,
        KIND_CODE[initializer.kind], float(initializer.stddev), np.uint64(seed & 0xFFFFFFFFFFFFFFFF),
    )  # fmt: skip
    return out
