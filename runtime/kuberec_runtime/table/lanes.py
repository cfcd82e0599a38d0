"""Vector instructions that numba would not emit by itself: 4, 8 or 16 float lanes at once, and prefetch.

numba cannot prove that two arrays do not overlap and therefore leaves row loops scalar; these intrinsics say it.
Processors without AVX-512 run them as narrower instructions. Each function has a scalar twin in `rowops`, which does
the same roundings in the same order, so the bits agree.
"""

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

_FLOAT = ir.FloatType()
_I32 = ir.IntType(32)


def _vector(lanes: int) -> Any:
    return ir.VectorType(_FLOAT, lanes)


def _pointer(context: Any, builder: Any, array_type: Any, value: Any, index: Any, lanes: int) -> Any:
    array = context.make_array(array_type)(context, builder, value)
    return builder.bitcast(builder.gep(array.data, [index]), _vector(lanes).as_pointer())


def _load(builder: Any, pointer: Any) -> Any:
    out = builder.load(pointer)
    out.align = 4
    return out


def _store(builder: Any, value: Any, pointer: Any) -> None:
    builder.store(value, pointer).align = 4


def _splat(builder: Any, scalar: Any, lanes: int) -> Any:
    undefined = ir.Constant(_vector(lanes), ir.Undefined)
    one = builder.insert_element(undefined, scalar, ir.Constant(_I32, 0))
    return builder.shuffle_vector(one, undefined, ir.Constant(ir.VectorType(_I32, lanes), [0] * lanes))


def _sqrt(builder: Any, value: Any, lanes: int) -> Any:
    vector = _vector(lanes)
    function = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(vector, [vector]), f"llvm.sqrt.v{lanes}f32"
    )
    return builder.call(function, [value])


def _prefetch(write: int, locality: int = 3) -> Any:
    @intrinsic
    def prefetch(typingctx: Any, array: Any, index: Any) -> Any:
        """Asks for the cache line of `array[index]`; any index is safe, a wrong one is only useless."""
        signature = types.void(array, types.int64)

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            value = context.make_array(signature.args[0])(context, builder, args[0])
            byte = ir.IntType(8).as_pointer()
            pointer = builder.bitcast(builder.gep(value.data, [args[1]]), byte)
            kind = ir.FunctionType(ir.VoidType(), [byte, _I32, _I32, _I32])
            function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
            builder.call(function, [pointer, *(ir.Constant(_I32, flag) for flag in (write, locality, 1))])
            return context.get_dummy_value()

        return signature, codegen

    return prefetch


