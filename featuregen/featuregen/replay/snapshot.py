"""The log of served requests: what a replica read of each, as Arrow, beside a digest of every output that it computed.

One row is one request. Values are logged as they were read at that time, never a pointer to where they came from, so a
replay needs nothing but the row and the plan: no feature store, no item table, no clock.

The layout follows the plan: a column for each input of user, context and behaviour (and `now`), a list for each input
of the items, one element a candidate. Names are those of `featuregen.schema.sample_schema`; the schema's metadata has
the format's version, the names of the outputs, and the canonical plan, so that a difference of plans can be explained.
"""

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from featuregen.arrays import to_array
from featuregen.engine import Request
from featuregen.hash64 import farm64
from featuregen.plan import Plan
from featuregen.replay.digests import PARTS
from featuregen.results import Column
from featuregen.schema import arrow_type

FORMAT_VERSION = 1
VERSION_KEY, OUTPUTS_KEY, PLAN_KEY = b"kuberec.snapshot", b"kuberec.outputs", b"kuberec.plan"

_PARTS = pa.struct(
    [pa.field("name", pa.string()), pa.field("rows", pa.int32())]
    + [pa.field(name, pa.list_(pa.from_numpy_dtype(np.dtype(kind)))) for name, kind in PARTS.items()]
)
_OWN = [
    pa.field("request_id", pa.string(), nullable=False),
    pa.field("plan_digest", pa.string(), nullable=False),
    pa.field("model_version", pa.string(), nullable=False),
    pa.field("user_key", pa.string()),
    pa.field("item_keys", pa.list_(pa.string())),
    pa.field("rows", pa.int32(), nullable=False),
    pa.field("digests", pa.list_(pa.uint64()), nullable=False),
    pa.field("outputs", pa.list_(_PARTS)),
]
"""Columns that every plan's snapshots have."""


class SnapshotError(ValueError):
    """Something that is not a log of requests, or one that this release cannot read."""


@dataclass(frozen=True)
class Snapshot:
    """One served request.

    Attributes:
        request_id: names the request, to join it with its answer and its labels.
        plan_digest: of the plan that computed it.
        model_version: version of the model that scored it.
        user_key: key of the user, None if the request had none.
        item_keys: keys of the candidates, None if it had none.
        request: what the plan read.
        digests: uint64[outputs], in the plan's order.
        outputs: the computed columns by name; None unless they were asked for, since they outweigh the rest.
    """

    request_id: str
    plan_digest: str
    model_version: str
    user_key: str | None
    item_keys: Sequence[str] | None
    request: Request
    digests: NDArray[np.uint64]
    outputs: Mapping[str, Column] | None = None


