"""Arrow arrays as kernels read them through Arrow's C data interface: an export costs less than looking at buffers.

An address here is that of a `struct ArrowArray`; its fields are fixed by Arrow's specification.
"""

from typing import Any

import numba as nb
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from featuregen.kernels.memory import is_valid, jit, load_f64, load_i32, load_i64, write_decimal

ARRAY_BYTES = 80
"""Size of a `struct ArrowArray`."""
_LENGTH, _NULLS, _OFFSET, _BUFFERS, _CHILDREN, _RELEASE = 0, 8, 16, 40, 48, 64


@intrinsic
def _call(typing_context: Any, function: Any, argument: Any) -> Any:
    """Calls a C function `void (*)(void *)`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = ir.FunctionType(ir.VoidType(), [ir.IntType(64)])
        builder.call(builder.inttoptr(arguments[0], kind.as_pointer()), [arguments[1]])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


@jit
def length_of(array: int) -> int:
    """Number of elements."""
    return load_i64(array + _LENGTH)


@jit
def nulls_of(array: int) -> int:
    """Number of missing elements, -1 if nobody has counted."""
    return load_i64(array + _NULLS)


@jit
def offset_of(array: int) -> int:
    """Position of the first element in the buffers."""
    return load_i64(array + _OFFSET)


@jit
def user_array(exported: int, index: int) -> int:
    """One of the exported arrays, whose addresses are int64[n] at `exported`."""
    return load_i64(exported + 8 * index)


@jit
def release(structures: int, count: int) -> None:
    """Gives exported arrays, one structure behind the other, back to Arrow."""
    for index in range(count):
        array = structures + ARRAY_BYTES * index
        if load_i64(array + _RELEASE) != 0:
            _call(load_i64(array + _RELEASE), array)


@jit
def child(array: int, index: int) -> int:
    """A field of a struct, the elements of a list, or the entries of a map."""
    return load_i64(load_i64(array + _CHILDREN) + 8 * index)


@jit
def buffer_of(array: int, index: int) -> int:
    """Address of one of an array's buffers, 0 if it has none."""
    return load_i64(load_i64(array + _BUFFERS) + 8 * index)


@jit
def is_present(array: int, element: int) -> bool:
    """Says whether an element is not null."""
    if nulls_of(array) == 0:
        return True
    return is_valid(buffer_of(array, 0), offset_of(array) + element)


@jit
def list_span(array: int, element: int) -> Any:
    """First and last + 1 child element of a list or map; of a null none."""
    if not is_present(array, element):
        return nb.int64(0), nb.int64(0)
    place = buffer_of(array, 1) + 4 * (offset_of(array) + element)
    return load_i32(place), load_i32(place + 4)


@jit
def text_at(array: int, element: int) -> Any:
    """Address and length of a text, length 0 of a null."""
    if not is_present(array, element):
        return nb.int64(0), nb.int64(0)
    place = buffer_of(array, 1) + 4 * (offset_of(array) + element)
    start = load_i32(place)
    return buffer_of(array, 2) + start, load_i32(place + 4) - start


@jit
def float_at(array: int, element: int) -> float:
    """A float64, NaN if it is null."""
    if not is_present(array, element):
        return float("nan")
    return load_f64(buffer_of(array, 1) + 8 * (offset_of(array) + element))


@jit
def int_at(array: int, element: int) -> int:
    """An int64, whatever is there if it is null."""
    return load_i64(buffer_of(array, 1) + 8 * (offset_of(array) + element))


@jit
def decimal_at(array: int, element: int, scratch: int) -> Any:
    """Address and length of the decimal text of an int64, written to `scratch`; length 0 of a null."""
    if not is_present(array, element):
        return nb.int64(0), nb.int64(0)
    return scratch, write_decimal(scratch, int_at(array, element))


@jit
def entry(entries: int, index: int) -> int:
    """Position in the keys and the values of an entry of a map: entries are a struct, which may have an offset."""
    return offset_of(entries) + index
