"""Files become units under numbers that never change, and a cut at any row gives exactly the rest."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pcsv
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kuberec_api.source import FilesSource as FilesSpec
from kuberec_runtime.stream import units
from kuberec_runtime.stream.files import FileSource
from kuberec_runtime.stream.listing import Found, Listing, blocks, bundles, matching, starts_of
from kuberec_runtime.stream.pieces import Piece, PieceBuffer
from kuberec_runtime.stream.source import FileChangedError, NoFilesError, PartitionStart, Position, Unit, shares
from kuberec_runtime.stream.units import list_units

SCHEMA = pa.schema([("user.age", pa.int64()), ("now", pa.int64()), ("label.click", pa.float32())])
ROWS = 23


def samples(first: int = 0, rows: int = ROWS) -> pa.Table:
    now = np.arange(first, first + rows)
    return pa.table({"user.age": now * 2, "now": now, "label.click": (now % 2).astype(np.float32)})


def names_of(uri: str, *paths: str) -> list[str]:
    return [f.uri for f in matching([Found(f"s3://b/{p}", 1, "v") for p in paths], uri)]


def test_a_pattern_means_the_files_that_it_says_in_the_order_of_their_names() -> None:
    paths = ("d/1/b.parquet", "d/1/a.parquet", "d/2/x/c.parquet", "d/1/a.csv")
    assert names_of("s3://b/d/*/*.parquet", *paths) == ["s3://b/d/1/a.parquet", "s3://b/d/1/b.parquet"]
    assert len(names_of("s3://b/d/**/*.parquet", *paths)) == 3
    assert names_of("s3://b/d/[!1]/x/?.parquet", *paths) == ["s3://b/d/2/x/c.parquet"]


def test_a_folder_means_all_that_is_not_hidden() -> None:
    paths = ("d/a.parquet", "d/_SUCCESS", "d/.crc/a", "d/2/b.parquet")
    assert names_of("s3://b/d", *paths) == ["s3://b/d/2/b.parquet", "s3://b/d/a.parquet"]


@given(st.lists(st.integers(1, 9), max_size=12), st.integers(1, 20))
def test_bundles_are_consecutive_and_large_enough_but_for_the_last(sizes: list[int], least: int) -> None:
    made = bundles(sizes, sizes, least)
    assert [i for first, count, _, _ in made for i in range(first, first + count)] == list(range(len(sizes)))
    assert all(size >= least for _, _, _, size in made[:-1])
    assert sum(rows for _, _, rows, _ in made) == sum(sizes)


@given(st.integers(0, 50), st.integers(1, 20))
def test_blocks_cover_every_byte_once(size: int, block: int) -> None:
    assert [b for first, count in blocks(size, block) for b in range(first, first + count)] == list(range(size))


def test_a_further_listing_never_renumbers_what_is_there() -> None:
    old, new = Unit("s3://b/z", 1, "v"), Unit("s3://b/a", 1, "v")
    known = [PartitionStart(0, Position(0, 7), 1)]
    starts = starts_of([Listing("s3://b/z", (old,)), Listing("s3://b/*", (new,))], known)
    assert [(s.partition, s.unit, s.position) for s in starts] == [(0, old, (0, 7)), (1, new, (0, 0))]
    assert Listing.from_json(Listing("x", (old, new)).to_json()) == Listing("x", (old, new))


def test_what_is_left_is_dealt_evenly_and_what_is_done_to_nobody() -> None:
    starts = [PartitionStart(p, Position(1 if p < 3 else 0), 1) for p in range(8)]
    assert [[s.partition for s in share] for share in shares(starts, 2)] == [[3, 5, 7], [4, 6]]


pieces_strategy = st.lists(st.lists(st.booleans(), max_size=6), min_size=1, max_size=5)


def buffer_of(pieces: list[list[bool]], skip: int) -> PieceBuffer:
    """One unit in pieces; True is a row that fits, False a bad one."""
    buffer, first = PieceBuffer(), 0
    for number, rows in enumerate(pieces):
        at = np.flatnonzero(rows)
        table = pa.table({"now": pa.array(first + at)})
        bad = np.flatnonzero(~np.array(rows, bool))
        piece = Piece(4, first, len(rows), table, at, bad, last=number == len(pieces) - 1)
        buffer.add(piece.after(skip))
        first += len(rows)
    return buffer


@given(pieces_strategy, st.integers(1, 7), st.integers(0, 8))
def test_a_resume_behind_any_batch_gives_the_rest_and_counts_bad_rows_once(
    pieces: list[list[bool]], limit: int, cut: int
) -> None:
    rows = [row for piece in pieces for row in piece]
    buffer, seen, skipped, position = buffer_of(pieces, 0), [], 0, Position(0)
    for _ in range(cut):
        if (batch := buffer.take(limit)) is not None:
            seen += batch.table.column("now").to_pylist()
            skipped += batch.skipped.get(4, 0)
            position = batch.positions[4]
            assert batch.samples.get(4, 0) == batch.table.num_rows <= limit
    if position.next == 0:
        rest = buffer_of(pieces, position.skip)
        while (batch := rest.take(limit)) is not None:
            seen += batch.table.column("now").to_pylist()
            skipped += batch.skipped.get(4, 0)
            position = batch.positions[4]
    assert seen == [i for i, good in enumerate(rows) if good]
    assert skipped == rows.count(False)
    assert position == Position(1)


def write(folder: Path, kind: str, table: pa.Table, name: str = "a") -> None:
    path = folder / f"{name}.{kind}"
    if kind == "parquet":
        pq.write_table(table, path, row_group_size=5)
    elif kind == "csv":
        pcsv.write_csv(table, path)
    else:
        with (pa.ipc.new_file if kind == "arrow" else pa.ipc.new_stream)(path, table.schema) as writer:
            writer.write_table(table, max_chunksize=5)


def spec_of(folder: Path, kind: str, **more: Any) -> FilesSpec:
    format = {"parquet": "Parquet", "csv": "Csv"}.get(kind, "Arrow")
    return FilesSpec(uri=f"file://{folder}/*.{kind}", format=format, **more)


def read(spec: FilesSpec, starts: list[PartitionStart], batch: int = 4) -> tuple[list[int], dict[int, Position]]:
    source = FileSource(spec, SCHEMA, starts, batch, in_order=True)
    seen: list[int] = []
    positions = {s.partition: s.position for s in starts}
    while not source.finished:
        if (got := source.poll(0.2)) is not None:
            seen += got.table.column("now").to_pylist()
            positions |= got.positions
    assert source.lag() == 0
    source.close()
    return seen, positions


@pytest.fixture(params=["parquet", "arrow", "stream", "csv"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(units, "UNIT_BYTES", 1)
    monkeypatch.setattr(units, "CSV_BLOCK_BYTES", 40)
    return str(request.param)


def test_units_of_every_format_hold_every_row_once(kind: str, tmp_path: Path) -> None:
    write(tmp_path, kind, samples())
    write(tmp_path, kind, samples(100), "b")
    starts = starts_of([list_units(spec_of(tmp_path, kind))], [])
    assert len(starts) == 2 if kind == "stream" else len(starts) >= 10
    seen, positions = read(spec_of(tmp_path, kind), starts)
    assert seen == [*range(ROWS), *range(100, 100 + ROWS)]
    assert set(positions.values()) == {Position(1)}


def test_a_cut_at_every_row_gives_exactly_the_rest(kind: str, tmp_path: Path) -> None:
    write(tmp_path, kind, samples())
    spec = spec_of(tmp_path, kind)
    starts = starts_of([list_units(spec)], [])
    for cut in range(1, ROWS + 1):
        source = FileSource(spec, SCHEMA, starts, cut, in_order=True)
        batch = None
        while batch is None:
            batch = source.poll(0.2)
        source.close()
        known = [PartitionStart(p, position, 1) for p, position in batch.positions.items()]
        rest, _ = read(spec, starts_of([list_units(spec)], known))
        assert batch.table.column("now").to_pylist() + rest == list(range(ROWS)), f"cut behind row {cut}"


def test_nested_columns_and_times_become_flat_ones(tmp_path: Path) -> None:
    table = pa.table(
        {
            "user": [{"age": 3, "unread": 1}, None],
            "now": pa.array([1_000_000, 2_000_000], pa.timestamp("us")),
            "label": [{"click": True}, {"click": False}],
        }
    )
    write(tmp_path, "parquet", table)
    spec = spec_of(tmp_path, "parquet")
    source = FileSource(spec, SCHEMA, starts_of([list_units(spec)], []), 9, in_order=True)
    batch = None
    while batch is None:
        batch = source.poll(0.2)
    assert batch.table.to_pylist() == [
        {"user.age": 3, "now": 1000, "label.click": 1.0},
        {"user.age": None, "now": 2000, "label.click": 0.0},
    ]


def test_a_file_that_is_gone_or_another_one_is_named(tmp_path: Path) -> None:
    write(tmp_path, "parquet", samples())
    spec = spec_of(tmp_path, "parquet")
    starts = starts_of([list_units(spec)], [])
    write(tmp_path, "parquet", samples(rows=3))
    with pytest.raises(FileChangedError, match=r"a\.parquet has changed"):
        read(spec, starts)
    (tmp_path / "a.parquet").unlink()
    with pytest.raises(FileChangedError, match=r"a\.parquet is gone"):
        read(spec, starts)


def test_a_pattern_that_nothing_matches_is_named(tmp_path: Path) -> None:
    with pytest.raises(NoFilesError, match="no file matches"):
        list_units(spec_of(tmp_path, "parquet"))
