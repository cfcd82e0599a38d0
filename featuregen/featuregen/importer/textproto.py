"""Protobuf's text format as nested dictionaries, without descriptors: enough to read any pipeline.config.

Every field is a list of its values in order, because nothing in a text says which fields repeat. Values are str, int,
float, bool, `Symbol` (an enum's name) or a nested message. Grammar: https://protobuf.dev/reference/protobuf/textformat-spec/.
"""

import re
from typing import TypeAlias

from featuregen.errors import FeatureError


class Symbol(str):
    """A bare word: the name of an enum's value."""


Value: TypeAlias = "str | int | float | bool | Symbol | Message"
Message: TypeAlias = dict[str, list[Value]]

_TOKEN = re.compile(
    r"""(?P<skip>\s+|\#[^\n]*)|(?P<text>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')"""
    r"""|(?P<number>-?\s*(?:0[xX][0-9a-fA-F]+|(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?[fF]?)(?![\w.]))"""
    r"""|(?P<word>-?[A-Za-z_][\w.]*)|(?P<sign>[{}<>\[\]:,;])"""
)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}
_ESCAPE = re.compile(rb"\\(x[0-9a-fA-F]{1,2}|[0-7]{1,3}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|.)", re.DOTALL)
_WORDS: dict[str, Value] = {"true": True, "false": False, "inf": float("inf"), "-inf": -float("inf")}


def parse_textproto(text: str) -> Message:
    """Parses a message.

    Raises:
        FeatureError: says in which line what was expected.
    """
    return _Parser(text).message("")


class _Parser:
    def __init__(self, text: str) -> None:
        self._tokens: list[tuple[str, str, int]] = []
        self._at, place = 0, 0
        while place < len(text):
            match = _TOKEN.match(text, place)
            line = text.count("\n", 0, place) + 1
            if match is None:
                raise _error(line, f"{text[place]!r} means nothing here")
            if match.lastgroup != "skip":
                self._tokens.append((str(match.lastgroup), match.group(), line))
            place = match.end()
        self._tokens.append(("end", "", text.count("\n") + 1))

    def message(self, close: str) -> Message:
        found: Message = {}
        while not self._take(close):
            kind, name, line = self._next()
            if kind != "word":
                raise _error(line, f"the name of a field is expected, found {name or 'the end'!r}")
            colon = self._take(":")
            values = found.setdefault(name, [])
            if self._take("["):
                while not self._take("]"):
                    values.append(self._value())
                    self._take(",")
            elif colon or self._tokens[self._at][1] in ("{", "<"):
                values.append(self._value())
            else:
                raise _error(line, f"':' or '{{' is expected after '{name}'")
            self._take(",") or self._take(";")
        return found

    def _value(self) -> Value:
        kind, text, line = self._next()
        if text in ("{", "<"):
            return self.message("}" if text == "{" else ">")
        if kind == "text":
            parts = [text]
            while self._tokens[self._at][0] == "text":
                parts.append(self._next()[1])
            return b"".join(_ESCAPE.sub(_unescape, part[1:-1].encode()) for part in parts).decode(errors="replace")
        if kind == "number":
            plain = text.replace(" ", "")
            if re.fullmatch(r"-?(0[xX][0-9a-fA-F]+|\d+)", plain):
                return int(plain, 8 if re.fullmatch(r"-?0\d+", plain) else 0)
            return float(plain.rstrip("fF"))
        if kind == "word":
            return _WORDS.get(text, Symbol(text))
        raise _error(line, f"a value is expected, found {text or 'the end'!r}")

    def _next(self) -> tuple[str, str, int]:
        token = self._tokens[self._at]
        self._at += token[0] != "end"
        return token

    def _take(self, sign: str) -> bool:
        kind, text, _ = self._tokens[self._at]
        taken = (kind, text) == (("sign", sign) if sign else ("end", ""))
        self._at += taken and kind != "end"
        return taken


def _unescape(match: "re.Match[bytes]") -> bytes:
    code = match.group(1).decode()
    if code[0] in "uU" and len(code) > 1:
        return chr(int(code[1:], 16)).encode()
    if code[0] == "x" and len(code) > 1:
        return bytes([int(code[1:], 16)])
    if code[0] in "01234567":
        return bytes([int(code, 8) & 255])
    return _ESCAPES.get(code, code).encode()


def _error(line: int, problem: str) -> FeatureError:
    return FeatureError(None, f"pipeline.config, line {line}: {problem}", "give the file in protobuf's text format")
