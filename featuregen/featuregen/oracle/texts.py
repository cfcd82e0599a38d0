"""What the operators mean that make texts: one value of a derived column for each row.

Written without Arrow: Python's `re` for the expressions that it shares with RE2 (`featuregen.compiler.regex`), and the
libraries that define their operators, `tokenizers` and `opencc`. A missing text (null or empty) stays missing
everywhere. (Only a custom function that asks for Arrow arrays gets them, of one row.)
"""

import re
from collections.abc import Callable, Sequence
from functools import cache

import pyarrow as pa

from featuregen.compiler.regex import parse_regex, parse_replacement
from featuregen.oracle.values import Context, Row, elements, texts
from featuregen.plan import Operation
from featuregen.schema import arrow_type
from featuregen.udf import find_udf, is_batch


def combo(operation: Operation, row: Row) -> list[tuple[str, ...]]:
    """Cartesian product; the first field is the outermost loop. Any field without a value: none."""
    products: list[tuple[str, ...]] = [()]
    for column in operation.columns:
        products = [(*head, text) for head in products for text in texts(row.get(column))]
    return products


def bool_mask(context: Context, operation: Operation, row: Row) -> list[object]:
    """The elements whose mask is true; none if the mask has another length."""
    values, mask = (elements(row.get(column)) for column in operation.columns)
    if len(values) != len(mask):
        return []
    return [value for value, allowed in zip(values, mask, strict=True) if str(allowed).lower() in ("true", "1")]


def tokenize(context: Context, operation: Operation, row: Row) -> list[int] | list[str]:
    """Token ids, or the tokens' texts, without special tokens."""
    text = row.get(operation.columns[0])
    if not text:
        return []
    assert operation.file is not None
    encoding = _tokenizer(context.files[operation.file.name]).encode(text, add_special_tokens=False)
    return list(encoding.ids if ("tokens", "id") in operation.parameters else encoding.tokens)


@cache
def _tokenizer(content: bytes):  # type: ignore[no-untyped-def]
    from tokenizers import Tokenizer

    return Tokenizer.from_str(content.decode())


def text_normalizer(context: Context, operation: Operation, row: Row) -> str | list[str] | None:
    """One spelling of a text, or its characters without spaces."""
    text, options = row.get(operation.columns[0]), dict(operation.parameters)
    steps = options["steps"].split(",")
    if isinstance(text, str):
        for step in steps:
            text = _STEPS[step](text, options.get("stop_chars"))
        text = text[: int(options.get("max_length", len(text)))]
    if "split_chars" in steps:
        return [character for character in str(text or "") if not character.isspace()]
    return str(text) if text else None


def _half_width(text: str, _: str | None) -> str:
    """Full-width forms and the wide space to ASCII."""
    return "".join(chr(ord(c) - 0xFEE0) if "\uff01" <= c <= "\uff5e" else " " if c == "\u3000" else c for c in text)


def _simplified(text: str, _: str | None) -> str:
    """Traditional Chinese to simplified."""
    return str(_opencc().convert(text))


@cache
def _opencc():  # type: ignore[no-untyped-def]
    import opencc

    return opencc.OpenCC("t2s")


def _filter(text: str, stop_chars: str | None) -> str:
    """Drops the stop characters, or all that are neither letter, digit nor white space."""
    if stop_chars is not None:
        return "".join(c for c in text if c not in stop_chars)
    return "".join(c for c in text if c.isalnum() or c.isspace())


_STEPS: dict[str, Callable[[str, str | None], str]] = {
    "lower": lambda text, _: text.lower(),
    "upper": lambda text, _: text.upper(),
    "half_width": _half_width,
    "simplified": _simplified,
    "filter": _filter,
    "remove_space": lambda text, _: "".join(c for c in text if not c.isspace()),
    "split_chars": lambda text, _: text,  # after the cut to max_length
}


def _each(value: object, change: Callable[[str], str]) -> object:
    """Changes a text, or each text of a list; missing ones stay missing, and an empty result is missing."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_each(one, change) for one in value]
    return change(value) or None if isinstance(value, str) and value else None


def regex_replace(context: Context, operation: Operation, row: Row) -> object:
    """Replaces every match, as RE2's GlobalReplace does."""
    options = dict(operation.parameters)
    return _each(
        row.get(operation.columns[0]), lambda text: replace_all(options["pattern"], options["replacement"], text)
    )


def replace_all(pattern: str, replacement: str, text: str) -> str:
    """Replaces every match from left to right; an empty match directly behind another match is none."""
    regex = parse_regex(pattern)
    parts, compiled = parse_replacement(replacement, regex.groups), re.compile(regex.python, re.ASCII)
    result, at, last = "", 0, -1
    while at <= len(text):
        match = compiled.search(text, at)
        if match is None:
            break
        result += text[at : match.start()]
        if match.start() == match.end() == last:
            result += text[at : at + 1]
            at += 1
            continue
        result += "".join(part if isinstance(part, str) else match.group(part) or "" for part in parts)
        at = last = match.end()
    return result + text[at:]


def str_slice(context: Context, operation: Operation, row: Row) -> object:
    """A part of a text, by code points, as Python slices."""
    options = {name: int(value) for name, value in operation.parameters}
    return _each(row.get(operation.columns[0]), lambda text: text[options.get("start") : options.get("stop")])


def str_format(context: Context, operation: Operation, row: Row) -> str | None:
    """One text of several; missing if one of them is."""
    values = [texts(row.get(column)) for column in operation.columns]
    if not all(values):
        return None
    return dict(operation.parameters)["format"].format(*(value[0] for value in values)) or None


def custom(context: Context, operation: Operation, row: Row) -> object:
    """What the function returns for the fields' values; a missing value is None, and so is a missing result."""
    values = [_present(row.get(column)) for column in operation.columns]
    parameters = dict(operation.parameters)
    if operation.method == "edit_distance":
        return edit_distance(*values, **parameters)
    function = find_udf(operation.method)
    if not is_batch(function):
        return function(*values, **parameters)
    inputs = {column.name: column for column in context.plan.columns}
    types = [arrow_type(inputs[column]) for column in operation.columns]
    arrays = [pa.array([value], kind) for value, kind in zip(values, types, strict=True)]
    return function(*arrays, **parameters)[0].as_py()


def _present(value: object) -> object:
    """Returns None for what is missing: null, the empty text, list and map, and NaN."""
    return None if value in ("", [], {}) or value != value else value


def edit_distance(first: object, second: object, *, encoding: str = "utf-8") -> float | None:
    """Returns the Levenshtein distance by code points, or (encoding latin) by bytes; missing if a text is."""
    if not isinstance(first, str) or not isinstance(second, str) or not first or not second:
        return None
    a: Sequence[object] = first if encoding == "utf-8" else first.encode()
    b: Sequence[object] = second if encoding == "utf-8" else second.encode()
    previous = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        current = [i]
        for j, y in enumerate(b, 1):
            current.append(min(previous[j] + 1, current[j - 1] + 1, previous[j - 1] + (x != y)))
        previous = current
    return float(previous[-1])
