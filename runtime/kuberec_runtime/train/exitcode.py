"""What an error means for the next attempt: one table, read by the driver's entrypoint and shown to the operator.

Exit codes follow sysexits.h in 64..78: the operator never retries those. Everything else is worth another attempt.
"""

from dataclasses import dataclass

from featuregen.errors import FeatureError
from kuberec_api.layout import NetworkError
from kuberec_runtime.checkpoint import CorruptLog, Fenced, NothingToRestore, StoreError
from kuberec_runtime.publish.errors import StalePublication
from kuberec_runtime.stream.source import SourceError
from kuberec_runtime.train.fleet import LostError
from kuberec_runtime.train.job import InvalidInputError
from kuberec_runtime.train.ledger import CountMismatchError, DigestMismatchError
from kuberec_runtime.train.rowstate import OptimizerMismatchError
from kuberec_runtime.train.warmstart import WarmStartError

EX_USAGE, EX_DATAERR, EX_SOFTWARE, EX_CONFIG = 64, 65, 70, 78
RETRY = 1


@dataclass(frozen=True)
class Ending:
    """Reason for the condition, exit code, and whether another attempt can help."""

    reason: str
    exit_code: int

    @property
    def permanent(self) -> bool:
        """True for exit codes that are never retried."""
        return EX_USAGE <= self.exit_code <= EX_CONFIG


_ENDINGS: tuple[tuple[type[BaseException], str, int], ...] = (
    (InvalidInputError, "InvalidInput", EX_USAGE),
    (FeatureError, "InvalidFeature", EX_CONFIG),
    (NetworkError, "InvalidNetwork", EX_CONFIG),
    (DigestMismatchError, "DigestMismatch", EX_CONFIG),
    (OptimizerMismatchError, "OptimizerMismatch", EX_CONFIG),
    (WarmStartError, "WarmStartFailed", EX_CONFIG),
    (CorruptLog, "CorruptLog", EX_DATAERR),
    (NothingToRestore, "NothingToRestore", EX_DATAERR),
    (FloatingPointError, "Diverged", EX_DATAERR),
    (Fenced, "Fenced", EX_SOFTWARE),
    (StalePublication, "Fenced", EX_SOFTWARE),
    (CountMismatchError, "CountMismatch", RETRY),
    (StoreError, "CheckpointFailed", RETRY),
    (TimeoutError, "TimedOut", RETRY),
)


def classify(error: BaseException) -> Ending:
    """Returns what `error` means for the training."""
    if isinstance(error, SourceError):
        return Ending(error.reason, EX_DATAERR if error.permanent else RETRY)
    if isinstance(error, LostError):
        return Ending(error.reason, RETRY)
    for kind, reason, code in _ENDINGS:
        if isinstance(error, kind):
            return Ending(reason, code)
    return Ending(type(error).__name__, RETRY)
