"""The stack machine that runs an expression of `featuregen.expression` in float64, and the kernel of expr.

Transcendental functions are the C library's, one value at a time, as in the other two interpreters.
"""

import math

import numba as nb
import numpy as np

from featuregen.expression import Code
from featuregen.kernels import layout
from featuregen.kernels.columns import number_of, span
from featuregen.kernels.memory import get, jit, load_f64, load_i64, store_f64, store_i64

EARTH_KM = 6371.0
RADIAN = math.pi / 180


@jit
def _of_one(code: int, x: float) -> float:
    """A function of one number."""
    if code == Code.NEGATE:
        return -x
    if code == Code.NOT:
        return 1.0 if x == 0.0 else 0.0
    if code == Code.SIN:
        return math.sin(x)
    if code == Code.COS:
        return math.cos(x)
    if code == Code.TAN:
        return math.tan(x)
    if code == Code.ASIN:
        return math.asin(x)
    if code == Code.ACOS:
        return math.acos(x)
    if code == Code.ATAN:
        return math.atan(x)
    if code == Code.SINH:
        return math.sinh(x)
    if code == Code.COSH:
        return math.cosh(x)
    if code == Code.TANH:
        return math.tanh(x)
    if code == Code.ASINH:
        return math.asinh(x)
    if code == Code.ACOSH:
        return math.acosh(x)
    if code == Code.ATANH:
        return math.atanh(x)
    if code == Code.LOG2:
        return math.log2(x)
    if code == Code.LOG10:
        return math.log10(x)
    if code == Code.LOG:
        return math.log(x)
    if code == Code.EXP:
        return math.exp(x)
    if code == Code.SQRT:
        return math.sqrt(x)
    return _rounded(code, x)


@jit
def _rounded(code: int, x: float) -> float:
    """The rest of the functions of one number."""
    if code == Code.SIGN:
        return 1.0 if x > 0.0 else -1.0 if x < 0.0 else x if x != x else 0.0
    if code == Code.ABS:
        return math.fabs(x)
    if code == Code.RINT:
        return np.rint(x)
    if code == Code.FLOOR:
        return np.floor(x)
    if code == Code.CEIL:
        return np.ceil(x)
    if code == Code.TRUNC:
        return np.trunc(x)
    if code == Code.ROUND:
        return _round(x)
    if code == Code.SIGMOID:
        return 1.0 / (1.0 + math.exp(-x))
    return 1.0 if x != x else 0.0


@jit
def _round(x: float) -> float:
    """Nearest whole number, halves away from zero."""
    whole = np.floor(math.fabs(x))
    return math.copysign(whole + 1.0 if math.fabs(x) - whole >= 0.5 else whole, x)


@jit
def _truth(condition: bool) -> float:
    return 1.0 if condition else 0.0


@jit
def _bits(code: int, x: float, y: float) -> float:
    """`&` or `|` of the whole parts, NaN if one is not an int64."""
    limit = 9223372036854775808.0
    if not (-limit <= x < limit and -limit <= y < limit):
        return np.nan
    if code == Code.BIT_AND:
        return float(nb.int64(x) & nb.int64(y))
    return float(nb.int64(x) | nb.int64(y))


@jit
def _of_two(code: int, x: float, y: float) -> float:
    """An operator, or a function of two numbers."""
    if code == Code.ADD:
        return x + y
    if code == Code.SUBTRACT:
        return x - y
    if code == Code.MULTIPLY:
        return x * y
    if code == Code.DIVIDE:
        return x / y
    if code == Code.POWER:
        return math.pow(x, y)
    if code == Code.LESS:
        return _truth(x < y)
    if code == Code.LESS_EQUAL:
        return _truth(x <= y)
    if code == Code.EQUAL:
        return _truth(x == y)
    if code == Code.NOT_EQUAL:
        return _truth(x != y)
    if code == Code.GREATER_EQUAL:
        return _truth(x >= y)
    if code == Code.GREATER:
        return _truth(x > y)
    if code == Code.AND:
        return _truth(x != 0.0 and y != 0.0)
    if code == Code.OR:
        return _truth(x != 0.0 or y != 0.0)
    if code == Code.MODULO:
        return np.fmod(x, y)
    if code == Code.ROUND_PLACES:
        scale = math.pow(10.0, y)
        return _round(x * scale) / scale
    if code == Code.BIT_AND or code == Code.BIT_OR:
        return _bits(code, x, y)
    if x != x or y != y:
        return np.nan
    if code == Code.MINIMUM:
        return y if y < x else x
    return y if y > x else x


