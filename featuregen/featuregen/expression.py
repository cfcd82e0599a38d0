"""The expression language of features: parsed here once into a postfix program that every interpreter runs.

No `eval`, no names but the declared variables, nothing that depends on time or chance: `rnd` of other engines is
refused, because no replay could ever repeat it. Operators by rising precedence (all but `^` and `?:` bind to the left):
`?:`, `||`, `&&`, `|`, `&`, comparisons, `+ -`, `* /`, unary `- + !`, `^`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from featuregen.errors import did_you_mean


class Code(IntEnum):
    """Instructions of the stack machine; `Instruction.argument` is explained where it has a meaning.

    Scalars are float64 and truth is 1.0 or 0.0. `&` and `|` work on int64 after truncation.
    """

    CONSTANT = 0  # argument: index into constants
    VARIABLE = 1  # argument: index of the variable; the element that is being computed
    ADD, SUBTRACT, MULTIPLY, DIVIDE, POWER = 2, 3, 4, 5, 6
    LESS, LESS_EQUAL, EQUAL, NOT_EQUAL, GREATER_EQUAL, GREATER = 7, 8, 9, 10, 11, 12
    AND, OR, BIT_AND, BIT_OR, NEGATE, NOT = 13, 14, 15, 16, 17, 18
    SELECT = 19  # condition, then, else -> one of both
    SIN, COS, TAN, ASIN, ACOS, ATAN = 20, 21, 22, 23, 24, 25
    SINH, COSH, TANH, ASINH, ACOSH, ATANH = 26, 27, 28, 29, 30, 31
    LOG2, LOG10, LOG, EXP, SQRT, SIGN, ABS = 32, 33, 34, 35, 36, 37, 38
    RINT, FLOOR, CEIL, TRUNC, ROUND = 39, 40, 41, 42, 43
    ROUND_PLACES, MODULO, SIGMOID, IS_NAN, MINIMUM, MAXIMUM = 44, 45, 46, 47, 48, 49
    SPHERE_DISTANCE, HAVERSINE = 50, 51  # lng1, lat1, lng2, lat2 in degrees -> kilometres
    # Of whole vectors; argument: first variable + 256 * second variable.
    LENGTH, L2_NORM, SQUARED_NORM, STD_DEV, POP_STD_DEV, VARIANCE, POP_VARIANCE = 60, 61, 62, 63, 64, 65, 66
    REDUCE_MIN, REDUCE_MAX, REDUCE_SUM, REDUCE_MEAN, REDUCE_PROD = 67, 68, 69, 70, 71
    DOT, EUCLID_DISTANCE, CORRELATION = 72, 73, 74


@dataclass(frozen=True)
class Program:
    """A parsed expression.

    Attributes:
        code: (instruction, argument) in postfix order.
        constants: float64 values that CONSTANT names.
        variables: number of variables, whether the expression reads them or not.
        depth: greatest number of values on the stack.
    """

    code: tuple[tuple[int, int], ...]
    constants: tuple[float, ...]
    variables: int
    depth: int


class ExpressionError(ValueError):
    """An expression that cannot be parsed: `problem` says what and where, `hint` how to mend it."""

    def __init__(self, problem: str, hint: str) -> None:
        self.problem, self.hint = problem, hint
        super().__init__(f"{problem}\n  {hint}")


CONSTANTS = {"_pi": 3.141592653589793, "_e": 2.718281828459045}
UNARY = {
    "sin": Code.SIN,
    "cos": Code.COS,
    "tan": Code.TAN,
    "asin": Code.ASIN,
    "acos": Code.ACOS,
    "atan": Code.ATAN,
    "sinh": Code.SINH,
    "cosh": Code.COSH,
    "tanh": Code.TANH,
    "asinh": Code.ASINH,
    "acosh": Code.ACOSH,
    "atanh": Code.ATANH,
    "log2": Code.LOG2,
    "log10": Code.LOG10,
    "log": Code.LOG,
    "ln": Code.LOG,
    "exp": Code.EXP,
    "sqrt": Code.SQRT,
    "sign": Code.SIGN,
    "abs": Code.ABS,
    "rint": Code.RINT,
    "floor": Code.FLOOR,
    "ceil": Code.CEIL,
    "trunc": Code.TRUNC,
    "round": Code.ROUND,
    "sigmoid": Code.SIGMOID,
    "isnan": Code.IS_NAN,
}
FIXED = {
    "roundp": (Code.ROUND_PLACES, 2),
    "mod": (Code.MODULO, 2),
    "sphere_dist": (Code.SPHERE_DISTANCE, 4),
    "haversine": (Code.HAVERSINE, 4),
}
MANY = {"min": Code.MINIMUM, "max": Code.MAXIMUM, "sum": Code.ADD, "avg": Code.ADD}
VECTOR = {
    "len": (Code.LENGTH, 1),
    "l2_norm": (Code.L2_NORM, 1),
    "squared_norm": (Code.SQUARED_NORM, 1),
    "std_dev": (Code.STD_DEV, 1),
    "pop_std_dev": (Code.POP_STD_DEV, 1),
    "variance": (Code.VARIANCE, 1),
    "pop_variance": (Code.POP_VARIANCE, 1),
    "reduce_min": (Code.REDUCE_MIN, 1),
    "reduce_max": (Code.REDUCE_MAX, 1),
    "reduce_sum": (Code.REDUCE_SUM, 1),
    "reduce_mean": (Code.REDUCE_MEAN, 1),
    "reduce_prod": (Code.REDUCE_PROD, 1),
    "dot": (Code.DOT, 2),
    "euclid_dist": (Code.EUCLID_DISTANCE, 2),
    "corr": (Code.CORRELATION, 2),
}
FUNCTIONS = (*UNARY, *FIXED, *MANY, *VECTOR)
_BINARY = {
    "||": (1, Code.OR),
    "&&": (2, Code.AND),
    "|": (3, Code.BIT_OR),
    "&": (4, Code.BIT_AND),
    "<": (5, Code.LESS),
    "<=": (5, Code.LESS_EQUAL),
    "==": (5, Code.EQUAL),
    "!=": (5, Code.NOT_EQUAL),
    ">=": (5, Code.GREATER_EQUAL),
    ">": (5, Code.GREATER),
    "+": (6, Code.ADD),
    "-": (6, Code.SUBTRACT),
    "*": (7, Code.MULTIPLY),
    "/": (7, Code.DIVIDE),
}
_PREFIX = 8
_TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)|(?P<name>[A-Za-z_]\w*)|"
    r"(?P<sign>\|\||&&|<=|>=|==|!=|[-+*/^<>|&!?:(),]))",
    re.ASCII,
)
_MAX_DEPTH = 64


def parse_expression(text: str, variables: Sequence[str]) -> Program:
    """Parses an expression over variables, which are numbered in the given order.

    Raises:
        ExpressionError: says what is wrong, at which character, and what there is instead.
    """
    return _Parser(text, variables).program()


class _Parser:
    def __init__(self, text: str, variables: Sequence[str]) -> None:
        self._text, self._variables = text, {name: index for index, name in enumerate(variables)}
        self._tokens = self._split()
        self._at = 0
        self._nesting = 0
        self._code: list[tuple[int, int]] = []
        self._constants: list[float] = []

    def _split(self) -> list[tuple[str, str, int]]:
        tokens, at = [], 0
        while self._text[at:].strip():
            match = _TOKEN.match(self._text, at)
            if match is None:
                blanks = len(self._text[at:]) - len(self._text[at:].lstrip())
                raise self._error("there is a character that means nothing", at + blanks)
            kind = match.lastgroup or ""
            tokens.append((kind, match.group(kind), match.start(kind)))
            at = match.end()
        return [*tokens, ("end", "", len(self._text))]

    def _error(self, problem: str, at: int, hint: str = "") -> ExpressionError:
        where = f"expression '{self._text}', character {at + 1}: {problem}"
        return ExpressionError(where, hint or "variables: " + (", ".join(self._variables) or "none"))

    def program(self) -> Program:
        self._expression(0)
        kind, text, at = self._tokens[self._at]
        if kind != "end":
            raise self._error(f"'{text}' is not expected here", at)
        depth = self._depth()
        if depth > _MAX_DEPTH:
            raise self._error(f"it needs {depth} values at once", 0, f"nest less deeply: at most {_MAX_DEPTH}")
        return Program(tuple(self._code), tuple(self._constants), len(self._variables), depth)

    def _depth(self) -> int:
        depth = most = 0
        for code, _ in self._code:
            depth += 1 - operands(code)
            most = max(most, depth)
        return most

    def _emit(self, code: Code, argument: int = 0) -> None:
        self._code.append((int(code), argument))

    def _constant(self, value: float) -> None:
        if value not in self._constants:
            self._constants.append(value)
        self._emit(Code.CONSTANT, self._constants.index(value))

    def _take(self, sign: str) -> bool:
        if self._tokens[self._at][:2] == ("sign", sign):
            self._at += 1
            return True
        return False

    def _need(self, sign: str) -> None:
        kind, text, at = self._tokens[self._at]
        if not self._take(sign):
            raise self._error(f"'{sign}' is expected, found {repr(text) if kind != 'end' else 'the end'}", at)

    def _expression(self, least: int) -> None:
        self._nesting += 1
        if self._nesting > 4 * _MAX_DEPTH:
            raise self._error("it is nested too deeply", 0)
        self._prefix()
        while True:
            kind, text, _ = self._tokens[self._at]
            precedence, code = _BINARY.get(text, (-1, Code.ADD)) if kind == "sign" else (-1, Code.ADD)
            if precedence < 0 or precedence < least:
                break
            self._at += 1
            self._expression(precedence + 1)
            self._emit(code)
        if least == 0 and self._take("?"):
            self._expression(0)
            self._need(":")
            self._expression(0)
            self._emit(Code.SELECT)
        self._nesting -= 1

    def _prefix(self) -> None:
        if self._take("-"):
            self._expression(_PREFIX)
            self._emit(Code.NEGATE)
        elif self._take("!"):
            self._expression(_PREFIX)
            self._emit(Code.NOT)
        elif self._take("+"):
            self._expression(_PREFIX)
        else:
            self._primary()
            if self._take("^"):
                self._expression(_PREFIX)
                self._emit(Code.POWER)

    def _primary(self) -> None:
        kind, text, at = self._tokens[self._at]
        self._at += 1
        if kind == "number" and float(text) == float("inf"):
            raise self._error(f"{text} is too large", at, "numbers are float64: at most 1.8e308")
        if kind == "number":
            self._constant(float(text))
        elif kind == "name" and self._take("("):
            self._call(text, at)
        elif kind == "name" and text in self._variables:
            self._emit(Code.VARIABLE, self._variables[text])
        elif kind == "name" and text in CONSTANTS:
            self._constant(CONSTANTS[text])
        elif kind == "name":
            raise self._error(f"there is no variable '{text}'", at, did_you_mean(text, self._variables, "variables"))
        elif (kind, text) == ("sign", "("):
            self._expression(0)
            self._need(")")
        else:
            raise self._error(f"a value is expected, found {repr(text) if kind != 'end' else 'the end'}", at)

    def _call(self, name: str, at: int) -> None:
        if name == "rnd":
            raise self._error("rnd gives another number at every call", at, "online and offline could never agree")
        if name in VECTOR:
            self._vector_call(name, at)
            return
        if name not in FUNCTIONS:
            raise self._error(f"there is no function '{name}'", at, did_you_mean(name, FUNCTIONS, "functions"))
        given = 0
        while given == 0 or self._take(","):
            self._expression(0)
            given += 1
            if name in MANY and given > 1:
                self._emit(MANY[name])
        self._need(")")
        wanted = 1 if name in UNARY else FIXED[name][1] if name in FIXED else given
        if given != wanted:
            raise self._error(f"{name} takes {wanted}, it has {given}", at, f"write {name} with {wanted} values")
        if name in UNARY:
            self._emit(UNARY[name])
        elif name in FIXED:
            self._emit(FIXED[name][0])
        elif name == "avg":
            self._constant(float(given))
            self._emit(Code.DIVIDE)

    def _vector_call(self, name: str, at: int) -> None:
        code, wanted = VECTOR[name]
        found: list[int] = []
        while not found or self._take(","):
            kind, text, place = self._tokens[self._at]
            if kind != "name" or text not in self._variables:
                raise self._error(
                    f"{name} is of whole vectors", place, f"write {name} of variables: {', '.join(self._variables)}"
                )
            self._at += 1
            found.append(self._variables[text])
        self._need(")")
        if len(found) != wanted:
            raise self._error(f"{name} takes {wanted}, it has {len(found)}", at, f"write {name} with {wanted} vectors")
        self._emit(code, found[0] + 256 * found[-1])


def operands(code: int) -> int:
    """Returns how many values an instruction takes from the stack; each puts one back."""
    if code in (Code.CONSTANT, Code.VARIABLE) or code >= Code.LENGTH:
        return 0
    if code == Code.SELECT:
        return 3
    if code in (Code.SPHERE_DISTANCE, Code.HAVERSINE):
        return 4
    one = (Code.NEGATE, Code.NOT, Code.SIGMOID, Code.IS_NAN)
    return 1 if code in one or Code.SIN <= code <= Code.ROUND else 2
