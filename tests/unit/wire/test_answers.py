"""Answers of a shard to pulls, over a socket pair."""

import socket
import threading
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from kuberec_api.training import RowType
from kuberec_runtime.wire.answers import Answers
from kuberec_runtime.wire.channel import Channel
from kuberec_runtime.wire.errors import FrameError, WireRefused
from kuberec_runtime.wire.frames import BODY_LIMIT, Kind
from kuberec_runtime.wire.messages import Fetch, Placed, Pull
from kuberec_runtime.wire.segment import create
from kuberec_runtime.wire.session import Session, Superseded
from kuberec_runtime.wire.shardstate import ShardState
from kuberec_runtime.wire.share import PIECE, Share
from tests.unit.wire.shards import config, ones

FULL = RowType.FLOAT32


@pytest.fixture
def pair() -> Iterator[tuple[Channel, Channel]]:
    left, right = socket.socketpair()
    for sock in (left, right):
        sock.settimeout(10)
    yield Channel(left), Channel(right)
    left.close()
    right.close()


def state_with(rows: int) -> tuple[ShardState, Session]:
    """A shard on which the weights of key k are -k."""
    state = ShardState(config(widths=(2,)))
    session = state.enter(0, 0)
    state.tables[2].push(np.arange(rows), np.repeat(np.arange(rows, dtype=np.float32)[:, None], 2, 1))
    return state, session


def wanting(keys: np.ndarray, order: np.ndarray | None, dense: int = 4) -> Share:
    out = np.full((keys.size, 2), np.nan, np.float32)
    return Share(1, {2: keys}, {2: (order, out)}, np.zeros(dense, np.float32), FULL)


@pytest.mark.parametrize("in_order", [True, False])
@pytest.mark.parametrize("checked", [True, False])
def test_a_pull_of_several_pieces_arrives_whole(pair: tuple[Channel, Channel], in_order: bool, checked: bool) -> None:
    near, far = pair
    near.checked = far.checked = checked
    state, session = state_with(600_000)
    order = None if in_order else np.random.default_rng(0).permutation(600_000).astype(np.int32)
    share = wanting(np.arange(600_000)[::-1].copy(), order)
    with ThreadPoolExecutor(1) as shard:
        answering = shard.submit(Answers(state, near, session, FULL).pull, Pull(1, share.keys))
        assert share.receive(far, far.header(BODY_LIMIT), np.empty(PIECE, np.uint8))
        answering.result(10)
    out = share.places[2][1]
    assert np.array_equal(-(out if order is None else out[order])[:, 1], share.keys[2])


def test_an_answer_takes_the_memory_of_one_piece(pair: tuple[Channel, Channel]) -> None:
    """Whatever is asked for, and also while the worker does not read."""
    near, far = pair
    state, session = state_with(1_000_000)
    answers, pull = Answers(state, near, session, FULL), Pull(1, {2: np.arange(1_000_000)})
    tracemalloc.start()
    with ThreadPoolExecutor(1) as shard:
        answering = shard.submit(answers.pull, pull)
        header = far.header(BODY_LIMIT)
        assert header.length > 8_000_000 and not answering.done()
        far.hang_up()
        with pytest.raises(OSError):
            answering.result(10)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6_000_000


def test_an_answer_that_fails_midway_is_filled_up_and_void(pair: tuple[Channel, Channel]) -> None:
    near, far = pair
    state, session = state_with(10)
    keys = np.arange(600_000)
    keys[-1] = -1
    share = wanting(keys, None)
    with ThreadPoolExecutor(1) as shard:
        answering = shard.submit(Answers(state, near, session, FULL).pull, Pull(1, share.keys))
        assert not share.receive(far, far.header(BODY_LIMIT), np.empty(PIECE, np.uint8))
        with pytest.raises(FrameError, match="key -1"):
            answering.result(10)
        near.send(Kind.ACK, [b"12345678"])
    assert far.receive(100).kind is Kind.ACK  # the stream goes on where a frame begins


def test_the_answer_to_an_earlier_pull_is_passed_over(pair: tuple[Channel, Channel]) -> None:
    near, far = pair
    state, session = state_with(100)
    answers, share = Answers(state, near, session, FULL), wanting(np.arange(100), None)
    answers.pull(Pull(0, {2: np.arange(50)}))
    answers.pull(Pull(1, share.keys))
    scratch = np.empty(PIECE, np.uint8)
    assert not share.receive(far, far.header(BODY_LIMIT), scratch)
    assert share.receive(far, far.header(BODY_LIMIT), scratch)


def test_rows_that_nobody_asked_for_are_refused(pair: tuple[Channel, Channel]) -> None:
    near, far = pair
    state, session = state_with(100)
    Answers(state, near, session, FULL).pull(Pull(1, {2: np.arange(99)}))
    with pytest.raises(FrameError, match="other rows than were asked for"):
        wanting(np.arange(100), None).receive(far, far.header(BODY_LIMIT), np.empty(PIECE, np.uint8))


def test_a_superseded_session_places_nothing_more(pair: tuple[Channel, Channel]) -> None:
    """A new connection of a worker comes only when nobody writes into its memory for the old one."""
    near, _ = pair
    state, session = state_with(100)
    _, near.segment = create(1 << 16)
    answers, fetch = Answers(state, near, session, FULL), Fetch(1, 0, 0, (Placed(2, 10, 8, 0, 1024, 10),))
    near.segment.span(8, 80).view(np.int64)[:] = np.arange(10)
    entered = threading.Event()

    def enter() -> None:
        state.enter(0, 1)
        entered.set()

    with session.guard():
        threading.Thread(target=enter, daemon=True).start()
        assert not entered.wait(0.05)
    assert entered.wait(10)
    with pytest.raises(Superseded):
        answers.fetch(fetch)
    assert not near.segment.bytes[1024:2048].any()


@pytest.mark.parametrize(
    ("placed", "reason"),
    [
        (Placed(2, 10, 1 << 20, 0, 1024, 10), "reach beyond"),
        (Placed(2, 10, 8, 0, 65_528, 10), "reach beyond"),
        (Placed(2, 10, 8, 65_532, 1024, 10), "reach beyond"),
        (Placed(2, 10, 8, 512, 1024, 5), "beyond the 5 rows"),
        (Placed(2, 10, 8, 0, 1024, 11), "10 rows in order at 11 positions"),
        (Placed(3, 10, 8, 0, 1024, 10), "no rows of width 3"),
    ],
)
def test_a_fetch_that_leads_astray_is_refused(pair: tuple[Channel, Channel], placed: Placed, reason: str) -> None:
    near, _ = pair
    state, session = state_with(100)
    _, near.segment = create(1 << 16)
    near.segment.span(8, 80).view(np.int64)[:] = np.arange(10)
    near.segment.span(512, 40).view(np.int32)[:] = np.arange(10)
    with pytest.raises(FrameError, match=reason):
        Answers(state, near, session, FULL).fetch(Fetch(1, 0, 0, (placed,)))


def test_a_broken_shard_places_nothing(pair: tuple[Channel, Channel]) -> None:
    near, _ = pair
    state, session = state_with(10)
    _, near.segment = create(1 << 16)
    state._broken = "broken"
    with pytest.raises(WireRefused):
        Answers(state, near, session, FULL).fetch(Fetch(1, 0, 0, (Placed(2, 10, 8, 0, 1024, 10),)))
    with pytest.raises(WireRefused):
        state.push(session, ones(1, [1]))
