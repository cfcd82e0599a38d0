"""Where a row's floats are: a body, `[weights | vectors of optimizer state]`, and a tail of single numbers.

A tail is `[a scalar of state, if the optimizer has one | frequency | last seen]`. Body and tail are one stretch of
memory, as a push reads and writes both, unless bodies fill whole cache lines: then tails have an array of their own,
since they would push the bodies off their lines, and to touch one line more costs as much as to read the weights.
Copied out of the table a row is always one stretch (`Rows.raw`).
"""

from dataclasses import dataclass

from kuberec_api.model import SparseOptimizerKind
from kuberec_runtime.table.sizes import LINE, Size, sizes


def _state(width: int, optimizer: SparseOptimizerKind) -> tuple[int, int]:
    """Floats of state in the body and in the tail."""
    match optimizer:
        case SparseOptimizerKind.ROWWISE_ADAGRAD:
            return 0, 1
        case SparseOptimizerKind.ADAGRAD:
            return width, 0
        case SparseOptimizerKind.ADAM:
            return 2 * width, 1
        case SparseOptimizerKind.FTRL:
            return 2 * width, 0
        case SparseOptimizerKind.SGD:
            return 0, 0


@dataclass(frozen=True)
class RowLayout:
    """Places inside a row, in floats (4 bytes).

    Attributes:
        width: weights of a row.
        vectors: floats of optimizer state in the body: the accumulator, `width` (Adagrad); `[m | v]` (Adam) and
            `[z | n]` (FTRL), 2 * `width`; 0 (RowwiseAdagrad, SGD).
        scalars: floats of optimizer state in the tail: the accumulator (RowwiseAdagrad) or the steps (Adam), 1; else 0.
    """

    width: int
    vectors: int
    scalars: int

    @classmethod
    def of(cls, width: int, optimizer: SparseOptimizerKind) -> "RowLayout":
        """Layout of rows of `width` weights under `optimizer`."""
        if not 1 <= width <= 1024:
            raise ValueError(f"row width must be between 1 and 1024, got {width}")
        return cls(width, *_state(width, optimizer))

    @property
    def state(self) -> int:
        """Floats of optimizer state."""
        return self.vectors + self.scalars

    @property
    def body(self) -> int:
        """Floats of the body."""
        return self.width + self.vectors

    @property
    def tail(self) -> int:
        """Floats of the tail."""
        return self.scalars + 2

    @property
    def stride(self) -> int:
        """Floats of a row as copied out of the table (`Rows.raw`)."""
        return self.body + self.tail

    @property
    def frequency(self) -> int:
        """Column in `Rows.raw` of the number of pushes that touched the row, a uint32 kept as bits of a float32."""
        return self.body + self.scalars

    @property
    def last_seen(self) -> int:
        """Column in `Rows.raw` of the time of the last push, seconds since the epoch, a uint32 kept as `frequency`."""
        return self.frequency + 1

    @property
    def apart(self) -> bool:
        """Whether tails have an array of their own."""
        return self.body % LINE == 0

    @property
    def pitch(self) -> int:
        """Floats from one body to the next: rounded up to 16 bytes."""
        return self.body if self.apart else -(-self.stride // 4) * 4

    @property
    def tail_pitch(self) -> int:
        """Floats from one tail to the next: apart, a power of two, so that no tail lies in two cache lines."""
        return (2 if self.tail == 2 else 4) if self.apart else self.pitch

    @property
    def row_bytes(self) -> int:
        """Bytes of a row in memory."""
        return 4 * (self.pitch + (self.tail_pitch if self.apart else 0))

    @property
    def weights_shape(self) -> tuple[Size, ...]:
        """Of `kernels.gather`, for the weights alone."""
        return sizes(self.width, self.pitch, self.width)

    @property
    def step_shape(self) -> tuple[Size, ...]:
        """Of the kernels that take an optimizer's step."""
        return sizes(self.width, self.pitch, self.tail_pitch, self.width)

    @property
    def raw_shape(self) -> tuple[int, ...]:
        """Of `kernels.gather_raw` and `scatter_raw`, which are compiled once for all rows."""
        return self.pitch, self.tail_pitch, self.body, self.tail
