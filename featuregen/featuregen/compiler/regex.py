"""The regular expressions that RE2 and Python's `re` read alike: parsed here, so that any other one is refused.

The engine runs RE2 (linear time, within Arrow), the oracle `re`. Both differ in look-around, back-references, Unicode
classes, POSIX classes, `$` before a last line feed, and in what a repeated empty match captures. What is left is the
usual: literals, classes, groups, alternatives, repetitions, anchors; texts are code points, classes are ASCII.
"""

import re
from dataclasses import dataclass

MAX_REPEAT = 1000
_CLASSES = {"d": r"\d", "D": r"\D", "w": r"\w", "W": r"\W", "s": r"\t\n\f\r "}
_CONTROLS = {"t": "\t", "n": "\n", "r": "\r", "f": "\f", "v": "\v", "a": "\a"}
_QUANTIFIER = re.compile(r"[*+?]|\{(\d+)(,(\d*))?\}", re.ASCII)


class RegexError(ValueError):
    """A pattern or a replacement that is refused: `problem` says what and where, `hint` how to mend it."""

    def __init__(self, problem: str, hint: str) -> None:
        self.problem, self.hint = problem, hint
        super().__init__(f"{problem}\n  {hint}")


@dataclass(frozen=True)
class Regex:
    """A parsed pattern: the same for Python's `re` (with re.ASCII), and its number of groups."""

    python: str
    groups: int


def parse_regex(pattern: str) -> Regex:
    """Parses a pattern.

    Raises:
        RegexError: says what is not allowed, and at which character.
    """
    return _Parser(pattern).parse()


def parse_replacement(text: str, groups: int) -> list[str | int]:
    r"""Splits a replacement into literal texts and numbers of groups: `\1` is the first, `\0` the match, `\\` a `\`.

    Raises:
        RegexError: for any other use of `\`, or a group that the pattern does not have.
    """
    parts: list[str | int] = []
    at = 0
    while at < len(text):
        follow = text[at + 1 : at + 2]
        if text[at] != "\\":
            parts.append(text[at])
            at += 1
        elif follow == "\\":
            parts.append("\\")
            at += 2
        elif follow and follow in "0123456789":
            if int(follow) > groups:
                raise RegexError(f"replacement '{text}': there is no group {follow}", f"the pattern has {groups}")
            parts.append(int(follow))
            at += 2
        else:
            raise RegexError(
                f"replacement '{text}', character {at + 1}: '\\{follow}' means nothing", r"write \\ for a backslash"
            )
    return parts


