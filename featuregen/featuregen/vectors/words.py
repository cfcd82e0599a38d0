"""overlap in NumPy: words as numbers, and every measure of two lists of them over all rows at once.

Positions of a word in a title are found by binary search in the sorted triples (row, word, position).
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from featuregen.plan import Operation
from featuregen.vectors.columns import Dictionary, Reader
from featuregen.vectors.spans import Flags, Floats, Ints, PairIndex, Spans, first_of_pairs, spans_of_rows

_FAR = 2**40
"""Further than any two words."""


@dataclass(frozen=True, slots=True)
class _Words:
    """A list of words for each row: the word of every place, and which row it is in."""

    spans: Spans
    row: Ints
    word: Ints

    @property
    def pairs(self) -> tuple[Ints, Ints]:
        """(row, word) of every place."""
        return self.row, self.word

    def place(self, row: Ints) -> Ints:
        """Returns the flat place of each row's first word."""
        return self.spans.starts[row]


def overlap(reader: Reader, operation: Operation, rows: int) -> Floats:
    """Returns the measure of each row's query and title; NaN if one of them has no words."""
    query_texts, title_texts = (reader.texts(name, rows) for name in operation.columns)
    dictionary = Dictionary(pa.concat_arrays([query_texts.values, title_texts.values]))
    count = len(query_texts.values)
    query = _words(query_texts.spans, dictionary.codes[:count])
    title = _words(title_texts.spans, dictionary.codes[count:])
    with np.errstate(invalid="ignore"):
        result = _measure(operation.method, query, title, len(dictionary))
    empty = (query.spans.lengths == 0) | (title.spans.lengths == 0)
    return np.where(empty, np.nan, result.astype(np.float64))[:, None]


def _measure(method: str, query: _Words, title: _Words, codes: int) -> Ints | Floats:
    if method == "query_common_ratio":
        return _common(query, title, codes) / query.spans.lengths
    if method == "title_common_ratio":
        return _common(title, query, codes) / title.spans.lengths
    if method.startswith("proximity_"):
        return _proximity(method, query, title, codes)
    found = _first_run(query, title)
    if method == "index_of":
        return found
    is_whole = query.spans.lengths == title.spans.lengths
    return ((found >= 0) if method == "is_contain" else (found == 0) & is_whole).astype(np.int64)


def _words(spans: Spans, codes: Ints) -> _Words:
    row, element = spans.expand()
    return _Words(spans_of_rows(row, len(spans)), row, codes[element])


def _occurs(words: tuple[Ints, Ints], others: tuple[Ints, Ints], codes: int) -> Flags:
    """Flags the (row, word) that are among the others."""
    return PairIndex(*others, codes).find(*words) >= 0


def _common(words: _Words, others: _Words, codes: int) -> Ints:
    return np.bincount(words.row[_occurs(words.pairs, others.pairs, codes)], minlength=len(words.spans))


def _first_run(query: _Words, title: _Words) -> Ints:
    """Returns where the query begins as a run of words of the title, -1 if it is none."""
    lengths = query.spans.lengths
    room = np.maximum(title.spans.lengths - lengths + 1, 0)
    row, place = Spans(title.spans.starts, title.spans.starts + room).expand()
    for at in range(int(lengths.max(initial=0))):
        fits = lengths[row] <= at
        compared = np.flatnonzero(~fits)
        fits[compared] = title.word[place[compared] + at] == query.word[query.place(row[compared]) + at]
        row, place = row[fits], place[fits]
    result = np.full(len(query.spans), -1)
    result[row[::-1]] = (place - title.place(row))[::-1]  # the last to be written is the first run
    return result


