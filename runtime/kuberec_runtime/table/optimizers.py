"""Which kernel steps a row, and the constants that it takes: everything that can be computed once, not once a row.

Rounding is fixed here, so that scalars, vectors and a plain Python model agree bit for bit: constants are computed in
float64 and rounded once to float32. Adam's bias correction needs beta^t for each row's own t. A power from libm would
differ in its last bits between machines; here t is cut into digits of 8 bits, and beta^t is the product of three
tabulated powers, made and multiplied in float64 by IEEE 754 multiplications alone.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from kuberec_api.model import SparseOptimizer, SparseOptimizerKind
from kuberec_runtime.table.kernels import DIGIT, LAST_DIGIT, adagrad, adam, ftrl, rowwise_adagrad, sgd

F64 = npt.NDArray[np.float64]


def row_step(optimizer: SparseOptimizer) -> tuple[Callable[..., None], tuple[Any, ...]]:
    """The kernel of an optimizer, and the constants that follow its other arguments."""
    rate, epsilon = np.float32(optimizer.learning_rate), np.float32(optimizer.epsilon)
    match optimizer.kind:
        case SparseOptimizerKind.ROWWISE_ADAGRAD:
            return rowwise_adagrad, (rate, epsilon)
        case SparseOptimizerKind.ADAGRAD:
            return adagrad, (rate, epsilon)
        case SparseOptimizerKind.ADAM:
            shares = [np.float32(x) for beta in optimizer.betas for x in (beta, 1.0 - beta)]
            return adam, (optimizer.learning_rate, optimizer.epsilon, *shares, powers(optimizer.betas))
        case SparseOptimizerKind.FTRL:
            l1, l2 = optimizer.penalties
            return ftrl, (np.float32(1.0 / optimizer.learning_rate), epsilon, np.float32(l1), np.float32(l2))
        case SparseOptimizerKind.SGD:
            return sgd, (rate, epsilon)


def powers(betas: tuple[float, float]) -> F64:
    """Powers of Adam's two decay rates by digit of the exponent.

    Returns:
        float64, shape (3, 512, 2): [k, d, i] is betas[i]^(d * 256^k), each the one before times the first.
    """
    out = np.ones((3, LAST_DIGIT, 2))
    for i, beta in enumerate(betas):
        base = beta
        for k in range(3):
            for d in range(1, LAST_DIGIT):
                out[k, d, i] = out[k, d - 1, i] * base
            base = float(out[k, DIGIT, i])
    return out