class _Parser:
    def __init__(self, text: str) -> None:
        self._text, self._at, self._groups, self._depth = text, 0, 0, 0
        self._names: set[str] = set()
        self._python: list[str] = []

    def _error(self, problem: str, hint: str, at: int | None = None) -> RegexError:
        place = (self._at if at is None else at) + 1
        return RegexError(f"pattern '{self._text}', character {place}: {problem}", hint)

    def parse(self) -> Regex:
        if self._text.startswith("(?s)"):
            self._at = 4
            self._python.append("(?s)")
        self._alternatives()
        if self._at < len(self._text):
            raise self._error("')' closes no group", r"write \) for the character")
        return Regex("".join(self._python), self._groups)

    def _next(self) -> str:
        return self._text[self._at : self._at + 1]

    def _take(self, count: int = 1) -> str:
        taken = self._text[self._at : self._at + count]
        self._at += count
        return taken

    def _alternatives(self) -> int:
        """Parses up to `)` or the end; returns the least number of characters that it matches."""
        least = [self._sequence()]
        while self._next() == "|":
            self._python.append(self._take())
            least.append(self._sequence())
        return min(least)

    def _sequence(self) -> int:
        total = 0
        while self._next() not in ("", "|", ")"):
            start = self._at
            width = self._atom()
            found = _QUANTIFIER.match(self._text, self._at)
            if found:
                width = self._quantifier(found, width, start)
            elif self._next() == "{":
                raise self._error("'{' starts no repetition", r"write {3} or {2,5}, or \{ for the character")
            total += width
        return total

    def _quantifier(self, found: re.Match[str], width: int, start: int) -> int:
        self._at = found.end()
        sign, low, high = found.group(0), found.group(1), found.group(3)
        least = int(low) if low is not None else 1 if sign == "+" else 0
        most = int(high) if high else least if low is not None and found.group(2) is None else None
        if max(least, most or 0) > MAX_REPEAT:
            raise self._error(f"it repeats more than {MAX_REPEAT} times", f"repeat at most {MAX_REPEAT} times", start)
        if most is not None and most < least:
            raise self._error(f"'{sign}' has its ends the wrong way round", "write the smaller number first", start)
        if width == 0:
            hint = "let what is repeated match at least one character: engines differ here"
            raise self._error("it repeats what may match nothing", hint, start)
        self._python.append(sign)
        if self._next() == "?":
            self._python.append(self._take())
        again = _QUANTIFIER.match(self._text, self._at)
        if again:
            raise self._error(f"'{again.group(0)}' repeats a repetition", "put the inner one into (?:...)")
        return width * least

    def _atom(self) -> int:
        start, sign = self._at, self._take()
        if sign == "(":
            return self._group(start)
        if sign == "[":
            return self._class(start)
        if sign == "\\":
            return self._escape(start)
        if sign in "*+?":
            raise self._error(f"'{sign}' repeats nothing", f"write \\{sign} for the character", start)
        if sign == "{":
            raise self._error("'{' repeats nothing", r"write \{ for the character", start)
        if sign in "^$":
            self._python.append(r"\Z" if sign == "$" else sign)
            return 0
        self._python.append(sign if sign == "." else re.escape(sign))
        return 1

    def _group(self, start: int) -> int:
        self._depth += 1
        if self._depth > 50:
            raise self._error("groups are nested too deeply", "nest at most 50", start)
        opening = "("
        if self._next() == "?":
            found = re.compile(r"\?(:|P<([A-Za-z]\w*)>)", re.ASCII).match(self._text, self._at)
            if found is None:
                hint = (
                    "there is (...), (?:...), (?P<name>...) and, at the start, (?s); RE2 looks neither ahead nor behind"
                )
                raise self._error(f"'({self._text[self._at : self._at + 3]}' is not supported", hint, start)
            if found.group(2) in self._names:
                raise self._error(f"two groups are called '{found.group(2)}'", "rename one", start)
            opening += self._take(len(found.group(0)))
        if not opening.endswith(":"):
            self._groups += 1
            self._names.add(opening[4:-1] or str(self._groups))
        self._python.append(opening)
        width = self._alternatives()
        if self._next() != ")":
            raise self._error("the group is not closed", r"write ) behind it, or \( for the character", start)
        self._python.append(self._take())
        self._depth -= 1
        return width

    def _escape(self, start: int) -> int:
        sign = self._take()
        if sign and sign in "bA":
            self._python.append(f"\\{sign}")
            return 0
        if sign and sign in "0123456789":
            raise self._error(f"'\\{sign}' refers back", "RE2 has no back-references in a pattern", start)
        if sign == "S":
            self._python.append(f"[^{_CLASSES['s']}]")
        elif sign in _CLASSES:
            self._python.append(f"[{_CLASSES[sign]}]")
        else:
            self._python.append(re.escape(self._character(sign, start)))
        return 1

    def _character(self, sign: str, start: int) -> str:
        """Returns the character that an escape stands for."""
        if sign in _CONTROLS:
            return _CONTROLS[sign]
        code = self._text[self._at : self._at + 2]
        if sign == "x" and re.fullmatch(r"[0-9A-Fa-f]{2}", code):
            return chr(int(self._take(2), 16))
        if sign and sign.isascii() and sign.isprintable() and not sign.isalnum():
            return sign
        hint = r"escapes are \d \w \s \D \W \S \b \A \t \n \r \f \v \a \xFF and \ before a sign"
        raise self._error(f"'\\{sign}' is not supported", hint, start)

    def _class(self, start: int) -> int:
        """Parses a character class behind its `[`."""
        opening = "[" + (self._take() if self._next() == "^" else "")
        parts: list[str] = []
        low: str | None = None  # the single character before, which a range may start with
        while self._next() != "]":
            at, sign = self._at, self._next()
            if sign == "":
                raise self._error("the class is not closed", r"write ] behind it, or \[ for the character", start)
            is_range = sign == "-" and parts and self._text[self._at + 1 : self._at + 2] != "]"
            if is_range:
                self._take()
            one = self._class_part(at)
            single = one if one not in _CLASSES.values() else None
            if is_range:
                if low is None or single is None:
                    raise self._error("'-' stands between no two characters", r"write \- for the character", at)
                if low > single:
                    raise self._error("the range has its ends the wrong way round", "write the smaller one first", at)
                parts[-1] += f"-{re.escape(single)}"
                low = None
            else:
                parts.append(one if single is None else re.escape(single))
                low = single
        if not parts:
            raise self._error("the class is empty", r"write \] for the character", start)
        self._python.append(opening + "".join(parts) + self._take())
        return 1

    def _class_part(self, at: int) -> str:
        """Returns one character, or the members of a class."""
        sign = self._take()
        if sign == "[":
            raise self._error("'[' in a class", r"write \[ for the character; POSIX classes are not supported", at)
        if sign != "\\":
            return sign
        escaped = self._take()
        if escaped == "S":
            raise self._error(r"'\S' in a class", r"write [^...\s] instead", at)
        return _CLASSES[escaped] if escaped in _CLASSES else self._character(escaped, at)
