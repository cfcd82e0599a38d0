"""What an expression means: the postfix program of `featuregen.expression`, run by a stack in plain Python.

Numbers are IEEE 754 float64, functions are the C library's (`math`), and where C has no result it is NaN or infinite as
in C; nothing raises. Sums start at 0.0 (products at 1.0) and run from left to right; nothing is fused or reordered.
"""

import math
from collections.abc import Callable, Sequence

from featuregen.expression import Code, Program

RADIAN = math.pi / 180
EARTH_KM = 6371.0

Vector = Sequence[float]


def evaluate(program: Program, element: Sequence[float], vectors: Sequence[Vector] = ()) -> float:
    """Runs a program for one element.

    Args:
        program: what to compute.
        element: by variable: its number at this element.
        vectors: by variable: all its numbers; only needed for functions of whole vectors.
    """
    stack: list[float] = []
    for code, argument in program.code:
        if code == Code.CONSTANT:
            stack.append(program.constants[argument])
        elif code == Code.VARIABLE:
            stack.append(element[argument])
        elif code >= Code.DOT:
            stack.append(_of_pair(Code(code), vectors[argument % 256], vectors[argument // 256]))
        elif code >= Code.LENGTH:
            stack.append(_of_vector(Code(code), vectors[argument % 256]))
        elif code in (Code.SPHERE_DISTANCE, Code.HAVERSINE):
            *stack, lng1, lat1, lng2, lat2 = stack
            distance = sphere_distance if code == Code.SPHERE_DISTANCE else haversine
            stack.append(distance(lng1, lat1, lng2, lat2))
        elif code == Code.SELECT:
            *stack, condition, then, other = stack
            stack.append(then if condition != 0.0 else other)
        elif code in _BINARY:
            *stack, left, right = stack
            stack.append(_BINARY[Code(code)](left, right))
        else:
            stack.append(_UNARY[Code(code)](stack.pop()))
    return stack.pop()


def read_variables(program: Program) -> tuple[set[int], set[int]]:
    """Returns the variables that are read element by element, and those that are read as whole vectors."""
    elements = {argument for code, argument in program.code if code == Code.VARIABLE}
    vectors = {
        part for code, argument in program.code if code >= Code.LENGTH for part in (argument % 256, argument // 256)
    }
    return elements, vectors


def _libm(function: Callable[[float], float]) -> Callable[[float], float]:
    """Python raises where C returns NaN or an infinity."""

    def call(x: float) -> float:
        try:
            return function(x)
        except ValueError:
            if function in (math.log, math.log2, math.log10) and x == 0.0:
                return -math.inf
            return math.copysign(math.inf, x) if function is math.atanh and abs(x) == 1.0 else math.nan
        except OverflowError:
            return math.copysign(math.inf, x) if function is math.sinh else math.inf

    return call


def divide(left: float, right: float) -> float:
    """Returns left / right as IEEE 754 says."""
    if right != 0.0:
        return left / right
    if left == 0.0 or math.isnan(left) or math.isnan(right):
        return math.nan
    return math.copysign(math.inf, left) * math.copysign(1.0, right)


def power(base: float, exponent: float) -> float:
    """Returns C's pow."""
    try:
        return math.pow(base, exponent)
    except OverflowError:
        return -math.inf if base < 0 and exponent % 2 == 1 else math.inf
    except ValueError:  # zero to a negative power, or a negative base to a fraction
        if base != 0.0:
            return math.nan
        return math.copysign(math.inf, base) if exponent % 2 == 1 else math.inf


def _modulo(x: float, y: float) -> float:
    """Returns C's fmod: the result has the sign of x."""
    try:
        return math.fmod(x, y)
    except ValueError:
        return math.nan


def _whole(function: Callable[[float], int]) -> Callable[[float], float]:
    """Keeps NaN, infinities, and the sign of a zero, as C does."""
    return lambda x: math.copysign(float(function(x)), x) if math.isfinite(x) else x


def _away(x: float) -> int:
    """Rounds half away from zero."""
    whole = math.trunc(x)
    return whole + (1 if x > 0 else -1) if abs(x - whole) >= 0.5 else whole


_round = _whole(_away)


def _round_places(x: float, places: float) -> float:
    scale = power(10.0, places)
    return divide(_round(x * scale), scale)


def _bits(left: float, right: float, operate: Callable[[int, int], int]) -> float:
    """Both truncated to int64; NaN if one is not finite or does not fit."""
    if not all(-(2.0**63) <= x < 2.0**63 for x in (left, right)):
        return math.nan
    return float(operate(math.trunc(left), math.trunc(right)))


def _extreme(left: float, right: float, sign: float) -> float:
    """Minimum (sign 1) or maximum (sign -1); NaN if one of both is."""
    if math.isnan(left) or math.isnan(right):
        return math.nan
    return right if sign * right < sign * left else left


def _sign(x: float) -> float:
    return x if math.isnan(x) else float((x > 0) - (x < 0))


_exp = _libm(math.exp)
_sqrt = _libm(math.sqrt)
_UNARY: dict[Code, Callable[[float], float]] = {
    Code.NEGATE: lambda x: -x,
    Code.NOT: lambda x: float(x == 0.0),
    Code.SIN: _libm(math.sin),
    Code.COS: _libm(math.cos),
    Code.TAN: _libm(math.tan),
    Code.ASIN: _libm(math.asin),
    Code.ACOS: _libm(math.acos),
    Code.ATAN: _libm(math.atan),
    Code.SINH: _libm(math.sinh),
    Code.COSH: _libm(math.cosh),
    Code.TANH: _libm(math.tanh),
    Code.ASINH: _libm(math.asinh),
    Code.ACOSH: _libm(math.acosh),
    Code.ATANH: _libm(math.atanh),
    Code.LOG2: _libm(math.log2),
    Code.LOG10: _libm(math.log10),
    Code.LOG: _libm(math.log),
    Code.EXP: _exp,
    Code.SQRT: _sqrt,
    Code.SIGN: _sign,
    Code.ABS: abs,
    Code.RINT: _whole(round),
    Code.FLOOR: _whole(math.floor),
    Code.CEIL: _whole(math.ceil),
    Code.TRUNC: _whole(math.trunc),
    Code.ROUND: _round,
    Code.SIGMOID: lambda x: 1.0 / (1.0 + _exp(-x)),
    Code.IS_NAN: lambda x: float(math.isnan(x)),
}
_BINARY: dict[Code, Callable[[float, float], float]] = {
    Code.ADD: lambda a, b: a + b,
    Code.SUBTRACT: lambda a, b: a - b,
    Code.MULTIPLY: lambda a, b: a * b,
    Code.DIVIDE: divide,
    Code.POWER: power,
    Code.LESS: lambda a, b: float(a < b),
    Code.LESS_EQUAL: lambda a, b: float(a <= b),
    Code.EQUAL: lambda a, b: float(a == b),
    Code.NOT_EQUAL: lambda a, b: float(a != b),
    Code.GREATER_EQUAL: lambda a, b: float(a >= b),
    Code.GREATER: lambda a, b: float(a > b),
    Code.AND: lambda a, b: float(a != 0.0 and b != 0.0),
    Code.OR: lambda a, b: float(a != 0.0 or b != 0.0),
    Code.BIT_AND: lambda a, b: _bits(a, b, lambda m, n: m & n),
    Code.BIT_OR: lambda a, b: _bits(a, b, lambda m, n: m | n),
    Code.ROUND_PLACES: _round_places,
    Code.MODULO: _modulo,
    Code.MINIMUM: lambda a, b: _extreme(a, b, 1.0),
    Code.MAXIMUM: lambda a, b: _extreme(a, b, -1.0),
}


def sphere_distance(lng1: float, lat1: float, lng2: float, lat2: float) -> float:
    """Returns kilometres along a great circle, by the law of cosines; arguments are degrees."""
    f1, f2, dl = lat1 * RADIAN, lat2 * RADIAN, (lng2 - lng1) * RADIAN
    sin, cos = _UNARY[Code.SIN], _UNARY[Code.COS]
    cosine = sin(f1) * sin(f2) + cos(f1) * cos(f2) * cos(dl)
    cosine = 1.0 if cosine > 1.0 else -1.0 if cosine < -1.0 else cosine
    return EARTH_KM * _UNARY[Code.ACOS](cosine)


def haversine(lng1: float, lat1: float, lng2: float, lat2: float) -> float:
    """Returns kilometres along a great circle, by the haversine formula; arguments are degrees."""
    f1, f2, dl = lat1 * RADIAN, lat2 * RADIAN, (lng2 - lng1) * RADIAN
    sin, cos = _UNARY[Code.SIN], _UNARY[Code.COS]
    a, b = sin((f2 - f1) / 2.0), sin(dl / 2.0)
    root = _sqrt(a * a + cos(f1) * cos(f2) * b * b)
    return 2.0 * EARTH_KM * _UNARY[Code.ASIN](1.0 if root > 1.0 else root)


def _sum(values: Sequence[float]) -> float:
    total = 0.0
    for value in values:
        total += value
    return total


def _of_vector(code: Code, x: Vector) -> float:
    n = float(len(x))
    if code == Code.LENGTH:
        return n
    if code in (Code.L2_NORM, Code.SQUARED_NORM):
        squared = _sum([value * value for value in x])
        return _sqrt(squared) if code == Code.L2_NORM else squared
    if code in (Code.REDUCE_MIN, Code.REDUCE_MAX):
        result = x[0]
        for value in x[1:]:
            result = _extreme(result, value, 1.0 if code == Code.REDUCE_MIN else -1.0)
        return result
    if code == Code.REDUCE_PROD:
        product = 1.0
        for value in x:
            product *= value
        return product
    mean = divide(_sum(x), n)
    if code == Code.REDUCE_SUM:
        return _sum(x)
    if code == Code.REDUCE_MEAN:
        return mean
    # Upstream's names: std_dev and variance divide by n, the pop_ ones by n - 1.
    degrees = n if code in (Code.STD_DEV, Code.VARIANCE) else n - 1.0
    variance = divide(_sum([(value - mean) * (value - mean) for value in x]), degrees)
    return _sqrt(variance) if code in (Code.STD_DEV, Code.POP_STD_DEV) else variance


def _of_pair(code: Code, x: Vector, y: Vector) -> float:
    """Of two vectors of one length."""
    pairs = list(zip(x, y, strict=True))
    if code == Code.DOT:
        return _sum([a * b for a, b in pairs])
    if code == Code.EUCLID_DISTANCE:
        return _sqrt(_sum([(a - b) * (a - b) for a, b in pairs]))
    mean_x, mean_y = divide(_sum(x), float(len(x))), divide(_sum(y), float(len(y)))
    covariance = _sum([(a - mean_x) * (b - mean_y) for a, b in pairs])
    spread_x = _sum([(a - mean_x) * (a - mean_x) for a in x])
    spread_y = _sum([(b - mean_y) * (b - mean_y) for b in y])
    return divide(covariance, _sqrt(spread_x * spread_y))
