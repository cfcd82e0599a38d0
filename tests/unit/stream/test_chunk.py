"""Positions inside chunks: whatever the batch size, resuming at any position yields the rest, once."""

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from kuberec_runtime.stream.chunk import Chunk
from kuberec_runtime.stream.source import Position


def chunk_of(messages: list[tuple[int, int]], skip: dict[int, int] | None = None) -> Chunk:
    """Messages as (partition, samples); a count of 0 is a bad record. Sample values name partition, offset and row."""
    offsets: dict[int, int] = {}
    partition, offset, rows, before, bad, values = [], [], [], [], [], []
    for part, count in messages:
        at = offsets.get(part, 0)
        offsets[part] = at + 1
        dropped = (skip or {}).get(part, 0) if at == 0 else 0
        partition.append(part)
        offset.append(at)
        rows.append(max(count - dropped, 0))
        before.append(dropped)
        bad.append(count == 0)
        values += [f"{part}/{at}/{row}" for row in range(dropped, count)]
    as_int = [np.array(x, np.int64) for x in (partition, offset, rows, before)]
    return Chunk(pa.table({"v": pa.array(values, pa.string())}), *as_int, np.array(bad, np.bool_))


def read(messages: list[tuple[int, int]], limit: int) -> tuple[list[str], dict[int, Position], dict[int, int], int]:
    chunk = chunk_of(messages)
    seen: list[str] = []
    positions: dict[int, Position] = {}
    samples: dict[int, int] = {}
    skipped = 0
    while not chunk.empty:
        taken = chunk.take(limit)
        seen += taken.table.column("v").to_pylist()
        positions |= taken.positions
        skipped += sum(taken.skipped.values())
        for p, n in taken.samples.items():
            samples[p] = samples.get(p, 0) + n
    return seen, positions, samples, skipped


messages_strategy = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 5)), min_size=1, max_size=12)


@given(messages_strategy, st.integers(1, 7))
def test_every_sample_is_handed_out_once_and_counted(messages: list[tuple[int, int]], limit: int) -> None:
    seen, positions, samples, skipped = read(messages, limit)
    expected = [v for v in chunk_of(messages).table.column("v").to_pylist()]
    assert seen == expected
    assert sum(samples.values()) == len(expected)
    assert skipped == sum(1 for _, n in messages if n == 0)
    for partition in {p for p, _ in messages}:
        assert positions[partition] == Position(sum(1 for p, _ in messages if p == partition), 0)


@given(messages_strategy, st.integers(1, 7), st.integers(1, 6))
def test_a_resume_at_any_batch_boundary_yields_the_rest(messages: list[tuple[int, int]], limit: int, n: int) -> None:
    chunk = chunk_of(messages)
    before: list[str] = []
    positions: dict[int, Position] = {}
    for _ in range(n):
        if chunk.empty:
            break
        taken = chunk.take(limit)
        before += taken.table.column("v").to_pylist()
        positions |= taken.positions
    after = []
    for value in chunk_of(messages).table.column("v").to_pylist():
        part, offset, row = (int(x) for x in value.split("/"))
        start = positions.get(part, Position(0))
        if (offset, row) >= (start.next, start.skip):
            after.append(value)
    everything = chunk_of(messages).table.column("v").to_pylist()
    assert sorted(before + after) == sorted(everything)


def test_a_resume_inside_a_message_counts_only_what_is_new() -> None:
    chunk = chunk_of([(0, 4), (0, 2)], skip={0: 3})
    first = chunk.take(1)
    assert first.table.column("v").to_pylist() == ["0/0/3"]
    assert first.positions == {0: Position(1)}
    assert first.samples == {0: 1}
