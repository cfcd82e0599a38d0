"""Digests tell two columns apart whenever a bit differs, and are the same with numba and without."""

from dataclasses import fields, replace

import numpy as np
import pytest

from featuregen.hash64 import farm64
from featuregen.replay.digests import PARTS, digest, digests, hash_without_numba
from featuregen.replay.kernel import farm64_pieces
from featuregen.results import Column, Features
from featuregen.rows import row_of, row_values

IDS = Column(3, ids=np.array([5, 6, 7]), offsets=np.array([0, 2, 2, 3], np.int32))
WEIGHTED = replace(IDS, weights=np.array([0.5, 1, 2], np.float32))
DENSE = Column(3, values=np.arange(6, dtype=np.float32).reshape(3, 2))
NUMBERS = Column(3, values=np.arange(6, dtype=np.float32).reshape(3, 2), offsets=IDS.offsets)
MULTI = replace(IDS, elements=np.array([0, 2, 3, 4], np.int32), element_offsets=np.array([0, 0, 2, 2, 3], np.int32))
EVERY = [IDS, WEIGHTED, DENSE, NUMBERS, MULTI]


def test_every_part_of_a_column_is_digested() -> None:
    assert list(PARTS) == [field.name for field in fields(Column) if field.name != "rows"]


def test_one_bit_anywhere_is_another_digest() -> None:
    found = {digest(column) for column in EVERY}
    changes = 0
    for column in EVERY:
        for name in PARTS:
            part = getattr(column, name)
            if part is None:
                continue
            for bit in range(8 * part.nbytes):
                flipped = part.copy()
                flipped.view(np.uint8).reshape(-1)[bit // 8] ^= 1 << bit % 8
                found.add(digest(replace(column, **{name: flipped})))
                changes += 1
    assert changes > 1000
    assert len(found) == len(EVERY) + changes


def test_an_empty_part_is_not_an_absent_one_and_one_row_is_not_three() -> None:
    empty = Column(0, ids=np.zeros(0, np.int64), offsets=np.zeros(1, np.int32))
    weighted = replace(empty, weights=np.zeros(0, np.float32))
    assert digest(empty) != digest(weighted)
    one = Column(1, values=np.zeros((1, 3), np.float32))
    assert digest(one) != digest(Column(3, values=np.zeros((3, 1), np.float32)))


def test_views_of_larger_arrays_have_the_digest_of_their_content() -> None:
    wide = np.zeros((3, 7), np.float32)
    wide[:, 2:4] = DENSE.values
    assert digest(Column(3, values=wide[:, 2:4])) == digest(DENSE)


def test_digests_come_in_the_order_of_the_outputs() -> None:
    features = Features(3, {str(index): column for index, column in enumerate(EVERY)})
    assert digests(features).tolist() == [digest(column) for column in EVERY]
    assert digests(features).dtype == np.uint64
    assert digests(Features(0, {})).tolist() == []


@pytest.mark.parametrize("size", [*range(70), 127, 128, 129, 8000])
def test_numba_numpy_and_python_hash_the_same(size: int) -> None:
    piece = np.random.default_rng(size).integers(0, 256, size).astype(np.uint8)
    assert farm64_pieces([piece, piece[:0]]).tolist() == hash_without_numba([piece, piece[:0]]).tolist()
    assert int(farm64_pieces([piece])[0]) == farm64(piece.tobytes())


def test_a_row_is_a_column_with_the_same_values() -> None:
    assert [row_values(IDS, row) for row in range(3)] == [[5, 6], [], [7]]
    assert [row_values(WEIGHTED, row) for row in range(3)] == [[(5, 0.5), (6, 1.0)], [], [(7, 2.0)]]
    assert row_values(DENSE, 1) == [2.0, 3.0]
    assert [row_values(NUMBERS, row) for row in range(3)] == [[[0.0, 1.0], [2.0, 3.0]], [], [[4.0, 5.0]]]
    assert [row_values(MULTI, row) for row in range(3)] == [[[], [5, 6]], [[]], [[7]]]
    for column in EVERY:
        for row in range(3):
            assert row_values(row_of(column, row), 0) == row_values(column, row)