@intrinsic
def trailing_zeros(typingctx: Any, word: Any) -> Any:
    """How many of the lowest bits of an int64 other than 0 are 0."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.int64), codegen


def _copy(lanes: int) -> Any:
    @intrinsic
    def copy(typingctx: Any, dst: Any, di: Any, src: Any, si: Any) -> Any:
        signature = types.void(dst, types.int64, src, types.int64)

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            to = _pointer(context, builder, signature.args[0], args[0], args[1], lanes)
            _store(builder, _load(builder, _pointer(context, builder, signature.args[2], args[2], args[3], lanes)), to)
            return context.get_dummy_value()

        return signature, codegen

    return copy


def _sgd(lanes: int) -> Any:
    @intrinsic
    def sgd(typingctx: Any, w: Any, wi: Any, g: Any, gi: Any, rate: Any) -> Any:
        """One step of SGD: w -= rate * g."""
        signature = types.void(w, types.int64, g, types.int64, types.float32)

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            at = _pointer(context, builder, signature.args[0], args[0], args[1], lanes)
            grad = _load(builder, _pointer(context, builder, signature.args[2], args[2], args[3], lanes))
            step = builder.fmul(_splat(builder, args[4], lanes), grad)
            _store(builder, builder.fsub(_load(builder, at), step), at)
            return context.get_dummy_value()

        return signature, codegen

    return sgd


def _adagrad(lanes: int) -> Any:
    @intrinsic
    def adagrad(typingctx: Any, w: Any, wi: Any, ai: Any, g: Any, gi: Any, rate: Any, epsilon: Any) -> Any:
        """One step of Adagrad: acc += g * g; w -= rate * g / (sqrt(acc) + epsilon), acc in the same array at `ai`."""
        signature = types.void(w, types.int64, types.int64, g, types.int64, types.float32, types.float32)

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            weight = _pointer(context, builder, signature.args[0], args[0], args[1], lanes)
            state = _pointer(context, builder, signature.args[0], args[0], args[2], lanes)
            grad = _load(builder, _pointer(context, builder, signature.args[3], args[3], args[4], lanes))
            acc = builder.fadd(_load(builder, state), builder.fmul(grad, grad))
            _store(builder, acc, state)
            below = builder.fadd(_sqrt(builder, acc, lanes), _splat(builder, args[6], lanes))
            step = builder.fdiv(builder.fmul(_splat(builder, args[5], lanes), grad), below)
            _store(builder, builder.fsub(_load(builder, weight), step), weight)
            return context.get_dummy_value()

        return signature, codegen

    return adagrad


def _adam(lanes: int) -> Any:
    @intrinsic
    def adam(
        typingctx: Any, w: Any, wi: Any, mi: Any, vi: Any, g: Any, gi: Any, rate: Any, epsilon: Any,
        keep1: Any, take1: Any, keep2: Any, take2: Any,
    ) -> Any:  # fmt: skip
        """One step of Adam: m = keep1 m + take1 g; v = keep2 v + take2 (g g); w -= rate m / (sqrt(v) + epsilon)."""
        places = (types.int64, types.int64, types.int64, g, types.int64)
        signature = types.void(w, *places, *(types.float32,) * 6)

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            weight, first, second = (
                _pointer(context, builder, signature.args[0], args[0], place, lanes) for place in args[1:4]
            )
            grad = _load(builder, _pointer(context, builder, signature.args[4], args[4], args[5], lanes))
            rate, epsilon, keep1, take1, keep2, take2 = (_splat(builder, scalar, lanes) for scalar in args[6:])
            m = builder.fadd(builder.fmul(keep1, _load(builder, first)), builder.fmul(take1, grad))
            _store(builder, m, first)
            square = builder.fmul(take2, builder.fmul(grad, grad))
            v = builder.fadd(builder.fmul(keep2, _load(builder, second)), square)
            _store(builder, v, second)
            step = builder.fdiv(builder.fmul(rate, m), builder.fadd(_sqrt(builder, v, lanes), epsilon))
            _store(builder, builder.fsub(_load(builder, weight), step), weight)
            return context.get_dummy_value()

        return signature, codegen

    return adam


def _ftrl(lanes: int) -> Any:
    @intrinsic
    def ftrl(
        typingctx: Any, w: Any, wi: Any, zi: Any, ni: Any, g: Any, gi: Any, inverse: Any, epsilon: Any, l1: Any, l2: Any
    ) -> Any:
        """One step of FTRL-Proximal; the formula is at `kernels.ftrl`."""
        places = (types.int64, types.int64, types.int64, g, types.int64)
        signature = types.void(w, *places, *(types.float32,) * 4)

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            weight, linear, squares = (
                _pointer(context, builder, signature.args[0], args[0], place, lanes) for place in args[1:4]
            )
            grad = _load(builder, _pointer(context, builder, signature.args[4], args[4], args[5], lanes))
            inverse, epsilon, l1, l2 = (_splat(builder, scalar, lanes) for scalar in args[6:])
            old = _load(builder, squares)
            new = builder.fadd(old, builder.fmul(grad, grad))
            _store(builder, new, squares)
            root = _sqrt(builder, new, lanes)
            sigma = builder.fmul(builder.fsub(root, _sqrt(builder, old, lanes)), inverse)
            step = builder.fsub(grad, builder.fmul(sigma, _load(builder, weight)))
            z = builder.fadd(_load(builder, linear), step)
            _store(builder, z, linear)
            least = builder.fneg(l1)
            kept = builder.select(builder.fcmp_ordered("<", z, least), least, z)
            kept = builder.select(builder.fcmp_ordered(">", kept, l1), l1, kept)
            below = builder.fadd(builder.fmul(builder.fadd(epsilon, root), inverse), l2)
            _store(builder, builder.fdiv(builder.fsub(kept, z), below), weight)
            return context.get_dummy_value()

        return signature, codegen

    return ftrl


def _squares(lanes: int) -> Any:
    @intrinsic
    def squares(typingctx: Any, acc: Any, ai: Any, g: Any, gi: Any) -> Any:
        """acc[ai + l] += g[gi + l]^2 for every lane l."""
        signature = types.void(acc, types.int64, g, types.int64)

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            at = _pointer(context, builder, signature.args[0], args[0], args[1], lanes)
            grad = _load(builder, _pointer(context, builder, signature.args[2], args[2], args[3], lanes))
            _store(builder, builder.fadd(_load(builder, at), builder.fmul(grad, grad)), at)
            return context.get_dummy_value()

        return signature, codegen

    return squares


def _axpy(lanes: int) -> Any:
    @intrinsic
    def axpy(typingctx: Any, dst: Any, di: Any, src: Any, si: Any, scale: Any) -> Any:
        """One vector of dst += src * scale, rounded twice."""
        signature = types.void(dst, types.int64, src, types.int64, types.float32)

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            at = _pointer(context, builder, signature.args[0], args[0], args[1], lanes)
            source = _load(builder, _pointer(context, builder, signature.args[2], args[2], args[3], lanes))
            step = builder.fmul(source, _splat(builder, args[4], lanes))
            _store(builder, builder.fadd(_load(builder, at), step), at)
            return context.get_dummy_value()

        return signature, codegen

    return axpy


def _sum(lanes: int) -> Any:
    @intrinsic
    def sum_rows(
        typingctx: Any, dst: Any, di: Any, src: Any, si: Any, pitch: Any, index: Any, start: Any, stop: Any,
        weights: Any, scale: Any,
    ) -> Any:  # fmt: skip
        """Sums rows: dst = scale * the sum of src[si + pitch * index[j]] * weights[j] over j, in order and from zero.

        The sum stays in a register. Without weights (None) a row counts once.
        """
        span = (types.int64, index, types.int64, types.int64)
        signature = types.void(dst, types.int64, src, types.int64, *span, weights, types.float32)

        def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            array = context.make_array(signature.args[5])(context, builder, args[5])
            total = cgutils.alloca_once_value(builder, ir.Constant(_vector(lanes), [0.0] * lanes))
            with cgutils.for_range_slice(builder, args[6], args[7], ir.Constant(args[6].type, 1)) as (j, _):
                row = builder.sext(builder.load(builder.gep(array.data, [j])), args[4].type)
                at = builder.add(args[3], builder.mul(row, args[4]))
                term = _load(builder, _pointer(context, builder, signature.args[2], args[2], at, lanes))
                if signature.args[8] != types.none:
                    times = context.make_array(signature.args[8])(context, builder, args[8])
                    weight = builder.load(builder.gep(times.data, [j]))
                    term = builder.fmul(term, _splat(builder, weight, lanes))
                builder.store(builder.fadd(builder.load(total), term), total)
            out = builder.fmul(builder.load(total), _splat(builder, args[9], lanes))
            _store(builder, out, _pointer(context, builder, signature.args[0], args[0], args[1], lanes))
            return context.get_dummy_value()

        return signature, codegen

    return sum_rows


@intrinsic
def tree16(typingctx: Any, acc: Any) -> Any:
    """Sum of 16 floats by halves: lanes l and l + 8, then l and l + 4, l + 2, l + 1."""
    signature = types.float32(acc)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        half = _load(builder, _pointer(context, builder, signature.args[0], args[0], _I32(0), 16))
        for lanes in (8, 4, 2, 1):
            low, high = (
                builder.shuffle_vector(half, half, ir.Constant(ir.VectorType(_I32, lanes), list(range(at, at + lanes))))
                for at in (0, lanes)
            )
            half = builder.fadd(low, high)
        return builder.extract_element(half, _I32(0))

    return signature, codegen


prefetch, prefetch_to_write = _prefetch(0), _prefetch(1)
prefetch_once = _prefetch(0, 0)
copy16, copy8, copy4 = _copy(16), _copy(8), _copy(4)
axpy16, axpy8, axpy4 = _axpy(16), _axpy(8), _axpy(4)
sum16, sum8, sum4 = _sum(16), _sum(8), _sum(4)
sgd16, sgd8, sgd4 = _sgd(16), _sgd(8), _sgd(4)
adagrad16, adagrad8, adagrad4 = _adagrad(16), _adagrad(8), _adagrad(4)
adam16, adam8, adam4 = _adam(16), _adam(8), _adam(4)
ftrl16, ftrl8, ftrl4 = _ftrl(16), _ftrl(8), _ftrl(4)
squares16, squares8, squares4 = _squares(16), _squares(8), _squares(4)
