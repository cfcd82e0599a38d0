"""What a processor does with a whole register, and cache lines that are asked for before they are needed.

Kernels know addresses only, of which LLVM cannot see that they do not overlap, so it makes no vectors by itself.
"""

from typing import Any

import numba as nb
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from featuregen.kernels.memory import jit, load_i64, load_u8, load_u32, store_i64

LANES = 8
_I8, _I32, _I64 = ir.IntType(8), ir.IntType(32), ir.IntType(64)
_WORDS, _WIDE = ir.VectorType(_I32, LANES), ir.VectorType(_I64, LANES)
LINE = 64
"""Bytes of a cache line."""


def _pointer(builder: Any, address: Any, kind: ir.Type) -> Any:
    return builder.inttoptr(address, kind.as_pointer())


def _splat(builder: Any, value: Any, kind: ir.VectorType) -> Any:
    """A vector of one value."""
    lane = builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.Constant(_I32, 0))
    return builder.shuffle_vector(lane, ir.Constant(kind, ir.Undefined), ir.Constant(_WORDS, [0] * LANES))


def _bits(builder: Any, flags: Any) -> Any:
    return builder.zext(builder.bitcast(flags, _I8), _I64)


@intrinsic
def prefetch(typing_context: Any, address: Any) -> Any:
    """Asks for a cache line, and waits for nothing. Any address will do."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        i32 = [ir.Constant(_I32, value) for value in (0, 3, 1)]  # to read, into every cache, data
        kind = ir.FunctionType(ir.VoidType(), [_I8.as_pointer(), _I32, _I32, _I32])
        function = builder.module.globals.get("llvm.prefetch.p0i8") or ir.Function(
            builder.module, kind, "llvm.prefetch.p0i8"
        )
        builder.call(function, [_pointer(builder, arguments[0], _I8), *i32])
        return context.get_dummy_value()

    return types.void(types.int64), generate


@intrinsic
def widen_lanes(typing_context: Any, target: Any, source: Any) -> Any:
    """Writes eight int32 as int64; returns a bit for each that is negative."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        value = builder.load(_pointer(builder, arguments[1], _WORDS), typ=_WORDS)
        value.align = 1
        store = builder.store(builder.sext(value, _WIDE), _pointer(builder, arguments[0], _WIDE))
        store.align = 1
        negative = builder.icmp_signed("<", value, ir.Constant(_WORDS, [0] * LANES))
        return _bits(builder, negative)

    return types.int64(types.int64, types.int64), generate


@intrinsic
def count_lanes(typing_context: Any, target: Any, first: Any) -> Any:
    """Writes eight int32: `first`, `first` + 1, and so on."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        first = _splat(builder, builder.trunc(arguments[1], _I32), _WORDS)
        value = builder.add(first, ir.Constant(_WORDS, list(range(LANES))))
        store = builder.store(value, _pointer(builder, arguments[0], _WORDS))
        store.align = 1
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


@jit
def number_lanes(target: int, numbers: int, codes: int) -> None:
    """Writes the int64 that `numbers` has under each of eight codes, uint32.

    Not by the processor's own instruction for it, which is slow on those that had to be mended.
    """
    for lane in range(LANES):
        store_i64(target + 8 * lane, load_i64(numbers + 8 * nb.int64(load_u32(codes + 4 * lane))))


@jit
def mark_lanes(marks: int, codes: int, left: int) -> Any:
    """The bytes that `marks` has under eight codes, uint32, the first as the lowest; 0 behind the `left` first ones."""
    found = nb.uint64(0)
    for lane in range(LANES):
        found |= load_u8(marks + nb.int64(load_u32(codes + 4 * lane))) << nb.uint64(8 * lane)
    beyond = nb.uint64(8 * max(LANES - left, 0))
    return (found << beyond) >> beyond


@jit
def prefetch_lines(address: int, size: int) -> None:
    """Asks for all lines of some bytes, one at least."""
    for at in range(0, size, LINE):
        prefetch(address + at)
    prefetch(address + size - 1)
