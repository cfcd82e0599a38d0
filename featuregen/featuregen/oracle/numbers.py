"""What the operators that make numbers mean: raw, combine, lookup, match, expr, overlap and kv_dot.

Each returns its `dim` numbers, of which some may be missing; `featuregen.oracle` puts the tail behind them. lookup and
match of texts return texts.
"""

from collections.abc import Mapping, Sequence

from featuregen.expression import Code
from featuregen.oracle.expression import evaluate, read_variables
from featuregen.oracle.values import Number, Row, combine, elements, entries, number, numbers, texts
from featuregen.plan import Operation


def raw(operation: Operation, row: Row) -> list[Number]:
    """A number, or a vector: one of another length than `dim` is missing as a whole."""
    found = numbers(row.get(operation.columns[0]))
    return found if len(found) == operation.dim else [None] * operation.dim


def combine_values(operation: Operation, row: Row) -> list[Number]:
    """One number of several; a text that the value map does not have takes no part."""
    value = row.get(operation.columns[0])
    if operation.value_map:
        known = dict(operation.value_map)
        present = [float(known[text]) for text in texts(value) if text in known]
    else:
        present = [x for x in numbers(value) if x is not None]
    return [combine(operation.combiner, present)]


def lookup(operation: Operation, row: Row) -> list[Number] | list[str]:
    """What a map has under each key, in the order of the keys; a key that occurs twice counts twice."""
    found = _under(entries(row.get(operation.columns[0])), row, operation.columns[1])
    return _found(operation, [_behind([key] if operation.show else [], value) for key, value in found])


def match(operation: Operation, row: Row) -> list[Number] | list[str]:
    """What a map of maps has under every pair of an outer and an inner key; without keys it is every one."""
    outer_map, outer_keys, inner_keys = operation.columns
    outer = entries(row.get(outer_map))
    found: list[object] = []
    for pkey, inner_map in _under(outer, row, outer_keys):
        for skey, value in _under(entries(inner_map), row, inner_keys):
            shown = [key for name, key in (("pkey", pkey), ("skey", skey)) if name in operation.show]
            found.append(_behind(shown, value))
    return _found(operation, found)


def _behind(keys: list[str], value: object) -> object:
    """The text of a value behind the keys that are shown; a missing one stays missing."""
    return "_".join([*keys, str(value)]) if keys and value is not None and value != "" else value


def _under(table: list[tuple[str, object]], row: Row, column: str) -> list[tuple[str, object]]:
    """Returns the entries under the keys of a column, in the order of the keys; all if there is no column."""
    if not column:
        return table
    known = dict(table)
    return [(key, known[key]) for key in texts(row.get(column)) if key in known]


def _found(operation: Operation, values: list[object]) -> list[Number] | list[str]:
    """Texts, or numbers combined element by element; a vector of another length, and a missing one, takes no part."""
    if not operation.combiner:
        return texts(values)
    vectors = [vector for vector in map(numbers, values) if len(vector) == operation.dim]
    if operation.combiner == "none":
        present: list[Number] = [x for vector in vectors for x in vector if x is not None]
        return present
    columns = [[vector[at] for vector in vectors] for at in range(operation.dim)]
    return [combine(operation.combiner, [x for x in column if x is not None]) for column in columns]


def expr(operation: Operation, row: Row) -> list[Number]:
    """An expression, element by element; missing as a whole if a variable that it reads is missing.

    A vector of one number holds for every element; one of another length than `dim` fits no element.
    """
    program, dim = operation.program, operation.dim
    assert program is not None, operation.output.name
    missing: list[Number] = [None] * dim
    vectors = [numbers(row.get(column)) for column in operation.columns]
    if operation.fill_missing:
        vectors = [[0.0 if x is None else x for x in vector] or [0.0] for vector in vectors]
    by_element, as_wholes = read_variables(program)
    for variable in by_element | as_wholes:
        if not vectors[variable] or None in vectors[variable]:
            return missing
    if any(len(vectors[variable]) not in (1, dim) for variable in by_element):
        return missing
    known = [[x for x in vector if x is not None] for vector in vectors]
    if not _pairs_fit(operation, known):
        return missing
    results: list[Number] = []
    for at in range(dim):
        element = [_at(vector, at) if index in by_element else 0.0 for index, vector in enumerate(known)]
        results.append(number(evaluate(program, element, known)))
    return results


