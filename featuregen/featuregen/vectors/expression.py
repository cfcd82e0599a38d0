"""Expressions in NumPy: every instruction is computed for all rows at once.

Arithmetic and roots are exact to the bit by IEEE 754. For the other functions NumPy has code of its own that differs
from the C library in the last bit, so they are called value by value.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from featuregen.expression import Code, Program, operands
from featuregen.plan import Operation
from featuregen.vectors.columns import Reader
from featuregen.vectors.spans import Flags, Floats, Ints, Spans, fold

Vectors = tuple[Spans, Floats]


def expression(reader: Reader, operation: Operation, rows: int) -> Floats:
    """Returns an expression's numbers; missing where a variable that it reads is, or where lengths do not fit."""
    program, width = operation.program, operation.dim
    assert program is not None
    read, whole = _variables(program)
    variables = [reader.vectors(name, rows) for name in operation.columns]
    missing = np.zeros(rows, np.bool_)
    for index in read | {one for pair in whole for one in pair}:
        if operation.fill_missing:
            variables[index] = _filled(*variables[index])
        else:
            missing |= _lacking(*variables[index])
    for index in read:
        lengths = variables[index][0].lengths
        missing |= (lengths != 1) & (lengths != width)
    for first, second in whole:
        missing |= variables[first][0].lengths != variables[second][0].lengths

    def element(index: int) -> Floats:
        spans, numbers = variables[index]
        if not len(numbers):
            return np.full((rows, 1), np.nan)
        lengths = spans.lengths
        steps = np.arange(width) * (lengths[:, None] == width)
        return numbers[np.minimum(spans.starts[:, None] + steps, len(numbers) - 1)]

    result = evaluate(program, element, rows, variables)
    return np.where(missing[:, None], np.nan, np.broadcast_to(result, (rows, width)))


