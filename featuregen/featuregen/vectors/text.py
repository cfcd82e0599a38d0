"""The operators that exist as derived columns only: texts made of texts, tokens, masks, and custom functions.

This is their one implementation besides the oracle; both engines read its columns. What Arrow can do is done by Arrow;
what needs Python's tables of Unicode, OpenCC or a tokenizer is done once for each distinct text.
"""

from collections.abc import Callable, Mapping
from functools import cache
from string import Formatter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from featuregen.plan import Derivation
from featuregen.udf import call_udf
from featuregen.vectors.columns import Reader, flags_of, lists_of
from featuregen.vectors.spans import Spans, offsets_of, spans_of_rows

Files = Mapping[str, bytes]
_HALF_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | {0x3000: 0x20}


def list_array(spans: Spans, values: Any) -> pa.ListArray:
    """Returns lists of the elements that lie one after the other in `values`."""
    return pa.ListArray.from_arrays(pa.array(offsets_of(spans)), values)


def _whole(reader: Reader, name: str, rows: int) -> pa.Array:
    """Returns a column with a value for every row."""
    array = reader.array(name)
    return array.take(pa.array(reader.owners(name, rows))) if reader.is_shared(name) else array


def _each(array: pa.Array, change: Callable[[pa.StringArray], pa.Array]) -> pa.Array:
    """Changes a column of texts, or the elements of one of lists."""
    if not pa.types.is_list(array.type):
        return change(array)
    spans, values = lists_of(array)
    row, element = spans.expand()
    return list_array(spans_of_rows(row, len(array)), change(values.take(pa.array(element))))


def _distinct(texts: pa.StringArray, change: Callable[[list[str]], pa.Array]) -> pa.Array:
    """Changes every distinct text once; an empty text is missing."""
    known = pc.if_else(pc.greater(pc.binary_length(texts), 0), texts, None).dictionary_encode()
    return change(known.dictionary.to_pylist()).take(known.indices)


def bool_mask(reader: Reader, derivation: Derivation, rows: int, files: Files) -> pa.Array:
    """The elements whose mask is 1 or true; none if the mask has another length."""
    (spans, values), (mask_spans, mask) = (
        _elements(_whole(reader, name, rows)) for name in derivation.operation.columns
    )
    fits = spans.lengths == mask_spans.lengths
    row, element = Spans(spans.starts, np.where(fits, spans.stops, spans.starts)).expand()
    allowed = _is_true(mask)[mask_spans.starts[row] + element - spans.starts[row]]
    return list_array(spans_of_rows(row[allowed], rows), values.take(pa.array(element[allowed])))


def _elements(array: pa.Array) -> tuple[Spans, pa.Array]:
    """Returns the elements of lists; a single value is a list of one, a null has none."""
    if pa.types.is_list(array.type):
        return lists_of(array)
    present = flags_of(array.is_valid())
    starts = np.arange(len(array))
    return Spans(starts, starts + present), array


def _is_true(mask: pa.Array) -> Any:
    if pa.types.is_string(mask.type):
        return flags_of(pc.is_in(pc.ascii_lower(mask), value_set=pa.array(["true", "1"])))
    return flags_of(pc.equal(mask, 1))


def tokenize(reader: Reader, derivation: Derivation, rows: int, files: Files) -> pa.Array:
    """Token ids, or the tokens' texts, without special tokens."""
    operation = derivation.operation
    assert operation.file is not None
    tokenizer, ids = _tokenizer(files[operation.file.name]), ("tokens", "id") in operation.parameters

    def tokens(texts: list[str]) -> pa.Array:
        encodings = tokenizer.encode_batch(texts, add_special_tokens=False)
        kind = pa.int64() if ids else pa.string()
        return pa.array([one.ids if ids else one.tokens for one in encodings], pa.list_(kind))

    return _distinct(_whole(reader, operation.columns[0], rows), tokens)


