"""Row files: the rows of one table width of one shard, as an Arrow IPC file that any tool can open.

A row is opaque here: `stride` float32 words (weights, optimizer state, and counters kept as the bits of a uint32),
copied bit for bit. Removed keys are a file of their own, with the one column `key`. Checksums are verified on every
read: a wrong row would train on silently.
"""

import hashlib
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from kuberec_runtime.checkpoint.errors import CorruptFile
from kuberec_runtime.checkpoint.manifest import FileRef
from kuberec_runtime.checkpoint.store import Store
from kuberec_runtime.crashpoints import crash_here

BATCH_ROWS = 1 << 20


def write_rows(
    store: Store,
    prefix: str,
    width: int,
    keys: NDArray[np.int64],
    raw: NDArray[np.float32],
    *,
    shard: int = 0,
    buckets: tuple[int, int] = (0, 255),
) -> FileRef:
    """Writes rows durably.

    Args:
        store: where to.
        prefix: the epoch's folder, from `data_prefix`.
        width: weights per row: what tells the files of one shard apart.
        keys: shape (n,), unique.
        raw: shape (n, stride).
        shard: index of the writing shard: what tells the files of one width apart.
        buckets: inclusive range of virtual buckets of these keys.

    Returns:
        The file's name, size and checksum, for the manifest.

    Raises:
        StoreError: it could not be written.
    """
    if keys.dtype != np.int64 or raw.dtype != np.float32 or raw.ndim != 2 or len(keys) != len(raw):
        raise ValueError(
            f"rows need int64 keys and float32 rows of one length, not {keys.dtype}{keys.shape}, {raw.shape}"
        )
    stride = raw.shape[1]
    schema = pa.schema(
        [pa.field("key", pa.int64(), nullable=False), pa.field("row", pa.list_(pa.float32(), stride), nullable=False)],
        metadata={"kuberec.width": str(width), "kuberec.format": "1"},
    )
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, schema) as writer:
        for start in range(0, len(keys), BATCH_ROWS):
            part = slice(start, start + BATCH_ROWS)
            rows = pa.FixedSizeListArray.from_arrays(_array(raw[part], pa.float32()), stride)
            writer.write_batch(pa.record_batch([_array(keys[part], pa.int64()), rows], schema=schema))
    body = memoryview(sink.getvalue())
    named = _reference(f"{prefix}/rows-w{width}-s{shard}.arrow", body, width, buckets)
    reference = named.model_copy(update={"rows": len(keys), "stride": stride})
    crash_here("checkpoint.before-rows")
    store.put(reference.key, body)
    crash_here("checkpoint.rows-written")
    return reference


def write_removed(
    store: Store,
    prefix: str,
    width: int,
    keys: NDArray[np.int64],
    *,
    shard: int = 0,
    buckets: tuple[int, int] = (0, 255),
) -> FileRef:
    """Writes tombstones durably: `keys`, shape (n,), have no row any more. The rest as of `write_rows`.

    Raises:
        StoreError: they could not be written.
    """
    schema = pa.schema(
        [pa.field("key", pa.int64(), nullable=False)],
        metadata={"kuberec.width": str(width), "kuberec.format": "1"},
    )
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, schema) as writer:
        writer.write_batch(pa.record_batch([_array(keys, pa.int64())], schema=schema))
    body = memoryview(sink.getvalue())
    reference = _reference(f"{prefix}/removed-w{width}-s{shard}.arrow", body, width, buckets)
    store.put(reference.key, body)
    return reference.model_copy(update={"removed": len(keys)})


def write_counts(
    store: Store,
    prefix: str,
    width: int,
    buckets: NDArray[np.uint8],
    added: NDArray[np.int64],
    counters: NDArray[np.uint8],
    *,
    shard: int = 0,
) -> FileRef:
    """Writes the admission counters of some virtual buckets: their numbers (b,), additions (b,), counters (b, m).

    Raises:
        StoreError: they could not be written.
    """
    size = counters.shape[1]
    schema = pa.schema(
        [
            pa.field("bucket", pa.uint8(), nullable=False),
            pa.field("added", pa.int64(), nullable=False),
            pa.field("counters", pa.binary(size), nullable=False),
        ],
        metadata={"kuberec.width": str(width), "kuberec.format": "1"},
    )
    flat = pa.py_buffer(np.ascontiguousarray(counters).reshape(-1))
    blobs = pa.Array.from_buffers(pa.binary(size), len(buckets), [None, flat])
    columns = [_array(buckets, pa.uint8()), _array(added, pa.int64()), blobs]
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_batch(pa.record_batch(columns, schema=schema))
    body = memoryview(sink.getvalue())
    span = int(buckets.min()), int(buckets.max())
    reference = _reference(f"{prefix}/counts-w{width}-s{shard}.arrow", body, width, span)
    store.put(reference.key, body)
    return reference.model_copy(update={"counted": len(buckets)})


