"""Texts to ids in NumPy: the texts of id and combo, the encoders, and the tail that drops what is not encodable."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from featuregen.files import vocabulary
from featuregen.plan import Encoder, Operation
from featuregen.vectors.columns import Reader, Texts, numbers_of
from featuregen.vectors.hash import Hashes, cross, hash_texts
from featuregen.vectors.spans import Flags, Floats, Ints, Spans, spans_of_lengths, spans_of_rows

_WHOLE_NUMBER = r"^[0-9]{1,18}$"


class TextEncoder:
    """An encoder with its words as Arrow and NumPy see them."""

    def __init__(self, hash_name: str, encoder: Encoder, files: Mapping[str, bytes]) -> None:
        self._hash, self._encoder = hash_name, encoder
        words = vocabulary(encoder, files) if encoder.kind == "vocab" else {}
        self._words = pa.array(list(words), pa.string())
        self._ids = np.array([*words.values(), encoder.unknown], np.int64)

    def encode(self, texts: pa.StringArray) -> tuple[Ints, Flags | None]:
        """Returns the id of each text, and which of them have one; None: all."""
        encoder = self._encoder
        if encoder.kind == "hash":
            return (hash_texts(self._hash, texts) % np.uint64(encoder.buckets)).astype(np.int64), None
        if encoder.kind == "vocab":
            found = pc.fill_null(pc.index_in(texts, value_set=self._words), len(self._words))
            return self._ids[np.asarray(found)], None
        whole = pc.match_substring_regex(texts, _WHOLE_NUMBER)
        numbers = np.asarray(pc.if_else(whole, texts, "-1").cast(pa.int64()))
        return numbers, (numbers >= 0) & (numbers < encoder.buckets)

    def default(self, text: str | None) -> int | None:
        """Returns the id of a default, None if there is none."""
        if text is None:
            return None
        ids, known = self.encode(pa.array([text]))
        return int(ids[0]) if known is None or known[0] else None

    def mixed(self, parts: list[Hashes]) -> Ints:
        """Returns ids of mixed hashes."""
        return (cross(parts) % np.uint64(self._encoder.buckets)).astype(np.int64)


def with_prefix(prefix: str, texts: pa.StringArray) -> pa.StringArray:
    """Returns the texts with a prefix before each."""
    return pc.binary_join_element_wise(prefix, texts, "") if prefix and len(texts) else texts


def text_ids(encoder: TextEncoder, operation: Operation, texts: Texts) -> tuple[Spans, Ints]:
    """Returns the ids of each row: of its texts that have one, else of the default."""
    ids, known = encoder.encode(with_prefix(operation.prefix, texts.values))
    row, element = texts.spans.expand()
    if known is not None:
        kept = known[element]
        row, element = row[kept], element[kept]
    return or_default(spans_of_rows(row, len(texts.spans)), ids[element], encoder.default(operation.default_text))


def or_default(spans: Spans, ids: Ints, default: int | None) -> tuple[Spans, Ints]:
    """Puts the default into rows without an id; the ids of all rows lie one after the other."""
    lengths = spans.lengths
    if default is None or lengths.all():
        return spans, ids
    filled = spans_of_lengths(np.maximum(lengths, 1))
    result = np.full(int(filled.stops[-1]), default, np.int64)
    _, place = Spans(filled.starts, filled.starts + lengths).expand()
    result[place] = ids
    return filled, result


def weighted_ids(reader: Reader, encoder: TextEncoder, operation: Operation, rows: int) -> tuple[Spans, Ints, Floats]:
    """Returns ids and weights of the entries of maps; the default, and an entry without a number, weigh 1."""
    name = operation.columns[0]
    maps = reader.maps(name)
    weights = numbers_of(maps.values)
    weights = np.where(np.isnan(weights), 1.0, weights)
    ids, known = encoder.encode(with_prefix(operation.prefix, maps.keys))
    row, entry = maps.spans.take(reader.owners(name, rows)).expand()
    if known is not None:
        kept = known[entry]
        row, entry = row[kept], entry[kept]
    spans, found = or_default(spans_of_rows(row, rows), ids[entry], encoder.default(operation.default_text))
    result = np.ones(len(found))
    lengths = np.bincount(row, minlength=rows)
    _, place = Spans(spans.starts, spans.starts + lengths).expand()
    result[place] = weights[entry]
    return spans, found, result


def combo_texts(reader: Reader, operation: Operation, rows: int) -> Texts:
    """Returns every combination of the fields' texts, joined by `_`; the first field is the outermost loop."""
    row, fields = _products(reader, operation, rows)
    parts = [texts.values.take(pa.array(element)) for texts, element in fields]
    return Texts(spans_of_rows(row, rows), pc.binary_join_element_wise(*parts, "_"))


def mixed_ids(
    reader: Reader, encoder: TextEncoder, hash_name: str, operation: Operation, rows: int
) -> tuple[Spans, Ints]:
    """Returns the ids of combinations whose hashes are mixed instead of their texts joined."""
    row, fields = _products(reader, operation, rows)
    ids = encoder.mixed([hash_texts(hash_name, texts.values)[element] for texts, element in fields])
    return or_default(spans_of_rows(row, rows), ids, encoder.default(operation.default_text))


def _products(reader: Reader, operation: Operation, rows: int) -> tuple[Ints, list[tuple[Texts, Ints]]]:
    """Returns the row of each combination, and of each field its texts and which of them the combination has."""
    row, fields = np.arange(rows), list[tuple[Texts, Ints]]()
    for column in operation.columns:
        texts = reader.texts(column, rows)
        before, element = texts.spans.take(row).expand()
        row = row[before]
        fields = [(held, index[before]) for held, index in fields] + [(texts, element)]
    return row, fields
