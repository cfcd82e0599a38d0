"""The parts of the NumPy engine that random features reach rarely: long texts, long rows, odd slices of Arrow."""

import math
import struct
from random import Random

import numpy as np
import pyarrow as pa
import pytest

from featuregen.edit_distance import edit_distance
from featuregen.hash64 import HASHES, cross
from featuregen.oracle.texts import edit_distance as plain_edit_distance
from featuregen.oracle.values import combine
from featuregen.vectors.columns import lists_of, maps_of, numbers_of, texts_of
from featuregen.vectors.hash import cross as cross_arrays
from featuregen.vectors.hash import hash_texts
from featuregen.vectors.spans import PairIndex, Spans, fold, last_of_pairs, spans_of_lengths

RNG = Random(7)
TEXTS = ["".join(RNG.choices("abcz09 é中𝄞", k=length)) for length in [*range(140), 500, 1000] for _ in range(3)]


@pytest.mark.parametrize("name", HASHES)
def test_hashes_of_arrays_equal_the_normative_ones_for_every_length(name: str) -> None:
    texts = sorted(TEXTS, key=lambda text: (len(text) * 7919) % 101)
    assert hash_texts(name, pa.array(texts)).tolist() == [HASHES[name](text.encode()) for text in texts]


@pytest.mark.parametrize("name", HASHES)
def test_hashes_of_a_slice_see_only_the_slice(name: str) -> None:
    array = pa.array(["before", None, "", "x", TEXTS[-1], "behind"]).slice(1, 4)
    expected = [HASHES[name](text.encode()) for text in ("", "", "x", TEXTS[-1])]
    assert hash_texts(name, array).tolist() == expected


@pytest.mark.parametrize("array", [pa.array([], pa.string()), pa.array(["a"]).slice(1), pa.nulls(0, pa.string())])
def test_no_text_has_no_hash(array: pa.Array) -> None:
    assert hash_texts("farm64", array).tolist() == []


def test_mixed_hashes_of_arrays_equal_the_normative_mix() -> None:
    parts = [hash_texts("farm64", pa.array(TEXTS[at : at + 50])) for at in (0, 50, 100)]
    expected = [cross(hashes) for hashes in zip(*(part.tolist() for part in parts), strict=True)]
    assert cross_arrays(parts).tolist() == expected


def _bits(value: float | None) -> bytes:
    return struct.pack("<d", math.nan if value is None else value)


@pytest.mark.parametrize("combiner", ["sum", "mean", "min", "max", "count"])
@pytest.mark.parametrize("lengths", [[0, 1, 2, 3, 0], [3000], [3, 2000, 1, 500], [5] * 40, []])
def test_a_fold_goes_from_left_to_right(combiner: str, lengths: list[int]) -> None:
    rows = [[RNG.choice([0.0, -0.0, 0.1, 1e16, -1e16, 3.7]) for _ in range(length)] for length in lengths]
    flat = np.array([x for row in rows for x in row])
    found = fold(flat, spans_of_lengths(np.array(lengths, np.int64)), combiner)
    assert [_bits(x) for x in found.tolist()] == [_bits(combine(combiner, row)) for row in rows]


def test_spans_may_share_elements_and_leave_gaps() -> None:
    spans = Spans(np.array([2, 0, 0]), np.array([4, 0, 3]))
    row, element = spans.expand()
    assert (row.tolist(), element.tolist()) == ([0, 0, 2, 2, 2], [2, 3, 0, 1, 2])


def test_of_equal_pairs_the_last_is_found() -> None:
    owner, code = np.array([0, 0, 1, 0]), np.array([1, 0, 1, 1])
    assert last_of_pairs(owner, code).tolist() == [1, 2, 3]
    found = PairIndex(owner, code, 2).find(np.array([0, 1, 1, 2, 0]), np.array([1, 1, 0, 1, -1]))
    assert found.tolist() == [3, 2, -1, -1, -1]


def test_a_map_is_read_within_its_slice_and_keeps_the_last_of_equal_keys() -> None:
    kind = pa.map_(pa.string(), pa.float64())
    array = pa.array([[("z", 9.0)], [("a", 1.0), ("", 2.0), ("b", None), ("a", 3.0)], None, [("b", 4.0)]], kind).slice(
        1
    )
    maps = maps_of(array)
    assert maps.keys.to_pylist() == ["b", "a", "b"]
    assert maps.values.to_pylist() == [None, 3.0, 4.0]
    assert (maps.spans.starts.tolist(), maps.spans.stops.tolist()) == ([0, 2, 2], [2, 2, 3])


def test_a_null_list_has_no_elements_even_if_it_has_a_place() -> None:
    offsets, values = pa.array([0, 2, 3]), pa.array(["a", "b", "c"])
    array = pa.ListArray.from_arrays(offsets, values, mask=pa.array([True, False]))
    spans, _ = lists_of(array)
    assert spans.lengths.tolist() == [0, 1]
    texts = texts_of(array)
    assert [texts.values[i].as_py() for i in texts.spans.expand()[1].tolist()] == ["c"]


def test_whole_numbers_beyond_a_float_are_rounded_as_python_rounds_them() -> None:
    values = [2**53 + 1, -(2**63), 2**63 - 1, None]
    assert numbers_of(pa.array(values, pa.int64())).tolist()[:3] == [float(value) for value in values[:3] if value]


def _word() -> str | None:
    return "".join(RNG.choices("abé中", k=RNG.randrange(9))) or None


@pytest.mark.parametrize("encoding", ["utf-8", "latin"])
def test_edit_distances_of_arrays_equal_those_of_single_texts(encoding: str) -> None:
    first, second = ([_word() for _ in range(600)] for _ in range(2))
    first += ["x" * 300, "kitten", None]
    second += ["y" * 200, "sitting", "a"]
    found = edit_distance(pa.array(first, pa.string()), pa.array(second, pa.string()), encoding).to_pylist()
    assert found == [plain_edit_distance(a, b, encoding=encoding) for a, b in zip(first, second, strict=True)]
    assert found[-2] == 3.0