def _at(vector: Sequence[float], at: int) -> float:
    return vector[at if len(vector) > 1 else 0]


def _pairs_fit(operation: Operation, vectors: Sequence[Sequence[float]]) -> bool:
    """dot, euclid_dist and corr need vectors of one length."""
    assert operation.program is not None
    pairs = [(a % 256, a // 256) for code, a in operation.program.code if code >= Code.DOT]
    return all(len(vectors[first]) == len(vectors[second]) for first, second in pairs)


def overlap(operation: Operation, row: Row) -> list[Number]:
    """A measure of the words of a query and a title; missing if one of them has none."""
    query, title = (texts(row.get(column)) for column in operation.columns)
    return [_OVERLAPS[operation.method](query, title) if query and title else None]


def _common(words: list[str], others: list[str]) -> float:
    return sum(word in others for word in words) / len(words)


def _index(query: list[str], title: list[str]) -> float:
    """Position of the query as a run of words of the title, -1 if it is none."""
    for at in range(len(title) - len(query) + 1):
        if title[at : at + len(query)] == query:
            return float(at)
    return -1.0


def _min_cover(query: list[str], title: list[str]) -> float:
    """Length of the shortest run of the title that has every query word; 0 if the title lacks one."""
    words = set(query)
    runs = [(a, b) for a in range(len(title)) for b in range(a, len(title) + 1)]
    return float(min((b - a for a, b in runs if words <= set(title[a:b])), default=0))


def _distances(query: list[str], title: list[str]) -> list[int]:
    """Smallest distance of the positions of every pair of distinct query words that the title has.

    One such word has no pair: the length of the title (Tao and Zhai, 2007). None: one more than that.
    """
    matched = [word for word in dict.fromkeys(query) if word in title]
    places = {word: [at for at, other in enumerate(title) if other == word] for word in matched}
    pairs = [(a, b) for index, a in enumerate(matched) for b in matched[index + 1 :]]
    smallest = [min(abs(i - j) for i in places[a] for j in places[b]) for a, b in pairs]
    return smallest or [len(title) if matched else len(title) + 1]


def _average_distance(query: list[str], title: list[str]) -> float:
    distances = _distances(query, title)
    return sum(distances) / len(distances)


_OVERLAPS = {
    "query_common_ratio": _common,
    "title_common_ratio": lambda query, title: _common(title, query),
    "is_equal": lambda query, title: float(query == title),
    "is_contain": lambda query, title: float(_index(query, title) >= 0),
    "index_of": _index,
    "proximity_min_cover": _min_cover,
    "proximity_min_dist": lambda query, title: float(min(_distances(query, title))),
    "proximity_max_dist": lambda query, title: float(max(_distances(query, title))),
    "proximity_avg_dist": _average_distance,
}


def kv_dot(operation: Operation, row: Row) -> list[Number]:
    """The dot product of two sparse vectors, in the order of the query's entries; missing if one has no entry."""
    query, document = (_weights(row.get(column)) for column in operation.columns)
    if not query or not document:
        return [None]
    total = 0.0
    for word, weight in query.items():
        if word in document:
            total += weight * document[word]
    return [number(total)]


def _weights(value: object) -> dict[str, float]:
    """Words and weights of a map, or of a list in which every distinct word weighs 1; so does an unknown weight."""
    is_map = isinstance(value, Mapping) or any(isinstance(one, tuple) for one in elements(value))
    pairs = entries(value) if is_map else [(word, 1.0) for word in texts(value)]
    known = [(word, number(weight)) for word, weight in pairs]
    return {word: 1.0 if weight is None else weight for word, weight in known}
