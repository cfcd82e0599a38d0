"""Snapshots come back as they were written, from messages and from files; what is no snapshot is refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featuregen.engine import Engine
from featuregen.plan import Plan
from featuregen.replay.digests import PARTS, digest, digests
from featuregen.replay.files import SnapshotFiles, open_file, read_batches
from featuregen.replay.snapshot import (
    VERSION_KEY,
    Snapshot,
    SnapshotError,
    SnapshotFormat,
    canonical_plan,
    read_message,
    sampled,
)
from tests.unit.featuregen.record_golden import FILES, REQUESTS, golden_plan, record


@pytest.fixture(scope="module")
def plan() -> Plan:
    return golden_plan()


@pytest.fixture(scope="module")
def snapshots(plan: Plan) -> list[Snapshot]:
    return SnapshotFormat(plan).read(record(plan)[0])


def same(found: list[Snapshot], expected: list[Snapshot]) -> None:
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        assert replace(a, request=b.request, digests=b.digests, outputs=b.outputs) == b
        for mine, other in zip(
            (*a.request.shared, *a.request.items), (*b.request.shared, *b.request.items), strict=True
        ):
            assert repr(mine.to_pylist()) == repr(other.to_pylist())
        assert a.digests.tolist() == b.digests.tolist()
        assert (a.outputs is None) == (b.outputs is None)
        for name, column in (a.outputs or {}).items():
            assert digest(column) == digest((b.outputs or {})[name])


def test_a_message_holds_several_requests(plan: Plan, snapshots: list[Snapshot]) -> None:
    form = SnapshotFormat(plan)
    batch = read_message(form.message(snapshots[2:9]))
    same(form.read(batch), snapshots[2:9])
    assert canonical_plan(batch.schema) == plan.canonical
    bare = read_message(form.message(snapshots[:1], with_plan=False))
    same(form.read(bare), snapshots[:1])
    assert canonical_plan(bare.schema) is None


def test_a_slice_of_a_log_is_a_log(plan: Plan, snapshots: list[Snapshot]) -> None:
    form = SnapshotFormat(plan)
    same(form.read(form.batch(snapshots).slice(5, 3)), snapshots[5:8])


def test_what_is_read_back_computes_the_outputs_that_are_in_it(plan: Plan, snapshots: list[Snapshot]) -> None:
    engine = Engine(plan, FILES)
    for snapshot in snapshots:
        assert digests(engine.run(snapshot.request)).tolist() == snapshot.digests.tolist()
        assert snapshot.outputs is not None
        assert [digest(column) for column in snapshot.outputs.values()] == snapshot.digests.tolist()
        assert all(
            getattr(c, n) is None or isinstance(getattr(c, n), np.ndarray)
            for c in snapshot.outputs.values()
            for n in PARTS
        )


def test_files_are_written_in_turn_and_appear_whole(plan: Plan, snapshots: list[Snapshot], tmp_path: Path) -> None:
    form = SnapshotFormat(plan)
    with SnapshotFiles(tmp_path, form.schema, file_bytes=1) as files:
        files.write(form.batch(snapshots[:4]))
        files.write(form.batch(snapshots[4:6]))
    with SnapshotFiles(tmp_path, form.schema) as files:
        for snapshot in snapshots[6:]:
            files.write(form.batch([snapshot]))
        assert len(list(tmp_path.glob("*.parquet"))) == 2, "a file that is being written has another name"
    found = sorted(tmp_path.iterdir(), key=lambda path: path.stat().st_mtime_ns)
    assert {path.suffix for path in found} == {".parquet"}
    same([s for path in found for batch in read_batches(open_file(str(path))) for s in form.read(batch)], snapshots)


def test_what_is_not_a_log_is_refused_with_what_it_is(plan: Plan, snapshots: list[Snapshot], tmp_path: Path) -> None:
    with pytest.raises(SnapshotError, match="not an Arrow IPC stream"):
        read_message(b'{"user": {}}')
    sink = pa.BufferOutputStream()
    table = pa.table({"x": [1]})
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(SnapshotError, match=r"no 'kuberec\.snapshot' \(columns: x\)"):
        read_message(sink.getvalue().to_pybytes())
    pq.write_table(table.replace_schema_metadata({VERSION_KEY: "99"}), tmp_path / "new.parquet")
    with pytest.raises(SnapshotError, match="snapshot format 99, this release reads up to 1"):
        open_file(str(tmp_path / "new.parquet"))
    (tmp_path / "cut.parquet").write_bytes(REQUESTS.read_bytes()[:-100])
    with pytest.raises(SnapshotError, match="not a Parquet file"):
        open_file(str(tmp_path / "cut.parquet"))
    form = SnapshotFormat(plan)
    batch = form.batch(snapshots[:1])
    for name, field in (("item.price", "item.price"), ("digests", "digests"), ("now", "now")):
        with pytest.raises(SnapshotError, match=f"no column '{field}'"):
            form.read(batch.drop_columns([name]))


def test_lists_that_lie_about_the_candidates_are_refused(plan: Plan, snapshots: list[Snapshot]) -> None:
    form = SnapshotFormat(plan)
    batch = form.batch(snapshots)
    counts = [count + 1 for count in batch.column("rows").to_pylist()]
    index = batch.schema.get_field_index("rows")
    with pytest.raises(SnapshotError, match="not one value for each candidate"):
        form.read(batch.set_column(index, batch.schema.field(index), pa.array(counts, pa.int32())))
    few = pa.array([[1]] * batch.num_rows, pa.list_(pa.uint64()))
    index = batch.schema.get_field_index("digests")
    with pytest.raises(SnapshotError, match=f"has {len(plan.outputs)} digests"):
        form.read(batch.set_column(index, batch.schema.field(index), few))


def test_the_sample_is_of_users_and_grows_with_its_share() -> None:
    users = [f"u{n}" for n in range(4000)]
    tenth = {user for user in users if sampled(user, 0.1)}
    half = {user for user in users if sampled(user, 0.5)}
    assert tenth < half
    assert 320 < len(tenth) < 480 and 1850 < len(half) < 2150
    assert all(sampled(user, 1.0) for user in users)
    assert tenth == {user for user in users if sampled(user, 0.1)}