class SnapshotFormat:
    """Snapshots of one plan as Arrow, and back."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._shared = [column for column in plan.inputs if not column.of_candidate]
        self._items = [column for column in plan.inputs if column.of_candidate]
        self._widths = {output.name: output.width for output in plan.outputs}
        fields = [pa.field(column.name, arrow_type(column)) for column in self._shared]
        fields += [pa.field(column.name, pa.list_(arrow_type(column))) for column in self._items]
        about = {
            VERSION_KEY: str(FORMAT_VERSION),
            OUTPUTS_KEY: json.dumps([output.name for output in plan.outputs]),
            PLAN_KEY: json.dumps(plan.canonical, separators=(",", ":")),
        }
        self.schema = pa.schema(_OWN + fields, about)
        self.schema_without_plan = self.schema.with_metadata({k: v for k, v in about.items() if k != PLAN_KEY})

    def batch(self, snapshots: Sequence[Snapshot]) -> pa.RecordBatch:
        """Returns one row for each snapshot."""
        arrays = [
            pa.array([s.request_id for s in snapshots], pa.string()),
            pa.array([s.plan_digest for s in snapshots], pa.string()),
            pa.array([s.model_version for s in snapshots], pa.string()),
            pa.array([s.user_key for s in snapshots], pa.string()),
            pa.array([s.item_keys for s in snapshots], pa.list_(pa.string())),
            pa.array([s.request.rows for s in snapshots], pa.int32()),
            pa.array([s.digests for s in snapshots], pa.list_(pa.uint64())),
            pa.array([_parts(s.outputs) for s in snapshots], pa.list_(_PARTS)),
        ]
        for index in range(len(self._shared)):
            arrays.append(pa.concat_arrays([s.request.shared[index] for s in snapshots]))
        offsets = pa.array(np.cumsum([0, *(s.request.rows for s in snapshots)]), pa.int32())
        for index in range(len(self._items)):
            values = pa.concat_arrays([s.request.items[index] for s in snapshots])
            arrays.append(pa.ListArray.from_arrays(offsets, values))
        return pa.RecordBatch.from_arrays(arrays, schema=self.schema)

    def read(self, batch: pa.RecordBatch) -> list[Snapshot]:
        """Returns the snapshots of a batch that this plan's digest is on; call it with others left out.

        Raises:
            SnapshotError: a column is absent or has another type.
        """
        own = {field.name: _column(batch, field.name) for field in _OWN}
        try:
            batch.validate(full=True)  # kernels read raw buffers, and a log may come from anywhere
            shared = [to_array(column, _column(batch, column.name)) for column in self._shared]
            lists = [_column(batch, column.name) for column in self._items]
            items = [to_array(column, held.values) for column, held in zip(self._items, lists, strict=True)]
        except (ValueError, AttributeError) as error:
            raise SnapshotError(f"a log of this plan must have its columns: {error}") from None
        counts, outputs = own["rows"].to_pylist(), len(self.plan.outputs)
        if any(len(row) != outputs for row in own["digests"]):
            raise SnapshotError(f"a snapshot of this plan has {outputs} digests")
        starts = [np.asarray(held.offsets) for held in lists]
        for column, at in zip(self._items, starts, strict=True):
            if np.diff(at).tolist() != counts:
                raise SnapshotError(f"'{column.name}' has not one value for each candidate")
        snapshots = []
        for row, count in enumerate(counts):
            request = Request(
                count,
                tuple(array.slice(row, 1) for array in shared),
                tuple(array.slice(int(at[row]), count) for array, at in zip(items, starts, strict=True)),
            )
            held = own["outputs"][row].as_py()
            snapshots.append(
                Snapshot(
                    own["request_id"][row].as_py(),
                    own["plan_digest"][row].as_py(),
                    own["model_version"][row].as_py(),
                    own["user_key"][row].as_py(),
                    own["item_keys"][row].as_py(),
                    request,
                    np.array(own["digests"][row].as_py(), np.uint64),
                    None if held is None else {one["name"]: self._restored(one) for one in held},
                )
            )
        return snapshots

    def message(self, snapshots: Sequence[Snapshot], with_plan: bool = True) -> bytes:
        """Returns one Arrow IPC stream, compressed: a message of a topic.

        Args:
            snapshots: at least one.
            with_plan: carry the canonical plan too; a topic needs it in some of its messages only.
        """
        batch = self.batch(snapshots)
        if not with_plan:
            batch = batch.replace_schema_metadata(self.schema_without_plan.metadata)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, batch.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
            writer.write_batch(batch)
        return bytes(sink.getvalue())

    def _restored(self, held: Mapping[str, Any]) -> Column:
        parts = {name: None if held[name] is None else np.array(held[name], kind) for name, kind in PARTS.items()}
        if parts["values"] is not None:
            parts["values"] = parts["values"].reshape(-1, max(1, self._widths.get(held["name"], 1)))
        return Column(held["rows"], **{name: part for name, part in parts.items() if part is not None})


def read_message(message: bytes) -> pa.RecordBatch:
    """Returns the snapshots of a topic's message.

    Raises:
        SnapshotError: it is no Arrow stream of snapshots.
    """
    try:
        table = pa.ipc.open_stream(io.BytesIO(message)).read_all()
    except (pa.ArrowInvalid, OSError) as error:
        raise SnapshotError(f"not an Arrow IPC stream: {error}") from None
    check_schema(table.schema)
    return table.combine_chunks().to_batches()[0] if table.num_rows else pa.RecordBatch.from_pylist([], table.schema)


def check_schema(schema: pa.Schema) -> None:
    """Refuses what is not a log of requests in a version that this release reads.

    Raises:
        SnapshotError: says what it is instead.
    """
    version = (schema.metadata or {}).get(VERSION_KEY)
    if version is None:
        shown = ", ".join(schema.names[:8])
        raise SnapshotError(f"not a log of requests: its metadata has no '{VERSION_KEY.decode()}' (columns: {shown})")
    if int(version) > FORMAT_VERSION:
        raise SnapshotError(
            f"snapshot format {int(version)}, this release reads up to {FORMAT_VERSION}: use the release that wrote it"
        )


def canonical_plan(schema: pa.Schema) -> dict[str, object] | None:
    """Returns the plan that wrote these snapshots as `Plan.canonical` has it, None if the schema does not carry it."""
    found = (schema.metadata or {}).get(PLAN_KEY)
    return None if found is None else json.loads(found)


def sampled(key: str, share: float) -> bool:
    """Decides whether the requests of a key are logged: all of them or none, so that histories are complete.

    Args:
        key: the user's key; of a request without one, its own id.
        share: of all keys, 0 to 1.
    """
    # The prefix makes the choice independent of the ids that the same hash makes of the same key.
    return share >= 1.0 or farm64(b"request log:" + key.encode()) < share * 2.0**64


def _column(batch: pa.RecordBatch, name: str) -> pa.Array:
    if name not in batch.schema.names:
        raise SnapshotError(f"the log has no column '{name}'; it has: {', '.join(batch.schema.names)}")
    return batch.column(name)


def _parts(outputs: Mapping[str, Column] | None) -> list[dict[str, Any]] | None:
    if outputs is None:
        return None
    return [{"name": name, "rows": column.rows, **_flat(column)} for name, column in outputs.items()]


def _flat(column: Column) -> dict[str, Any]:
    held = {name: getattr(column, name, None) for name in PARTS}
    return {name: None if part is None else np.ravel(part) for name, part in held.items()}