@cache
def _tokenizer(content: bytes) -> Any:
    from tokenizers import Tokenizer

    return Tokenizer.from_str(content.decode())


def text_normalizer(reader: Reader, derivation: Derivation, rows: int, files: Files) -> pa.Array:
    """One spelling of a text, or its characters without spaces."""
    options = dict(derivation.operation.parameters)
    steps, stop_chars = options["steps"].split(","), options.get("stop_chars")
    most = int(options["max_length"]) if "max_length" in options else None

    def normalize(texts: list[str]) -> pa.Array:
        for step in steps:
            texts = [_normalized(step, text, stop_chars) for text in texts]
        cut = [text[:most] for text in texts]
        if "split_chars" in steps:
            return pa.array([[c for c in text if not c.isspace()] for text in cut], pa.list_(pa.string()))
        return pa.array(cut, pa.string())

    return _distinct(_whole(reader, derivation.operation.columns[0], rows), normalize)


def _normalized(step: str, text: str, stop_chars: str | None) -> str:
    if step == "lower":
        return text.lower()
    if step == "upper":
        return text.upper()
    if step == "half_width":
        return text.translate(_HALF_WIDTH)
    if step == "simplified":
        return text if text.isascii() else _opencc().convert(text)
    if step == "filter":
        return "".join([c for c in text if (c.isalnum() or c.isspace() if stop_chars is None else c not in stop_chars)])
    return "".join(text.split()) if step == "remove_space" else text


@cache
def _opencc() -> Any:
    from opencc import OpenCC

    return OpenCC("t2s")


def regex_replace(reader: Reader, derivation: Derivation, rows: int, files: Files) -> pa.Array:
    """Every match of an RE2 expression replaced."""
    operation, options = derivation.operation, dict(derivation.operation.parameters)

    def replace(texts: pa.StringArray) -> pa.Array:
        texts = pc.if_else(
            pc.greater(pc.binary_length(texts), 0), texts, None
        )  # an empty text is missing, and stays so
        return pc.replace_substring_regex(texts, options["pattern"], options["replacement"])

    return _each(_whole(reader, operation.columns[0], rows), replace)


def str_slice(reader: Reader, derivation: Derivation, rows: int, files: Files) -> pa.Array:
    """A part of a text, by code points."""
    operation = derivation.operation
    options = {name: int(value) for name, value in operation.parameters}
    start, stop = options.get("start", 0), options.get("stop")
    return _each(_whole(reader, operation.columns[0], rows), lambda texts: pc.utf8_slice_codeunits(texts, start, stop))


def str_format(reader: Reader, derivation: Derivation, rows: int, files: Files) -> pa.Array:
    """One text of several; missing if one of them is."""
    operation = derivation.operation
    columns = []
    for name in operation.columns:
        texts = _whole(reader, name, rows).cast(pa.string())
        columns.append(pc.if_else(pc.greater(pc.binary_length(texts), 0), texts, None))
    parts: list[Any] = []
    for literal, position, _, _ in Formatter().parse(dict(operation.parameters)["format"]):
        parts += [literal] if position is None else [literal, columns[int(position)]]
    return pc.binary_join_element_wise(*parts, "")


def custom(reader: Reader, derivation: Derivation, rows: int, files: Files) -> pa.Array:
    """What a function of the user returns."""
    operation, kind = derivation.operation, derivation.column.type
    arrays = [_whole(reader, name, rows) for name in operation.columns]
    feature = operation.output.feature
    return call_udf(feature, operation.method, arrays, rows, kind, operation.dim, dict(operation.parameters))


COLUMNS: dict[str, Callable[[Reader, Derivation, int, Files], pa.Array]] = {
    "bool_mask": bool_mask,
    "tokenize": tokenize,
    "text_normalizer": text_normalizer,
    "regex_replace": regex_replace,
    "str_format": str_format,
    "str_slice": str_slice,
    "custom": custom,
}
"""Operators that make a column, by their name."""
