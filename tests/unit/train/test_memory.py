"""What shards hold adds up, by width and by shard, to what the status says."""

import numpy as np

from kuberec_api.model import Initializer, SparseOptimizer
from kuberec_runtime.table.table import Table
from kuberec_runtime.train.memory import Holding, memory_status


def test_a_status_adds_up_what_shards_hold_by_width_and_by_shard() -> None:
    first = {8: Holding(10, 1000, 1200, 300), 17: Holding(5, 400, 2**20, 100)}
    status = memory_status([first, {8: Holding(30, 3000, 3000, 900), 17: Holding()}])
    assert (status.rows, status.row_bytes, status.index_bytes) == (45, 2**20 + 4200, 1300)
    assert [(w.width, w.rows, w.index_bytes) for w in status.widths] == [(8, 40, 1200), (17, 5, 100)]
    assert [(s.shard, s.rows, s.row_bytes) for s in status.shards] == [(0, 15, 2**20 + 1200), (1, 30, 3000)]
    assert status.held == "2Mi"
    assert (status.shards[1].bytes_per_row, status.shards[1].ratio) == (130.0, 1.3)


def test_a_shard_without_rows_has_no_bytes_per_row() -> None:
    status = memory_status([{8: Holding()}])
    assert (status.rows, status.bytes_per_row, status.ratio, status.held) == (0, None, None, "0Mi")


def test_a_table_says_what_it_holds() -> None:
    table = Table(8, SparseOptimizer(), Initializer(), 0)
    table.pull(np.arange(100_000, dtype=np.int64))
    holding = Holding.of(table)
    assert holding.rows == len(table)
    assert holding.held == table.memory_bytes
    assert holding.index_bytes >= 8 * holding.rows, "every key has a slot"
    assert holding.row_bytes >= holding.content == table.content_bytes
    assert 1.0 < (holding.ratio or 0) < 2.0
