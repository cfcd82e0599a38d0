"""Lengths of rows, for kernels: of short rows they are part of the type, so loops over a row become straight code.

A number that the compiler shall know is passed as a tuple of that many zeros, since a tuple's length belongs to its
type; `size_of` reads both kinds. A push of random rows of 16 weights takes a fifth less time so. Only widths that
models use are worth a compilation of their own.
"""

from typing import Any

from numba.core import types
from numba.extending import overload

Size = int | tuple[int, ...]

LINE = 16
"""Floats of a cache line."""
KNOWN_WIDTHS = frozenset((8, 9, 16, 17, 32, 33))
"""Powers of two, and one more for the linear weight."""
LONGEST_KNOWN = 48


def sizes(width: int, *lengths: int) -> tuple[Size, ...]:
    """The lengths as a kernel takes them, for rows of `width` weights: all known to the compiler, or none."""
    if width in KNOWN_WIDTHS and max(lengths) <= LONGEST_KNOWN:
        return tuple((0,) * length for length in lengths)
    return lengths


def size_of(size: Size) -> int:
    """The number that a size stands for. For kernels."""
    return size if isinstance(size, int) else len(size)


def fills_lines(size: Size) -> bool:
    """Whether a size is known to be whole cache lines. For kernels: a constant, so a branch on it costs nothing."""
    return not isinstance(size, int) and len(size) % LINE == 0


def _is_known(size: Any) -> bool:
    return isinstance(size, types.BaseTuple)  # type: ignore[attr-defined]


@overload(size_of, inline="always", strict=False)
def _size_of(size: Any) -> Any:
    return (lambda size: len(size)) if _is_known(size) else (lambda size: size)


@overload(fills_lines, inline="always", strict=False)
def _fills_lines(size: Any) -> Any:
    whole = _is_known(size) and len(size) % LINE == 0
    return (lambda size: True) if whole else (lambda size: False)
