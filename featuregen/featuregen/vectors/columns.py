"""Arrow columns as operators of the NumPy engine read them: texts, numbers, lists and maps, whatever the nesting.

A missing value is gone (texts), or NaN (numbers). What is read of a column is read once in a run, and a column whose
first value holds for all rows (the user's, in a ranking) is read once and its spans repeated.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from featuregen.plan import Input
from featuregen.vectors.spans import (
    Flags,
    Floats,
    Ints,
    PairIndex,
    Spans,
    first_of_pairs,
    keep,
    last_of_pairs,
    spans_of_rows,
)

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Texts:
    """The texts of each row; `values` has neither null nor empty ones."""

    spans: Spans
    values: pa.StringArray

    def repeated(self, owners: Ints) -> "Texts":
        """Returns the texts of other rows."""
        return Texts(self.spans.take(owners), self.values)


class Dictionary:
    """Distinct texts with a number each."""

    def __init__(self, texts: pa.StringArray) -> None:
        encoded = texts.dictionary_encode()
        self.codes = _filled(encoded.indices, -1)
        self._words = encoded.dictionary

    def __len__(self) -> int:
        return len(self._words)

    def codes_of(self, texts: pa.StringArray) -> Ints:
        """Returns the number of each text, -1 if it is not there."""
        return _filled(pc.index_in(texts, value_set=self._words), -1)


@dataclass(frozen=True, slots=True)
class Maps:
    """The entries of each map that exist: those with a key that is no empty text, and of equal keys the last.

    Attributes:
        spans: of each map, the entries, in the order of the map.
        keys: of all entries.
        values: of all entries; any type.
        dictionary: of the keys.
        index: finds an entry by (map, number of the key).
    """

    spans: Spans
    keys: pa.StringArray
    values: pa.Array
    dictionary: Dictionary
    index: PairIndex

    def find(self, owners: Ints, keys: Texts, elements: Ints) -> Ints:
        """Returns the entry of each key (an element of `keys`) in a map, -1 where there is none."""
        return self.index.find(owners, self.dictionary.codes_of(keys.values)[elements])


def _filled(numbers: pa.Array, missing: int) -> Ints:
    return np.asarray(pc.fill_null(numbers, missing)).astype(np.int64)


def flags_of(array: pa.Array) -> Flags:
    """Returns a boolean array as NumPy's; null is False."""
    return np.asarray(pc.fill_null(array, False).to_numpy(zero_copy_only=False), np.bool_)


def lists_of(array: pa.Array) -> tuple[Spans, Any]:
    """Returns the spans of lists or maps (null: empty), and the child array that they are of."""
    offsets = np.asarray(array.offsets).astype(np.int64) if len(array) else np.zeros(1, np.int64)
    first = int(offsets[0])
    starts, stops = offsets[:-1] - first, offsets[1:] - first
    if array.null_count:
        stops = np.where(flags_of(array.is_valid()), stops, starts)
    return Spans(starts, stops), array.values.slice(first, int(offsets[-1]) - first)


def texts_of(array: pa.Array) -> Texts:
    """Returns the texts of a column of strings or whole numbers, or of lists of them."""
    if pa.types.is_list(array.type):
        spans, values = lists_of(array)
    else:
        spans, values = Spans(np.arange(len(array)), np.arange(1, len(array) + 1)), array
    if pa.types.is_integer(values.type):
        values = values.cast(pa.string())
    present = flags_of(pc.greater(pc.binary_length(values), 0))
    if present.all():
        return Texts(spans, values)
    return Texts(keep(spans, present), values.filter(pa.array(present)))


def numbers_of(array: pa.Array) -> Floats:
    """Returns a column of whole or other numbers as float64; null is NaN."""
    if not array.null_count:
        return np.asarray(array).astype(np.float64)
    numbers = np.asarray(pc.fill_null(array, 0)).astype(np.float64)
    numbers[~flags_of(array.is_valid())] = np.nan
    return numbers


def maps_of(array: pa.MapArray) -> Maps:
    """Returns the entries of a column of maps."""
    spans, entries = lists_of(array)
    keys, values = entries.field(0), entries.field(1)
    dictionary = Dictionary(keys)
    owner, entry = spans.expand()
    exists = np.zeros(len(keys), np.bool_)
    exists[entry[last_of_pairs(owner, dictionary.codes[entry])]] = True
    exists &= flags_of(pc.greater(pc.binary_length(keys), 0))
    kept = pa.array(exists)
    return _indexed(keep(spans, exists), keys.filter(kept), values.filter(kept))


