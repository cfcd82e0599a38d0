"""Parts that are copied at once make the copy that one pass would make."""

import numpy as np
import pytest

from kuberec_api.model import SparseOptimizerKind
from kuberec_runtime.table.extract import MOST_PARTS, PART_ROWS, Scan, extract, live, marked
from kuberec_runtime.table.layout import RowLayout
from kuberec_runtime.table.mode import row_mode

LAYOUTS = [RowLayout.of(4, SparseOptimizerKind.ROWWISE_ADAGRAD), RowLayout.of(16, SparseOptimizerKind.ADAGRAD)]
BIT = np.uint8(1)


@pytest.mark.parametrize("used", [0, 1, 1000, 2 * PART_ROWS, 2 * PART_ROWS + 5, 5 * PART_ROWS + 777])
@pytest.mark.parametrize("share", [0.0, 0.1, 1.0])
def test_marked_rows_in_order(used: int, share: float) -> None:
    rng = np.random.default_rng(used)
    dirty = np.zeros(used + 16 & ~7, np.uint8)
    dirty[:used] = (rng.random(used) < share) * BIT | 2  # another consumer's mark, which says nothing
    assert_copies(used, marked(dirty, dirty.view(np.int64), BIT), np.flatnonzero(dirty[:used] & BIT))


def test_rows_that_have_a_key() -> None:
    used = 3 * PART_ROWS + 1
    keys = np.arange(used)
    keys[::3] = -1
    assert_copies(used, live(keys), np.flatnonzero(keys >= 0))


def test_tails_lie_with_bodies_or_apart() -> None:
    assert [layout.apart for layout in LAYOUTS] == [False, True]


def assert_copies(used: int, scan: Scan, wanted: np.ndarray) -> None:
    rng = np.random.default_rng(1)
    keys = rng.integers(0, 1 << 40, used + 1)
    for layout in LAYOUTS:
        rows = rng.random((used + 1) * layout.pitch).astype(np.float32)
        tails = rng.random((used + 1) * layout.tail_pitch).astype(np.float32) if layout.apart else rows[layout.body :]
        copied = extract(row_mode(), rows, tails, keys, used, layout, scan, np.empty(used + MOST_PARTS, np.int64))
        assert np.array_equal(copied.keys, keys[wanted])
        assert np.array_equal(copied.raw[:, : layout.body], rows.reshape(-1, layout.pitch)[wanted, : layout.body])
        starts = wanted[:, None] * layout.tail_pitch + np.arange(layout.tail)
        assert np.array_equal(copied.raw[:, layout.body :], tails[starts])
        assert np.array_equal(np.concatenate([p.start + p.numbers for p in copied.parts]), wanted)