def read_counts(store: Store, reference: FileRef) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.uint8]]:
    """Reads and verifies what `write_counts` wrote: buckets (b,), additions (b,), counters (b, m)."""
    batch = _read_table(store, reference).combine_chunks()
    buckets = _numpy(batch.column("bucket").chunk(0), np.uint8)
    blobs = batch.column("counters").chunk(0)
    size = blobs.type.byte_width
    counters = np.frombuffer(blobs.buffers()[1], np.uint8)[blobs.offset * size :][: len(buckets) * size]
    return buckets, _numpy(batch.column("added").chunk(0), np.int64), counters.reshape(len(buckets), size)


def _reference(key: str, body: memoryview, width: int, buckets: tuple[int, int]) -> FileRef:
    digest = hashlib.sha256(body).hexdigest()
    return FileRef(key=key, size=body.nbytes, sha256=digest, width=width, buckets=buckets)


def read_rows(store: Store, reference: FileRef) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Reads rows and verifies them.

    Returns:
        keys, shape (n,), and raw rows, shape (n, stride), possibly read-only views of the file.

    Raises:
        ObjectMissing: the file is not there.
        CorruptFile: size, checksum or shape are not what the manifest says.
        StoreError: it could not be read.
    """
    table = _read_table(store, reference)
    keys = np.zeros(0, np.int64)
    raw = np.zeros((0, reference.stride), np.float32)
    if table.num_rows:
        keys = np.concatenate([_numpy(chunk, np.int64) for chunk in table.column("key").chunks])
        raw = np.concatenate([_numpy(chunk.flatten(), np.float32) for chunk in table.column("row").chunks])
        raw = raw.reshape(len(keys), -1)
    if raw.shape != (reference.rows, reference.stride):
        raise CorruptFile(
            reference.key,
            f"{store.uri}/{reference.key}: holds rows of shape {raw.shape}, the manifest says "
            f"({reference.rows}, {reference.stride})",
        )
    return keys, raw


def read_removed(store: Store, reference: FileRef) -> NDArray[np.int64]:
    """Reads tombstones and verifies them; returns their keys, shape (n,). Errors as of `read_rows`."""
    table = _read_table(store, reference)
    keys = np.concatenate([np.zeros(0, np.int64), *(_numpy(chunk, np.int64) for chunk in table.column("key").chunks)])
    if len(keys) != reference.removed:
        raise CorruptFile(
            reference.key,
            f"{store.uri}/{reference.key}: holds {len(keys)} removed keys, the manifest says {reference.removed}",
        )
    return keys


def _read_table(store: Store, reference: FileRef) -> pa.Table:
    body = read_verified(store, reference)
    try:
        return pa.ipc.open_file(pa.BufferReader(pa.py_buffer(body))).read_all()
    except (pa.ArrowInvalid, OSError) as error:
        raise CorruptFile(reference.key, f"{store.uri}/{reference.key}: not an Arrow file: {error}") from error


def _array(values: NDArray[Any], kind: pa.DataType) -> pa.Array:
    """The values as Arrow without a copy; `pa.array` would import pandas first, a second of CPU in every shard."""
    flat = np.ascontiguousarray(values).reshape(-1)
    return pa.Array.from_buffers(kind, len(flat), [None, pa.py_buffer(flat)])


def _numpy(array: pa.Array, dtype: type) -> NDArray[Any]:
    """The values of an array without nulls, without a copy and without pandas."""
    return np.frombuffer(array.buffers()[1], dtype)[array.offset : array.offset + len(array)]


def read_verified(store: Store, reference: FileRef) -> memoryview:
    """Reads a file's bytes and verifies size and checksum.

    Raises:
        ObjectMissing: the file is not there.
        CorruptFile: it is not what the manifest says.
        StoreError: it could not be read.
    """
    body = store.get(reference.key)
    if body.nbytes != reference.size:
        raise CorruptFile(
            reference.key,
            f"{store.uri}/{reference.key}: {body.nbytes} bytes, the manifest says {reference.size}",
        )
    found = hashlib.sha256(body).hexdigest()
    if found != reference.sha256:
        raise CorruptFile(
            reference.key,
            f"{store.uri}/{reference.key}: sha256 {found[:16]}, the manifest says {reference.sha256[:16]}",
        )
    return body