class _Places:
    """The places of the matched words: query words that the title has, each once, row by row.

    Attributes:
        row, word: of every matched word.
        spans: the matched words of each row.
        lacks: rows whose title lacks a query word.
        is_matched: of every place of the titles.
    """

    def __init__(self, query: _Words, title: _Words, codes: int) -> None:
        first = first_of_pairs(query.row, query.word)
        row, word = query.row[first], query.word[first]
        matched = _occurs((row, word), title.pairs, codes)
        self.row, self.word = row[matched], word[matched]
        self.spans = spans_of_rows(self.row, len(query.spans))
        self.lacks = np.bincount(row[~matched], minlength=len(query.spans)) > 0
        self._codes, self._length = codes, int(title.spans.lengths.max(initial=0)) + 1
        at = np.arange(len(title.row)) - title.place(title.row)
        self.is_matched = _occurs(title.pairs, (self.row, self.word), codes)
        self._keys = np.sort(self._key(title.row, title.word, at))

    def _key(self, row: Ints, word: Ints, at: Ints) -> Ints:
        return (row * self._codes + word) * self._length + at

    def following(self, row: Ints, word: Ints, at: Ints) -> Ints:
        """Returns the first position of a word at or behind `at`; far away if there is none."""
        key = self._key(row, word, at)
        found = np.searchsorted(self._keys, key)
        ahead = self._keys[np.minimum(found, len(self._keys) - 1)] - key
        inside = (found < len(self._keys)) & (ahead < self._length - at)
        return np.where(inside, at + ahead, _FAR)

    def preceding(self, row: Ints, word: Ints, at: Ints) -> Ints:
        """Returns the last position of a word before `at`; far away if there is none."""
        key = self._key(row, word, at)
        found = np.searchsorted(self._keys, key) - 1
        behind = key - self._keys[np.maximum(found, 0)]
        return np.where((found >= 0) & (behind <= at), at - behind, -_FAR)

    def occurrences(self, row: Ints, word: Ints) -> tuple[Ints, Ints]:
        """Returns (which of the given words, position) of every occurrence of each."""
        starts = np.searchsorted(self._keys, self._key(row, word, np.zeros_like(row)))
        stops = np.searchsorted(self._keys, self._key(row, word, np.full_like(row, self._length)))
        which, found = Spans(starts, stops).expand()
        return which, self._keys[found] % self._length


def _proximity(method: str, query: _Words, title: _Words, codes: int) -> Ints | Floats:
    places = _Places(query, title, max(codes, 1))
    if method == "proximity_min_cover":
        return _min_cover(title, places)
    pair_row, distance = _distances(places)
    pairs = spans_of_rows(pair_row, len(title.spans))
    some, result = pairs.lengths > 0, (title.spans.lengths + (places.spans.lengths == 0)).astype(np.float64)
    if some.any():
        ufunc = {"proximity_min_dist": np.minimum, "proximity_max_dist": np.maximum, "proximity_avg_dist": np.add}[
            method
        ]
        result[some] = ufunc.reduceat(distance, pairs.starts[some])
    return result / np.maximum(pairs.lengths, 1) if method == "proximity_avg_dist" else result


def _min_cover(title: _Words, places: _Places) -> Ints:
    """A shortest run begins with a matched word; from there it goes to the furthest of all words' next places."""
    begins = np.flatnonzero(places.is_matched)
    row, at = title.row[begins], begins - title.place(title.row[begins])
    begin, index = places.spans.take(row).expand()
    following = places.following(row[begin], places.word[index], at[begin])
    furthest = np.zeros(len(begins), np.int64)
    np.maximum.at(furthest, begin, following)
    result = np.full(len(title.spans), _FAR)
    np.minimum.at(result, row, furthest - at + 1)
    return np.where(places.lacks | (result == _FAR), 0, result)


def _distances(places: _Places) -> tuple[Ints, Ints]:
    """Returns (row, smallest distance of their positions) of every pair of matched words, row by row."""
    last = places.spans.stops[places.row]
    first, second = Spans(np.arange(len(last)) + 1, last).expand()
    row, a, b = places.row[first], places.word[first], places.word[second]
    which, at = places.occurrences(row, a)
    row_at, b_at = row[which], b[which]
    nearest = np.minimum(places.following(row_at, b_at, at) - at, at - places.preceding(row_at, b_at, at))
    result = np.full(len(row), _FAR)
    np.minimum.at(result, which, nearest)
    return row, result
