"""lookup, match and kv_dot in NumPy: joins of keys with the entries of maps, over all rows at once."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from featuregen.plan import Operation
from featuregen.vectors.columns import Maps, Reader, Texts, flags_of, lists_of, numbers_of
from featuregen.vectors.spans import Floats, Ints, Spans, fold, spans_of_rows

Several = tuple[Spans, Floats]
"""Numbers of each row that are kept apart."""


def lookup(reader: Reader, operation: Operation, rows: int) -> Texts | Floats | Several:
    """Returns what the map has under each key, in the order of the keys."""
    name, key = operation.columns
    maps = reader.maps(name)
    row, entry = _hits(reader, name, key, rows)
    if pa.types.is_list(maps.values.type):
        return _vectors(operation, row, entry, maps.values, rows)
    if pa.types.is_string(maps.values.type):
        heads = [maps.keys.take(pa.array(entry))] if operation.show else []
        return _texts(row, maps.values.take(pa.array(entry)), rows, heads)
    return _numbers(operation, row, numbers_of(maps.values)[entry], rows)


def _hits(reader: Reader, name: str, key: str, rows: int) -> tuple[Ints, Ints]:
    """Returns (row, entry) of the keys that a row's map has; of all its entries if no key is given."""
    maps, owners = reader.maps(name), reader.owners(name, rows)
    if not key:
        return maps.spans.take(owners).expand()
    keys = reader.texts(key, rows)
    row, element = keys.spans.expand()
    entry = maps.find(owners[row], keys, element)
    found = entry >= 0
    return row[found], entry[found]


def match(reader: Reader, operation: Operation, rows: int) -> Texts | Floats | Several:
    """Returns what the map of maps has under each pair of keys: for each outer key the inner ones."""
    name, pkey, skey = operation.columns
    outer, inner = reader.nested(name)
    row, outer_entry = _hits(reader, name, pkey, rows)
    if skey:
        keys = reader.texts(skey, rows)
        hit, element = keys.spans.take(row).expand()
        entry = inner.find(outer_entry[hit], keys, element)
        found = entry >= 0
        hit, entry = hit[found], entry[found]
    else:
        hit, entry = inner.spans.take(outer_entry).expand()
    row, outer_entry = row[hit], outer_entry[hit]
    if not pa.types.is_string(inner.values.type):
        return _numbers(operation, row, numbers_of(inner.values)[entry], rows)
    texts = inner.values.take(pa.array(entry))
    shown = {"pkey": outer.keys.take(pa.array(outer_entry)), "skey": inner.keys.take(pa.array(entry))}
    heads = [shown[which] for which in ("pkey", "skey") if which in operation.show]
    return _texts(row, texts, rows, heads)


def _texts(row: Ints, texts: pa.StringArray, rows: int, heads: list[pa.StringArray]) -> Texts:
    """Drops what is missing, then puts the heads before each text, joined by `_`."""
    present = flags_of(pc.greater(pc.binary_length(texts), 0))
    if heads:
        texts = pc.binary_join_element_wise(*heads, texts, "_")
    return Texts(spans_of_rows(row[present], rows), texts.filter(pa.array(present)))


def _numbers(operation: Operation, row: Ints, numbers: Floats, rows: int) -> Floats | Several:
    known = ~np.isnan(numbers)
    spans, numbers = spans_of_rows(row[known], rows), numbers[known]
    if operation.combiner == "none":
        return spans, numbers
    return fold(numbers, spans, operation.combiner)[:, None]


def _vectors(operation: Operation, row: Ints, entry: Ints, lists: pa.Array, rows: int) -> Floats:
    """Combines the lists that are as long as the result, value by value; a missing value takes no part."""
    width = operation.dim
    spans, values = lists_of(lists)
    whole = (spans.lengths == width)[entry]
    row, entry = row[whole], entry[whole]
    places = np.arange(width)
    numbers = numbers_of(values)[spans.starts[entry][:, None] + places].reshape(-1)
    target = (row[:, None] * width + places).reshape(-1)
    order = np.argsort(target, kind="stable")
    order = order[~np.isnan(numbers[order])]
    grouped = spans_of_rows(target[order], rows * width)
    return fold(numbers[order], grouped, operation.combiner).reshape(rows, width)


def kv_dot(reader: Reader, operation: Operation, rows: int) -> Floats:
    """Returns the sum over the query's entries of weight times the document's weight; NaN if one has no entries."""
    query, document = (reader.weights(name) for name in operation.columns)
    ours, theirs = (reader.owners(name, rows) for name in operation.columns)
    spans = query.spans.take(ours)
    row, entry = spans.expand()
    other = document.index.find(theirs[row], document.dictionary.codes_of(query.keys)[entry])
    found = other >= 0
    row, entry, other = row[found], entry[found], other[found]
    with np.errstate(over="ignore", invalid="ignore"):
        products = _weights(query)[entry] * _weights(document)[other]
    hits = spans_of_rows(row, rows)
    total = np.where(hits.lengths > 0, fold(products, hits, "sum") + 0.0, 0.0)  # a sum that starts at 0.0 is never -0.0
    empty = (spans.lengths == 0) | (document.spans.lengths[theirs] == 0)
    return np.where(empty, np.nan, total)[:, None]


def _weights(maps: Maps) -> Floats:
    numbers = numbers_of(maps.values)
    return np.where(np.isnan(numbers), 1.0, numbers)
