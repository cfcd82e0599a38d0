"""Memory as the kernels see it: Arrow buffers by address, read and written without alignment and without Python.

Addresses (int64) instead of arrays give every kernel one signature, whatever the columns' types, so that one compiled
program runs every plan. Loads and stores have alignment 1, because Arrow slices and IPC bodies may start anywhere.
"""

from typing import Any

import numba as nb
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

_LLVM = {1: ir.IntType(8), 4: ir.IntType(32), 8: ir.IntType(64)}


def _load(llvm: ir.Type, result: types.Type, signed: bool = False) -> Any:
    @intrinsic
    def load(typing_context: Any, address: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            value = builder.load(builder.inttoptr(arguments[0], llvm.as_pointer()), typ=llvm)
            value.align = 1
            if isinstance(llvm, ir.IntType) and llvm.width < 64:
                value = (builder.sext if signed else builder.zext)(value, _LLVM[8])
            return value

        return result(types.int64), generate

    return load


def _store(llvm: ir.Type, argument: types.Type) -> Any:
    @intrinsic
    def store(typing_context: Any, address: Any, value: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            value = arguments[1]
            if isinstance(llvm, ir.IntType) and llvm.width < 64:
                value = builder.trunc(value, llvm)
            instruction = builder.store(value, builder.inttoptr(arguments[0], llvm.as_pointer()))
            instruction.align = 1
            return context.get_dummy_value()

        return types.void(types.int64, argument), generate

    return store


@intrinsic
def get(typing_context: Any, row: Any, field: Any) -> Any:
    """The int64 at a field of a row of one of the tables of `featuregen.kernels.layout`."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        address = builder.add(arguments[0], builder.mul(arguments[1], ir.Constant(_LLVM[8], 8)))
        return builder.load(builder.inttoptr(address, _LLVM[8].as_pointer()), typ=_LLVM[8])

    return types.int64(types.int64, types.int64), generate


@intrinsic
def put(typing_context: Any, row: Any, field: Any, value: Any) -> Any:
    """Writes the int64 at a field of a row of a table."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        address = builder.add(arguments[0], builder.mul(arguments[1], ir.Constant(_LLVM[8], 8)))
        builder.store(arguments[2], builder.inttoptr(address, _LLVM[8].as_pointer()))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), generate


@intrinsic
def trailing_zeros(typing_context: Any, value: Any) -> Any:
    """Position of the lowest bit that is set, of an int64 that is not 0."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.int64), generate


@intrinsic
def pop_count(typing_context: Any, value: Any) -> Any:
    """Number of bits that are set in an int64."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return types.int64(types.int64), generate


@intrinsic
def bit_length(typing_context: Any, value: Any) -> Any:
    """Number of bits of an int64 that is not negative, without leading zeros."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.sub(ir.Constant(_LLVM[8], 64), builder.ctlz(arguments[0], ir.Constant(ir.IntType(1), 0)))

    return types.int64(types.int64), generate


@intrinsic
def multiply_high(typing_context: Any, a: Any, b: Any) -> Any:
    """The upper 64 bits of the product of two uint64."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        wide = ir.IntType(128)
        product = builder.mul(*(builder.zext(argument, wide) for argument in arguments))
        return builder.trunc(builder.lshr(product, ir.Constant(wide, 64)), _LLVM[8])

    return types.uint64(types.uint64, types.uint64), generate


@intrinsic
def opaque(typing_context: Any, value: Any) -> Any:
    """The same int64, of which the compiler knows nothing: so that it cannot split a condition into two branches."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = ir.FunctionType(_LLVM[8], [_LLVM[8]])
        return builder.call(ir.InlineAsm(kind, "", "=r,0", side_effect=False), [arguments[0]])

    return types.int64(types.int64), generate


load_u8 = _load(_LLVM[1], types.uint64)
load_u32 = _load(_LLVM[4], types.uint64)
load_u64 = _load(_LLVM[8], types.uint64)
load_i32 = _load(_LLVM[4], types.int64, signed=True)
load_i64 = _load(_LLVM[8], types.int64)
load_f64 = _load(ir.DoubleType(), types.float64)
store_u8 = _store(_LLVM[1], types.int64)
store_i32 = _store(_LLVM[4], types.int64)
store_i64 = _store(_LLVM[8], types.int64)
store_f32 = _store(ir.FloatType(), types.float32)
store_f64 = _store(ir.DoubleType(), types.float64)

jit = nb.njit(nogil=True, boundscheck=False, error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)
"""Inner kernels: callable from kernels only (half the compile time), and cached only as a part of the whole program."""


@jit
def is_valid(bitmap: int, bit: int) -> bool:
    """Says whether a bit of an Arrow validity bitmap is set; address 0 means that all are."""
    return bitmap == 0 or (nb.int64(load_u8(bitmap + (bit >> 3))) >> (bit & 7)) & 1 == 1


@jit
def equal_bytes(a: int, b: int, size: int) -> bool:
    """Compares two texts of the same length; the last whole word may overlap the one before it."""
    if size >= 8:
        for at in range(0, size - 8, 8):
            if load_u64(a + at) != load_u64(b + at):
                return False
        return load_u64(a + size - 8) == load_u64(b + size - 8)
    if size >= 4:
        return load_u32(a) == load_u32(b) and load_u32(a + size - 4) == load_u32(b + size - 4)
    for at in range(size):
        if load_u8(a + at) != load_u8(b + at):
            return False
    return True


@jit
def copy_bytes(target: int, source: int, size: int) -> None:
    """Copies a text that does not overlap its target."""
    if size >= 8:
        for at in range(0, size - 8, 8):
            store_i64(target + at, load_i64(source + at))
        store_i64(target + size - 8, load_i64(source + size - 8))
    elif size >= 4:
        last = load_i32(source + size - 4)
        store_i32(target, load_i32(source))
        store_i32(target + size - 4, last)
    else:
        for at in range(size):
            store_u8(target + at, nb.int64(load_u8(source + at)))


@jit
def copy_short(target: int, source: int, size: int) -> None:
    """Copies a text, of 16 bytes mostly, and what is behind it: both need room for 16 bytes more. Nothing branches."""
    store_i64(target, load_i64(source))
    store_i64(target + 8, load_i64(source + 8))
    for at in range(16, size, 8):
        store_i64(target + at, load_i64(source + at))


@jit
def write_decimal(target: int, value: int) -> int:
    """Writes the decimal text of an int64 (at most 20 bytes) and returns its length."""
    magnitude = nb.uint64(value)
    start = 0
    if value < 0:
        magnitude = nb.uint64(0) - magnitude
        store_u8(target, 45)
        start = 1
    digits = 1
    rest = magnitude // nb.uint64(10)
    while rest > nb.uint64(0):
        rest = rest // nb.uint64(10)
        digits += 1
    for place in range(digits - 1, -1, -1):
        store_u8(target + start + place, nb.int64(magnitude % nb.uint64(10)) + 48)
        magnitude = magnitude // nb.uint64(10)
    return start + digits


@jit
def parse_digits(text: int, size: int) -> int:
    """Returns the number that 1 to 18 ASCII digits say, -1 for any other text."""
    if size < 1 or size > 18:
        return -1
    value = 0
    for at in range(size):
        digit = nb.int64(load_u8(text + at)) - 48
        if digit < 0 or digit > 9:
            return -1
        value = value * 10 + digit
    return value
