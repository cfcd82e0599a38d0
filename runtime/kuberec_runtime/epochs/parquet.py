"""One Parquet file for each table: ids come back from keys, weights from rows, and no tool needs KubeRec to read them.

Columns: `id` int64; `linear` float32 where the table has a linear weight; `embedding` list<float32>. With state also
`state` list<float32> (the optimizer's), `frequency` uint32 (pushes that touched the row) and `last_seen` (UTC).
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from kuberec_runtime.checkpoint import Manifest, Merged, Store, TableRef
from kuberec_runtime.epochs.groups import portions, rows_by_width
from kuberec_runtime.table.buckets import split_key

I64 = NDArray[np.int64]
F32 = NDArray[np.float32]
ROW_GROUP = 1 << 17


def export_rows(
    store: Store,
    manifest: Manifest,
    tables: Sequence[TableRef],
    folder: Path,
    with_state: bool,
    progress: Callable[[str, int, int], None],
) -> dict[str, int]:
    """Writes `<folder>/<table>.parquet` for every table, an empty one where the epoch has no rows of it.

    Returns:
        Rows by table.

    Raises:
        CorruptFile: a file of the epoch is missing or broken.
        StoreError: the store does not answer.
    """
    folder.mkdir()
    parts = portions([manifest])
    counts = {table.name: 0 for table in tables}
    with ExitStack() as files:
        writers = {
            t.name: files.enter_context(
                pq.ParquetWriter(folder / f"{t.name}.parquet", schema_of(t, with_state), use_dictionary=False)
            )
            for t in tables
        }
        done, of = 0, len(parts) * len(tables)
        for portion in parts:
            progress("rows", done, of)
            rows = rows_by_width(store, manifest, portion)
            for table in tables:
                for batch in table_batches(table, rows, with_state):
                    writers[table.name].write_table(batch)
                    counts[table.name] += batch.num_rows
                done += 1
                progress("rows", done, of)
    return counts


def schema_of(table: TableRef, with_state: bool) -> pa.Schema:
    """The columns of a table's file."""
    floats = pa.list_(pa.field("item", pa.float32(), nullable=False))
    columns = [pa.field("id", pa.int64(), nullable=False)]
    columns += [pa.field("linear", pa.float32(), nullable=False)] if table.linear else []
    columns += [pa.field("embedding", floats, nullable=False)]
    if with_state:
        columns += [
            pa.field("state", floats, nullable=False),
            pa.field("frequency", pa.uint32(), nullable=False),
            pa.field("last_seen", pa.timestamp("ms", tz="UTC"), nullable=False),
        ]
    return pa.schema(columns)


def table_batches(table: TableRef, rows: Mapping[int, Merged], with_state: bool) -> list[pa.Table]:
    """Picks a table's rows, ids ascending, in pieces of at most `ROW_GROUP`.

    Args:
        table: which.
        rows: by width; raw rows are `[weights | state | frequency | last seen]`.
        with_state: all of a row, not just its weights.
    """
    if table.width not in rows:
        return []
    raw = rows[table.width].raw
    ordinals, ids = split_key(rows[table.width].keys)
    mine = np.flatnonzero(ordinals == table.ordinal)
    return [
        _batch(table, ids[piece], raw[piece], with_state)
        for start in range(0, len(mine), ROW_GROUP)
        if (piece := mine[start : start + ROW_GROUP]).size
    ]


def _batch(table: TableRef, ids: I64, raw: F32, with_state: bool) -> pa.Table:
    width, stride = table.width, raw.shape[1]
    columns = [pa.array(ids)]
    columns += [pa.array(np.ascontiguousarray(raw[:, 0]))] if table.linear else []
    columns += [_lists(raw[:, int(table.linear) : width])]
    if with_state:
        counters = np.ascontiguousarray(raw[:, stride - 2 :]).view(np.uint32)
        seen = counters[:, 1].astype(np.int64) * 1000
        columns += [_lists(raw[:, width : stride - 2]), pa.array(np.ascontiguousarray(counters[:, 0]))]
        columns += [pa.array(seen).cast(pa.timestamp("ms", tz="UTC"))]
    return pa.Table.from_arrays(columns, schema=schema_of(table, with_state))


def _lists(values: F32) -> pa.ListArray:
    n, length = values.shape
    offsets = np.arange(n + 1, dtype=np.int32) * np.int32(length)
    item = pa.field("item", pa.float32(), nullable=False)
    flat = pa.array(np.ascontiguousarray(values).reshape(-1))
    return pa.ListArray.from_arrays(pa.array(offsets), flat, type=pa.list_(item))
