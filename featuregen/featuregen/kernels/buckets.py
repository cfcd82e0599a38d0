"""The bucket of a hash without a division, which would cost as much as the hash: the same number in all cases.

Granlund and Montgomery, "Division by Invariant Integers using Multiplication" (1994), figure 4.1.
"""

from typing import Any

import numba as nb
import numpy as np

from featuregen.kernels.memory import bit_length, jit, multiply_high

U = np.uint64


def multiplier_of(buckets: int) -> int:
    """Returns what `bucket_of` multiplies by, for 1 to 2^63 - 1 buckets: 64 bits, as an int64."""
    multiplier = (((1 << (buckets - 1).bit_length()) - buckets) << 64) // buckets + 1
    return multiplier - (1 << 64) if multiplier >= 1 << 63 else multiplier


@jit
def bucket_of(hash_: Any, buckets: int, multiplier: int) -> int:
    """A uint64 modulo the buckets, whose `multiplier_of` is given."""
    shift = bit_length(buckets - 1)
    high = multiply_high(hash_, U(multiplier))
    quotient = (high + ((hash_ - high) >> U(min(shift, 1)))) >> U(max(shift - 1, 0))
    return nb.int64(hash_ - quotient * U(buckets))