def maps_of_words(texts: Texts) -> Maps:
    """Returns lists of words as maps from each distinct word to 1."""
    row, element = texts.spans.expand()
    codes = Dictionary(texts.values).codes[element]
    first = first_of_pairs(row, codes)
    keys = texts.values.take(pa.array(element[first]))
    return _indexed(spans_of_rows(row[first], len(texts.spans)), keys, pa.array(np.ones(len(first))))


def _indexed(spans: Spans, keys: pa.StringArray, values: pa.Array) -> Maps:
    dictionary = Dictionary(keys)
    owner, _ = spans.expand()
    return Maps(spans, keys, values, dictionary, PairIndex(owner, dictionary.codes, len(dictionary)))


class Reader:
    """The columns of one run.

    Args:
        columns: the plan's columns, or the first of them.
        arrays: their arrays.
        steps: 1 where an array has a value for every row, 0 where its first value holds for all.
    """

    def __init__(self, columns: Sequence[Input], arrays: Sequence[pa.Array], steps: Sequence[int]) -> None:
        self._arrays = {column.name: array for column, array in zip(columns, arrays, strict=False)}
        self._steps = {column.name: step for column, step in zip(columns, steps, strict=False)}
        self._read: dict[tuple[str, str], Any] = {}

    def add(self, name: str, array: pa.Array, step: int) -> None:
        """Adds a column that was computed of the others."""
        self._arrays[name], self._steps[name] = array, step

    def array(self, name: str) -> pa.Array:
        """Returns a column as it is: of one row if its first value holds for all."""
        return self._arrays[name]

    def is_shared(self, name: str) -> bool:
        """Says whether a column's first value holds for all rows."""
        return not self._steps[name]

    def owners(self, name: str, rows: int) -> Ints:
        """Returns the row of a column's array that each row reads."""
        return np.arange(rows) * self._steps[name]

    def once(self, what: str, name: str, read: Callable[[pa.Array], _T]) -> _T:
        """Returns what `read` makes of a column; the second time it is remembered by `what`."""
        key = (what, name)
        if key not in self._read:
            self._read[key] = read(self._arrays[name])
        return self._read[key]

    def texts(self, name: str, rows: int) -> Texts:
        """Returns the texts of each row."""
        texts = self.once("texts", name, texts_of)
        return texts.repeated(self.owners(name, rows)) if self.is_shared(name) else texts

    def numbers(self, name: str, rows: int) -> Floats:
        """Returns the number of each row, NaN if it is missing."""
        numbers = self.once("numbers", name, numbers_of)
        return numbers[self.owners(name, rows)] if self.is_shared(name) else numbers

    def vectors(self, name: str, rows: int) -> tuple[Spans, Floats]:
        """Returns the numbers of each row, of a column of lists or of single numbers; a missing element is NaN."""
        spans, numbers = self.once("vectors", name, _vectors_of)
        return (spans.take(self.owners(name, rows)) if self.is_shared(name) else spans), numbers

    def lists(self, name: str, rows: int) -> tuple[Spans, Any]:
        """Returns the elements of each row, missing ones among them, and the array that they are in."""
        spans, values = self.once("lists", name, lists_of)
        return (spans.take(self.owners(name, rows)) if self.is_shared(name) else spans), values

    def maps(self, name: str) -> Maps:
        """Returns the maps of a column; `owners` says which of them each row reads."""
        return self.once("maps", name, maps_of)

    def nested(self, name: str) -> tuple[Maps, Maps]:
        """Returns the maps of a column, and the maps that are their values: one for each entry of the first."""
        outer = self.maps(name)
        return outer, self.once("inner", name, lambda _: maps_of(outer.values))

    def weights(self, name: str) -> Maps:
        """Returns maps of numbers; a list of words is a map from each distinct word to 1."""
        read = maps_of if pa.types.is_map(self.array(name).type) else lambda array: maps_of_words(texts_of(array))
        return self.once("weights", name, read)


def _vectors_of(array: pa.Array) -> tuple[Spans, Floats]:
    if pa.types.is_list(array.type):
        spans, values = lists_of(array)
        return spans, numbers_of(values)
    return Spans(np.arange(len(array)), np.arange(1, len(array) + 1)), numbers_of(array)
