"""What the floats of a row are: `[weights w | optimizer state | frequency | last seen]`, one stretch of memory.

A pull reads only the weights; a push reads and writes the whole row, so keeping the state beside the weights costs one
place in memory instead of two.
"""

from dataclasses import dataclass

from kuberec_api.model import SparseOptimizerKind


def _state_width(width: int, optimizer: SparseOptimizerKind) -> int:
    match optimizer:
        case SparseOptimizerKind.ROWWISE_ADAGRAD:
            return 1
        case SparseOptimizerKind.ADAGRAD:
            return width
        case SparseOptimizerKind.ADAM:
            return 2 * width + 1
        case SparseOptimizerKind.FTRL:
            return 2 * width
        case SparseOptimizerKind.SGD:
            return 0


@dataclass(frozen=True)
class RowLayout:
    """Places inside a row, in floats (4 bytes).

    Attributes:
        width: weights of a row.
        state: floats of optimizer state: the accumulator, 1 (RowwiseAdagrad) or `width` (Adagrad); `[m | v | steps]`,
            2 * `width` + 1 (Adam); `[z | n]`, 2 * `width` (FTRL); 0 (SGD).
    """

    width: int
    state: int

    @classmethod
    def of(cls, width: int, optimizer: SparseOptimizerKind) -> "RowLayout":
        """Layout of rows of `width` weights under `optimizer`."""
        if not 1 <= width <= 1024:
            raise ValueError(f"row width must be between 1 and 1024, got {width}")
        return cls(width, _state_width(width, optimizer))

    @property
    def frequency(self) -> int:
        """Column of the number of pushes that touched the row, a uint32 kept as bits of a float32."""
        return self.width + self.state

    @property
    def last_seen(self) -> int:
        """Column of the time of the last push, seconds since the epoch, a uint32 kept as bits of a float32."""
        return self.width + self.state + 1

    @property
    def stride(self) -> int:
        """Floats of a row as copied out of the table (`Rows.raw`)."""
        return self.width + self.state + 2

    @property
    def pitch(self) -> int:
        """Floats from one row to the next in memory: the stride rounded up to 16 bytes."""
        return -(-self.stride // 4) * 4
