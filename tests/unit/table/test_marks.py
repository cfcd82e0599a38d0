"""Two bits a row: what one consumer marks or clears says nothing about the other, nor about a row's neighbours."""

import numpy as np
import pytest

from kuberec_runtime.table.compiled import kernel
from kuberec_runtime.table.marks import (
    BOTH,
    CHECKPOINT_BIT,
    PUBLICATION_BIT,
    ROWS_IN_WORD,
    clear,
    count,
    mark_rows,
    scan,
    unmark,
    words_of,
)

BITS = CHECKPOINT_BIT, PUBLICATION_BIT


def found(words: np.ndarray, rows: int, bit: int) -> list[int]:
    out = np.empty(rows + 1, np.int64)
    return out[: scan(words, rows, bit, out)].tolist()


@kernel
def _unmark(dirty: np.ndarray, row: int) -> None:
    unmark(dirty, row)


@pytest.mark.parametrize("rows", [1, 3, 31, 32, 33, 64, 1000])
def test_marks_against_sets(rows: int) -> None:
    rng = np.random.default_rng(rows)
    words = np.zeros(words_of(rows), np.int64)
    dirty = words.view(np.uint8)
    model: dict[int, set[int]] = {bit: set() for bit in BITS}
    for step in range(60):
        index = rng.integers(-2, rows, rng.integers(0, 9))
        bit = BITS[step % 2]
        mark_rows(dirty, index, index.size, bit)
        model[bit] |= {int(row) for row in index if row >= 0}
        gone = int(rng.integers(rows))
        _unmark(dirty, gone)
        for marked in model.values():
            marked.discard(gone)
        if step % 20 == 19:
            clear(words, bit)
            model[bit].clear()
        for bit, marked in model.items():
            assert found(words, rows, bit) == sorted(marked)
            assert count(words, bit) == len(marked)


def test_the_last_row_of_a_word_is_its_sign() -> None:
    words = np.zeros(2, np.int64)
    mark_rows(words.view(np.uint8), np.array([ROWS_IN_WORD - 1]), 1, BOTH)
    assert words[0] < 0
    for bit in BITS:
        assert found(words, 2 * ROWS_IN_WORD, bit) == [ROWS_IN_WORD - 1]
        assert count(words, bit) == 1


def test_rows_beyond_the_last_are_not_looked_at() -> None:
    words = np.full(1, -1, np.int64)
    assert found(words, 5, CHECKPOINT_BIT) == [0, 1, 2, 3, 4]
