"""Whether rows are worked on with vector instructions or in scalars; the bits are the same, the speed is not."""

import os
import warnings
from functools import cache
from typing import Literal

import numpy as np
from numba.core.errors import NumbaError

from kuberec_runtime.table.kernels import gather

SWITCH = "KUBEREC_SCALAR_KERNELS"
"""Environment variable; `1` chooses scalars."""

Mode = Literal[True] | None
"""None: vector instructions; True: scalars. Kernels are compiled for the type of the one they are given."""


def row_mode(scalar: bool | None = None) -> Mode:
    """The mode asked for, or that of the environment; scalars, with a warning, where vectors do not compile."""
    if scalar is None:
        scalar = os.environ.get(SWITCH, "") == "1"
    return True if scalar or not _vectors_compile() else None


@cache
def _vectors_compile() -> bool:
    try:
        gather(None, np.zeros(64, np.float32), np.zeros(1, np.int64), 1, (16, 16), np.zeros(16, np.float32))
        return True
    except NumbaError as error:
        warnings.warn(
            f"vector kernels do not compile here, scalar ones are two to four times slower: {error}",
            RuntimeWarning,
            stacklevel=3,
        )
        return False
