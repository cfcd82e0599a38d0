"""Keys and rows to the columns of a table's file."""

import numpy as np
import pyarrow as pa

from kuberec_runtime.checkpoint import Merged, TableRef
from kuberec_runtime.epochs.parquet import ROW_GROUP, schema_of, table_batches
from kuberec_runtime.table.buckets import key_of
from tests.unit.epochs.epochs import CATE, USER, row


def rows_of(*tables: tuple[TableRef, int]) -> dict[int, Merged]:
    keys = np.concatenate([key_of(t.ordinal, np.arange(n)) for t, n in tables])
    raw = np.concatenate([[row(float(i), i, 1_800_000_000 + i) for i in range(n)] for _, n in tables])
    return {4: Merged(keys, raw.astype(np.float32), np.zeros(0, np.int64))}


def test_ids_come_back_and_the_linear_weight_has_a_column_of_its_own() -> None:
    (cate,) = table_batches(CATE, rows_of((CATE, 3), (USER, 5)), with_state=False)
    assert cate.column_names == ["id", "linear", "embedding"]
    assert cate.column("id").to_pylist() == [0, 1, 2]
    assert cate.column("linear").to_pylist() == [0.0, 1.0, 2.0]
    assert cate.column("embedding").to_pylist()[2] == [2.0, 2.0, 2.0]
    (user,) = table_batches(USER, rows_of((CATE, 3), (USER, 5)), with_state=False)
    assert user.column_names == ["id", "embedding"]
    assert user.column("embedding").to_pylist()[4] == [4.0] * 4


def test_state_and_counters_come_with_it_if_asked() -> None:
    (user,) = table_batches(USER, rows_of((USER, 3)), with_state=True)
    assert user.schema == schema_of(USER, with_state=True)
    assert user.column("state").to_pylist() == [[0.0], [10.0], [20.0]]
    assert user.column("frequency").to_pylist() == [0, 1, 2]
    assert user.column("last_seen").cast(pa.int64()).to_pylist()[2] == 1_800_000_002_000


def test_many_rows_come_in_row_groups_and_absent_tables_in_none() -> None:
    n = ROW_GROUP + 1
    rows = {4: Merged(key_of(USER.ordinal, np.arange(n)), np.zeros((n, 7), np.float32), np.zeros(0, np.int64))}
    assert [batch.num_rows for batch in table_batches(USER, rows, with_state=False)] == [ROW_GROUP, 1]
    assert table_batches(CATE, rows, with_state=True) == []
    assert table_batches(CATE, {}, with_state=True) == []
