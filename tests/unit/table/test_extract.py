"""Parts that are copied at once make the copy that one pass would make."""

import numpy as np
import pytest

from kuberec_api.model import SparseOptimizerKind
from kuberec_runtime.table.extract import MOST_PARTS, PART_ROWS, Scan, extract, live, marked
from kuberec_runtime.table.layout import RowLayout
from kuberec_runtime.table.marks import CHECKPOINT_BIT, PUBLICATION_BIT, mark_rows, words_of
from kuberec_runtime.table.mode import row_mode
from kuberec_runtime.table.room import Room, Rooms
from kuberec_runtime.table.slab import Slab

LAYOUTS = [RowLayout.of(4, SparseOptimizerKind.ROWWISE_ADAGRAD), RowLayout.of(16, SparseOptimizerKind.ADAGRAD)]


@pytest.mark.parametrize("used", [0, 1, 1000, 2 * PART_ROWS, 2 * PART_ROWS + 5, 5 * PART_ROWS + 777])
@pytest.mark.parametrize("share", [0.0, 0.1, 1.0])
def test_marked_rows_in_order(used: int, share: float) -> None:
    rng = np.random.default_rng(used)
    words = np.zeros(words_of(used) + 1, np.int64)
    wanted = np.flatnonzero(rng.random(used) < share)
    mark_rows(words.view(np.uint8), wanted, wanted.size, CHECKPOINT_BIT)
    # Another consumer's mark says nothing.
    mark_rows(words.view(np.uint8), np.arange(used), used, PUBLICATION_BIT)
    assert_copies(used, marked(words, CHECKPOINT_BIT), wanted)


def test_rows_that_have_a_key() -> None:
    used = 3 * PART_ROWS + 1
    keys = np.arange(used)
    keys[::3] = -1
    assert_copies(used, live(keys), np.flatnonzero(keys >= 0))


def test_tails_lie_with_bodies_or_apart() -> None:
    assert [layout.apart for layout in LAYOUTS] == [False, True]


def assert_copies(used: int, scan: Scan, wanted: np.ndarray) -> None:
    rng = np.random.default_rng(1)
    for layout in LAYOUTS:
        slab = Slab(layout)
        slab.keys[:used] = rng.integers(0, 1 << 40, used)
        slab.rows[: used * layout.pitch] = rng.random(used * layout.pitch).astype(np.float32)
        if layout.apart:
            slab.tails[: used * layout.tail_pitch] = rng.random(used * layout.tail_pitch).astype(np.float32)
        copied, raw = extract(row_mode(), slab, used, scan, np.empty(used + MOST_PARTS, np.int64), Rooms(1 << 14, 64))
        assert np.array_equal(copied, slab.keys[wanted])
        assert np.array_equal(raw, slab.raw(used)[wanted])
        assert np.array_equal(raw[:, : layout.body], slab.rows[wanted[:, None] * layout.pitch + np.arange(layout.body)])
        tails = slab.tails[wanted[:, None] * layout.tail_pitch + np.arange(layout.tail)]
        assert np.array_equal(raw[:, layout.body :], tails)


def test_memory_is_lent_to_one_array_at_a_time_and_comes_back_with_its_last_view() -> None:
    room = Room(1 << 20)
    first = room.array(np.float32, (10, 4), 1 << 20)
    first[:] = 1.0
    other = room.array(np.float32, (10, 4), 1 << 20)
    other[:] = 2.0
    view = first[3:5].reshape(-1)
    del first
    third = room.array(np.float32, (2, 4), 1 << 20)
    third[:] = 3.0
    assert (view == 1.0).all(), "a view of the first array still sees the memory"
    del view
    again = room.array(np.float32, (10, 4), 1 << 20)
    assert again.ctypes.data == room.address
    assert room.array(np.float32, (1 << 19,), 1 << 20).ctypes.data != room.address, "more than asked for is never kept"
    assert room.committed == 160