@jit
def _distance(code: int, stack: int) -> float:
    """Kilometres between two points, of which the stack has longitude and latitude in degrees."""
    f1, f2 = load_f64(stack + 8) * RADIAN, load_f64(stack + 24) * RADIAN
    turn = (load_f64(stack + 16) - load_f64(stack)) * RADIAN
    if code == Code.SPHERE_DISTANCE:
        cosine = math.sin(f1) * math.sin(f2) + math.cos(f1) * math.cos(f2) * math.cos(turn)
        return EARTH_KM * math.acos(1.0 if cosine > 1.0 else -1.0 if cosine < -1.0 else cosine)
    a, b = math.sin((f2 - f1) / 2.0), math.sin(turn / 2.0)
    root = math.sqrt(a * a + math.cos(f1) * math.cos(f2) * b * b)
    return 2.0 * EARTH_KM * math.asin(1.0 if root > 1.0 else root)


@jit
def _mean(values: int, count: int) -> float:
    total = 0.0
    for at in range(count):
        total += load_f64(values + 8 * at)
    return total / count


@jit
def _sum_of_products(a: int, mean_a: float, b: int, mean_b: float, count: int) -> float:
    """Sum of the products of deviations; of the values themselves with means of 0."""
    total = 0.0
    for at in range(count):
        total += (load_f64(a + 8 * at) - mean_a) * (load_f64(b + 8 * at) - mean_b)
    return total


@jit
def _reduced(code: int, values: int, count: int) -> float:
    result = 1.0 if code == Code.REDUCE_PROD else 0.0 if code == Code.REDUCE_SUM else load_f64(values)
    for at in range(count):
        x = load_f64(values + 8 * at)
        if code == Code.REDUCE_MIN:
            result = x if x < result else result
        elif code == Code.REDUCE_MAX:
            result = x if x > result else result
        elif code == Code.REDUCE_PROD:
            result = result * x
        else:
            result = result + x
    return result


@jit
def _of_vectors(program: int, code: int, argument: int) -> float:
    """A function of one or two whole vectors."""
    spans = get(program, layout.X_SPANS)
    a, count = get(spans, 2 * (argument & 255)), get(spans, 2 * (argument & 255) + 1)
    b = get(spans, 2 * (argument >> 8))
    if code == Code.LENGTH:
        return float(count)
    if code == Code.L2_NORM:
        return math.sqrt(_sum_of_products(a, 0.0, a, 0.0, count))
    if code == Code.SQUARED_NORM:
        return _sum_of_products(a, 0.0, a, 0.0, count)
    if code == Code.DOT:
        return _sum_of_products(a, 0.0, b, 0.0, count)
    if code == Code.EUCLID_DISTANCE:
        total = 0.0
        for at in range(count):
            difference = load_f64(a + 8 * at) - load_f64(b + 8 * at)
            total += difference * difference
        return math.sqrt(total)
    mean = _mean(a, count)
    if code == Code.REDUCE_MEAN:
        return mean
    if code >= Code.REDUCE_MIN and code <= Code.REDUCE_PROD:
        return _reduced(code, a, count)
    squares = _sum_of_products(a, mean, a, mean, count)
    if code == Code.CORRELATION:
        mean_b = _mean(b, count)
        both = _sum_of_products(a, mean, b, mean_b, count)
        return both / math.sqrt(squares * _sum_of_products(b, mean_b, b, mean_b, count))
    divisor = count - 1 if code == Code.POP_STD_DEV or code == Code.POP_VARIANCE else count
    variance = squares / divisor
    return math.sqrt(variance) if code == Code.STD_DEV or code == Code.POP_STD_DEV else variance