def _variables(program: Program) -> tuple[set[int], set[tuple[int, int]]]:
    """Returns the variables that are read by element, and the pairs of those that are read whole."""
    read = {argument for code, argument in program.code if code == Code.VARIABLE}
    return read, {(argument % 256, argument // 256) for code, argument in program.code if code >= Code.LENGTH}


def _filled(spans: Spans, numbers: Floats) -> Vectors:
    """A missing number is 0, and so is the only element of a missing list."""
    numbers = np.concatenate((np.where(np.isnan(numbers), 0.0, numbers), np.zeros(1)))
    zero, empty = len(numbers) - 1, spans.lengths == 0
    return Spans(np.where(empty, zero, spans.starts), np.where(empty, zero + 1, spans.stops)), numbers


def _lacking(spans: Spans, numbers: Floats) -> Flags:
    """Flags empty lists, and those with a missing element."""
    before = np.concatenate((np.zeros(1, np.int64), np.cumsum(np.isnan(numbers))))
    return (spans.lengths == 0) | (before[spans.stops] > before[spans.starts])


def evaluate(program: Program, element: Callable[[int], Floats], rows: int, vectors: Sequence[Vectors] = ()) -> Floats:
    """Runs a program.

    Args:
        program: the program.
        element: returns a variable's numbers, float64[rows, 1] or [rows, width].
        rows: number of rows.
        vectors: the variables as whole vectors, for functions of them.

    Returns:
        float64[rows, 1] or [rows, width].
    """
    stack: list[Floats] = []
    with np.errstate(all="ignore"):
        for code, argument in program.code:
            if code == Code.CONSTANT:
                stack.append(np.full((rows, 1), program.constants[argument]))
            elif code == Code.VARIABLE:
                stack.append(element(argument))
            elif code >= Code.LENGTH:
                stack.append(_of_vectors(Code(code), vectors[argument % 256], vectors[argument // 256])[:, None])
            else:
                taken = operands(code)
                arguments = stack[-taken:]
                stack[-taken:] = [_FUNCTIONS[Code(code)](*arguments)]
    return stack[0]


def _of_vectors(code: Code, a: Vectors, b: Vectors) -> Floats:
    (spans, x), count = a, a[0].lengths
    if code == Code.LENGTH:
        return count.astype(np.float64)
    if code in (Code.REDUCE_SUM, Code.REDUCE_MEAN):
        return _sum(x, spans) / (count if code == Code.REDUCE_MEAN else 1)
    if code in _REDUCTIONS:
        return fold(x, spans, _REDUCTIONS[code])
    if code in (Code.SQUARED_NORM, Code.L2_NORM):
        squares = _sum(x * x, spans)
        return squares if code == Code.SQUARED_NORM else np.sqrt(squares)
    if code in (Code.VARIANCE, Code.STD_DEV, Code.POP_VARIANCE, Code.POP_STD_DEV):
        deviations, spans = _deviations(spans, x)
        divisor = count if code in (Code.VARIANCE, Code.STD_DEV) else count - 1
        variance = _sum(deviations * deviations, spans) / divisor
        return variance if code in (Code.VARIANCE, Code.POP_VARIANCE) else np.sqrt(variance)
    return _of_two(code, a, b)


_REDUCTIONS = {Code.REDUCE_MIN: "min", Code.REDUCE_MAX: "max", Code.REDUCE_PROD: "product"}


def _sum(x: Floats, spans: Spans) -> Floats:
    """A sum that starts at 0.0: it is never -0.0."""
    return fold(x, spans, "sum") + 0.0


def _deviations(spans: Spans, x: Floats) -> tuple[Floats, Spans]:
    """Returns each element's difference from its row's mean, row by row."""
    row, element = spans.expand()
    stops = np.cumsum(spans.lengths)
    mean = _sum(x, spans) / spans.lengths
    return x[element] - mean[row], Spans(stops - spans.lengths, stops)


def _of_two(code: Code, a: Vectors, b: Vectors) -> Floats:
    """dot, euclid_dist and corr of vectors of equal lengths; others are cut, and missing anyway."""
    shorter = np.minimum(a[0].lengths, b[0].lengths)
    first, second = (Spans(spans.starts, spans.starts + shorter) for spans, _ in (a, b))
    x, y = a[1][first.expand()[1]], b[1][second.expand()[1]]
    stops = np.cumsum(shorter)
    spans = Spans(stops - shorter, stops)
    if code == Code.DOT:
        return _sum(x * y, spans)
    if code == Code.EUCLID_DISTANCE:
        return np.sqrt(_sum((x - y) * (x - y), spans))
    dx, dy = _deviations(spans, x)[0], _deviations(spans, y)[0]
    return _sum(dx * dy, spans) / np.sqrt(_sum(dx * dx, spans) * _sum(dy * dy, spans))


def _by_value(function: Callable[..., float], otherwise: Any) -> Callable[..., Floats]:
    """Makes a function of arrays that calls the C library for each value.

    Python raises where C returns NaN or an infinity; there NumPy's result is the one that C has.
    """

    def one(*values: float) -> float:
        try:
            return function(*values)
        except (ValueError, OverflowError, ZeroDivisionError):
            return float(otherwise(*values))

    def each(*arrays: Floats) -> Floats:
        flat = [array.reshape(-1).tolist() for array in np.broadcast_arrays(*arrays)]
        shape = np.broadcast_shapes(*(array.shape for array in arrays))
        return np.fromiter(map(one, *flat), np.float64, len(flat[0])).reshape(shape)

    return each


def _nan(*_: float) -> float:
    return math.nan


def _round(x: Floats) -> Floats:
    """Half away from zero."""
    whole = np.trunc(x)
    return np.where(np.abs(x - whole) >= 0.5, whole + np.copysign(1.0, x), whole)


def _whole(x: Floats) -> tuple[Ints, Flags]:
    """Returns numbers truncated to int64, and which of them fit."""
    whole = np.trunc(x)
    fits = (whole >= -(2.0**63)) & (whole < 2.0**63)
    return np.where(fits, whole, 0.0).astype(np.int64), fits


def _bits(operator: Any) -> Callable[[Floats, Floats], Floats]:
    def apply(a: Floats, b: Floats) -> Floats:
        (x, x_fits), (y, y_fits) = _whole(a), _whole(b)
        return np.where(x_fits & y_fits, operator(x, y).astype(np.float64), np.nan)

    return apply


def _select(condition: Floats, then: Floats, other: Floats) -> Floats:
    return np.where(condition != 0.0, then, other)


def _truth(compare: Any) -> Callable[..., Floats]:
    return lambda *arrays: compare(*arrays).astype(np.float64)


_RADIAN, _EARTH_KM = math.pi / 180, 6371.0


def _haversine(lng1: float, lat1: float, lng2: float, lat2: float) -> float:
    f1, f2 = lat1 * _RADIAN, lat2 * _RADIAN
    a, b = math.sin((f2 - f1) / 2.0), math.sin((lng2 - lng1) * _RADIAN / 2.0)
    root = math.sqrt(a * a + math.cos(f1) * math.cos(f2) * b * b)
    return 2.0 * _EARTH_KM * math.asin(1.0 if root > 1.0 else root)  # NaN stays NaN


def _sphere_distance(lng1: float, lat1: float, lng2: float, lat2: float) -> float:
    f1, f2 = lat1 * _RADIAN, lat2 * _RADIAN
    turn = math.cos((lng2 - lng1) * _RADIAN)
    cosine = math.sin(f1) * math.sin(f2) + math.cos(f1) * math.cos(f2) * turn
    return _EARTH_KM * math.acos(1.0 if cosine > 1.0 else -1.0 if cosine < -1.0 else cosine)


def _extreme(smaller: Any) -> Callable[[Floats, Floats], Floats]:
    """Of equal numbers the first; NaN if one of both is."""
    return lambda a, b: np.where(np.isnan(a) | np.isnan(b), np.nan, np.where(smaller(b, a), b, a))


_exp, _pow = _by_value(math.exp, np.exp), _by_value(math.pow, np.power)


def _round_places(x: Floats, places: Floats) -> Floats:
    scale = _pow(np.full_like(places, 10.0), places)
    return _round(x * scale) / scale


_FUNCTIONS: dict[Code, Callable[..., Floats]] = {
    Code.ADD: np.add,
    Code.SUBTRACT: np.subtract,
    Code.MULTIPLY: np.multiply,
    Code.DIVIDE: np.divide,
    Code.POWER: _pow,
    Code.LESS: _truth(np.less),
    Code.LESS_EQUAL: _truth(np.less_equal),
    Code.EQUAL: _truth(np.equal),
    Code.NOT_EQUAL: _truth(np.not_equal),
    Code.GREATER_EQUAL: _truth(np.greater_equal),
    Code.GREATER: _truth(np.greater),
    Code.AND: _truth(np.logical_and),
    Code.OR: _truth(np.logical_or),
    Code.BIT_AND: _bits(np.bitwise_and),
    Code.BIT_OR: _bits(np.bitwise_or),
    Code.NEGATE: np.negative,
    Code.NOT: _truth(np.logical_not),
    Code.SELECT: _select,
    Code.SIN: _by_value(math.sin, np.sin),
    Code.COS: _by_value(math.cos, np.cos),
    Code.TAN: _by_value(math.tan, np.tan),
    Code.ASIN: _by_value(math.asin, np.arcsin),
    Code.ACOS: _by_value(math.acos, np.arccos),
    Code.ATAN: _by_value(math.atan, np.arctan),
    Code.SINH: _by_value(math.sinh, np.sinh),
    Code.COSH: _by_value(math.cosh, np.cosh),
    Code.TANH: _by_value(math.tanh, np.tanh),
    Code.ASINH: _by_value(math.asinh, np.arcsinh),
    Code.ACOSH: _by_value(math.acosh, np.arccosh),
    Code.ATANH: _by_value(math.atanh, np.arctanh),
    Code.LOG2: _by_value(math.log2, np.log2),
    Code.LOG10: _by_value(math.log10, np.log10),
    Code.LOG: _by_value(math.log, np.log),
    Code.EXP: _exp,
    Code.SQRT: np.sqrt,
    Code.SIGN: np.sign,
    Code.ABS: np.abs,
    Code.RINT: np.rint,
    Code.FLOOR: np.floor,
    Code.CEIL: np.ceil,
    Code.TRUNC: np.trunc,
    Code.ROUND: _round,
    Code.ROUND_PLACES: _round_places,
    Code.MODULO: np.fmod,
    Code.SIGMOID: lambda x: 1.0 / (1.0 + _exp(-x)),
    Code.IS_NAN: _truth(np.isnan),
    Code.MINIMUM: _extreme(np.less),
    Code.MAXIMUM: _extreme(np.greater),
    Code.SPHERE_DISTANCE: _by_value(_sphere_distance, _nan),
    Code.HAVERSINE: _by_value(_haversine, _nan),
}
