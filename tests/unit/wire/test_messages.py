import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kuberec_api.training import RowType
from kuberec_runtime.wire import messages
from kuberec_runtime.wire.errors import FrameError
from kuberec_runtime.wire.frames import BODY_LIMIT, HEADER, MAGIC, VERSION, Kind, pack_header, parse_header
from kuberec_runtime.wire.messages import Fetch, Hello, Placed

FULL = RowType.FLOAT32
PARSERS = [
    messages.parse_hello,
    messages.parse_pull,
    messages.parse_fetch,
    messages.parse_push,
    messages.parse_marked,
    lambda body: messages.parse_number(body, "ACK"),
]


def body(parts: list) -> np.ndarray:  # type: ignore[type-arg]
    return np.frombuffer(b"".join(bytes(part) for part in parts), np.uint8)


def example_push() -> np.ndarray:
    keys = {2: np.array([1, 5, 9]), 7: np.array([3])}
    grads = {2: np.arange(6, dtype=np.float32).reshape(3, 2), 7: np.ones((1, 7), np.float32)}
    raw = np.empty(messages.push_size({2: 3, 7: 1}, 2, 5, FULL), np.uint8)
    dense = np.arange(5, dtype=np.float32)
    for width, place in messages.write_push(raw, 3, 99, keys, {0: 5, 4: 6}, dense, FULL).items():
        place[:] = grads[width]
    return raw


def test_a_push_is_read_as_it_was_written() -> None:
    push = messages.parse_push(example_push())
    assert (push.sequence, push.watermark, push.applied) == (3, 99, {0: 5, 4: 6})
    assert {w: k.tolist() for w, k in push.keys.items()} == {2: [1, 5, 9], 7: [3]}
    assert push.grads[2].tolist() == [[0, 1], [2, 3], [4, 5]] and push.grads[7].shape == (1, 7)
    assert push.dense.tolist() == [0, 1, 2, 3, 4]


def test_other_frames_are_read_as_they_were_written() -> None:
    hello = Hello(1, 3, 2, 2**40, "f" * 64, b"secret", RowType.FLOAT16, share=True)
    assert messages.parse_hello(body(messages.pack_hello(hello))) == hello
    pull = messages.parse_pull(body(messages.pack_pull(8, {3: np.array([1, 2]), 5: np.empty(0, np.int64)})))
    assert pull.request == 8 and pull.keys[3].tolist() == [1, 2] and pull.keys[5].size == 0
    fetch = Fetch(9, 64, 5, (Placed(3, 2, 128, 192, 256, 7), Placed(5, 0, 8, 0, 12, 0)))
    assert messages.parse_fetch(body([messages.pack_fetch(fetch)])) == fetch
    assert messages.parse_number(body(messages.pack_number(-7)), "MARK") == -7
    assert messages.parse_marked(body(messages.pack_marked(4, True))) == (4, True)
    assert messages.parse_reason(body(messages.pack_reason("why"))) == "why"


@pytest.mark.parametrize("cut", [1, 8, 20, 37, 61, 100])
def test_a_body_cut_short_or_too_long_is_refused(cut: int) -> None:
    whole = example_push()
    with pytest.raises(FrameError):
        messages.parse_push(whole[:-cut])
    with pytest.raises(FrameError, match="too many"):
        messages.parse_push(np.append(whole, np.zeros(cut, np.uint8)))


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400), st.sampled_from(range(len(PARSERS))))
def test_garbage_is_refused_with_a_frame_error_and_nothing_else(raw: bytes, which: int) -> None:
    try:
        PARSERS[which](np.frombuffer(raw, np.uint8))
    except FrameError:
        pass


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 250), st.integers(0, 255)), min_size=1, max_size=6))
def test_a_push_with_flipped_bytes_is_parsed_or_refused(flips: list[tuple[int, int]]) -> None:
    raw = example_push().copy()
    for at, value in flips:
        raw[at % raw.size] = value
    try:
        push = messages.parse_push(raw)
    except FrameError:
        return
    assert sum(grads.nbytes for grads in push.grads.values()) <= raw.size


@settings(max_examples=300, deadline=None)
@given(st.binary(min_size=16, max_size=16))
def test_a_header_of_garbage_is_refused(raw: bytes) -> None:
    with pytest.raises(FrameError):
        parse_header(raw, BODY_LIMIT)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"GET / HTTP/1.1\r\n", "not a KubeRec frame"),
        (HEADER.pack(MAGIC, VERSION + 1, 2, 0, 5, 0), "run the same release"),
        (HEADER.pack(MAGIC, VERSION, 2, 4, 5, 0), "flags"),
        (HEADER.pack(MAGIC, VERSION, 2, 0, 5, 1), "flags"),
        (HEADER.pack(MAGIC, VERSION, 99, 0, 5, 0), "unknown frame kind 99"),
        (HEADER.pack(MAGIC, VERSION, 2, 0, 2**31, 0), "exceeds the limit"),
    ],
)
def test_a_header_says_why_it_is_refused(raw: bytes, reason: str) -> None:
    with pytest.raises(FrameError, match=reason):
        parse_header(raw, 1000)


def test_a_header_is_sixteen_bytes() -> None:
    raw = pack_header(Kind.PUSH, 77)
    assert len(raw) == 16 and raw[:4] == b"KRW2"
    assert parse_header(raw, 100).length == 77


def test_counts_of_more_partitions_than_there_can_be_are_refused() -> None:
    raw = np.empty(messages.push_size({}, 70_000, 0, FULL), np.uint8)
    messages.write_push(raw, 3, 99, {}, dict.fromkeys(range(70_000), 1), np.empty(0, np.float32), FULL)
    with pytest.raises(FrameError, match="70000 partitions"):
        messages.parse_push(raw)


@pytest.mark.parametrize("changed", [{"keys_at": 12}, {"order_at": 6}, {"rows_at": 2}])
def test_a_fetch_names_places_where_numbers_can_lie(changed: dict[str, int]) -> None:
    block = Placed(**({"width": 3, "keys": 2, "keys_at": 8, "order_at": 4, "rows_at": 4, "rows": 2} | changed))
    with pytest.raises(FrameError, match="no numbers can lie"):
        messages.parse_fetch(body([messages.pack_fetch(Fetch(1, 0, 0, (block,)))]))


def test_counts_that_would_overflow_are_refused_before_anything_is_allocated() -> None:
    head = struct.pack("<qqIIQ", 1, 0, 1, 0, 2**62) + struct.pack("<QQ", 16, 2**61)
    with pytest.raises(FrameError, match="more than its body holds"):
        messages.parse_push(np.frombuffer(head, np.uint8))