@jit
def evaluate(program: int, element: int) -> float:
    """Runs an expression over the spans of its variables; one of length 1 is the same for every element."""
    at, top = get(program, layout.X_CODE), get(program, layout.X_STACK) - 8
    end = at + 16 * get(program, layout.X_COUNT)
    while at < end:
        code, argument = load_i64(at), load_i64(at + 8)
        at += 16
        if code == Code.CONSTANT:
            top += 8
            store_f64(top, load_f64(get(program, layout.X_CONSTANTS) + 8 * argument))
        elif code == Code.VARIABLE:
            top += 8
            variable = get(program, layout.X_SPANS) + 16 * argument
            step = element if load_i64(variable + 8) > 1 else nb.int64(0)
            store_f64(top, load_f64(load_i64(variable) + 8 * step))
        elif code >= Code.LENGTH:
            top += 8
            store_f64(top, _of_vectors(program, code, argument))
        elif code <= Code.BIT_OR or code == Code.ROUND_PLACES or code == Code.MODULO:
            top -= 8
            store_f64(top, _of_two(code, load_f64(top), load_f64(top + 8)))
        elif code == Code.MINIMUM or code == Code.MAXIMUM:
            top -= 8
            store_f64(top, _of_two(code, load_f64(top), load_f64(top + 8)))
        elif code == Code.SELECT:
            top -= 16
            store_f64(top, load_f64(top + 8) if load_f64(top) != 0.0 else load_f64(top + 16))
        elif code >= Code.SPHERE_DISTANCE:
            top -= 24
            store_f64(top, _distance(code, top))
        else:
            store_f64(top, _of_one(code, load_f64(top)))
    return load_f64(top)


@jit
def _read(program: int, variable: int, row: int) -> bool:
    """Writes a variable's values of a row to its span, which has room for them; says whether none is missing."""
    column = get(get(program, layout.X_COLUMNS), variable)
    place = get(program, layout.X_SPANS) + 16 * variable
    first, last = span(column, row)
    target, fill, complete = load_i64(place), get(program, layout.X_FILL) == 1, last > first
    store_i64(place + 8, last - first)
    for element in range(first, last):
        x = number_of(column, element)
        if x != x:
            complete = False
            x = 0.0
        store_f64(target + 8 * (element - first), x)
    if last == first:
        store_i64(place + 8, 1)
        store_f64(target, 0.0)
    return complete or fill


@jit
def _fits(program: int, width: int) -> bool:
    """Says whether variables that are read element by element have 1 or `width` elements, and pairs equal lengths."""
    spans, wanted = get(program, layout.X_SPANS), get(program, layout.X_BY_ELEMENT)
    for variable in range(get(program, layout.X_VARIABLES)):
        length = get(spans, 2 * variable + 1)
        if (wanted >> variable) & 1 == 1 and length != 1 and length != width:
            return False
    if get(program, layout.X_PAIRS) == 1:
        at = get(program, layout.X_CODE)
        for _ in range(get(program, layout.X_COUNT)):
            argument = load_i64(at + 8)
            if load_i64(at) >= Code.DOT and get(spans, 2 * (argument & 255) + 1) != get(spans, 2 * (argument >> 8) + 1):
                return False
            at += 16
    return True


@jit
def run_expr(op: int) -> None:
    """The numbers of an expression, NaN for all of a row if a variable is missing or a length does not fit."""
    program, width, found = get(op, layout.O_EXPRESSION), get(op, layout.O_WIDTH), get(op, layout.O_FOUND)
    columns, wanted = get(program, layout.X_COLUMNS), get(program, layout.X_READ)
    shared_complete = True
    for row in range(get(op, layout.O_ROWS)):
        complete = True
        for variable in range(get(program, layout.X_VARIABLES)):
            if (wanted >> variable) & 1 == 0:
                continue
            shared = get(get(columns, variable), layout.C_STEP) == 0
            if row > 0 and shared:
                continue
            known = _read(program, variable, row)
            if shared:
                shared_complete = shared_complete and known
            else:
                complete = complete and known
        usable = complete and shared_complete and _fits(program, width)
        for element in range(width):
            store_f64(found + 8 * (row * width + element), evaluate(program, element) if usable else np.nan)
