"""The words of `--to`, and the offsets that they come to."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kuberec_runtime.checkpoint import PartitionOffset
from kuberec_runtime.offsets.target import Edge, Target, TargetError, parse_target, resolve
from kuberec_runtime.stream.ends import Ends

ENDS = {0: Ends(100, 900), 1: Ends(0, 50), 2: Ends(5, 5)}


def offset(partition: int, next_: int, skip: int = 0, end: int | None = None) -> PartitionOffset:
    return PartitionOffset(topic="feed", partition=partition, start=3, next=next_, skip=skip, end=end)


KNOWN = (offset(0, 400, skip=7), offset(1, 50), offset(2, 5))


def positions(to: str, known: tuple[PartitionOffset, ...] = KNOWN, at: dict[int, int] | None = None) -> list[object]:
    return [(o.partition, o.next, o.skip) for o in resolve(parse_target(to), known, ENDS, at or {})]


def test_the_forms_of_a_target() -> None:
    assert parse_target("earliest") == Target(edge=Edge.EARLIEST)
    assert parse_target("timestamp:1790000000000") == Target(at_ms=1790000000000)
    assert parse_target("offsets:0=123, 2=latest") == Target(places={0: 123, 2: Edge.LATEST})


@pytest.mark.parametrize(
    "text",
    ["", "now", "latest:5", "timestamp:", "timestamp:yesterday", "timestamp:-1", "offsets:", "offsets:0", "offsets:0=",
     "offsets:0=-3", "offsets:a=3", "offsets:0=1,0=2", "offsets:0=²", f"timestamp:{2**63}"],
)  # fmt: skip
def test_what_is_no_target_is_refused(text: str) -> None:
    with pytest.raises(TargetError, match="--to"):
        parse_target(text)


@given(st.text(max_size=30))
def test_no_text_ends_in_another_error(text: str) -> None:
    try:
        parse_target(text)
    except TargetError:
        pass


def test_edges_and_times_move_every_partition_to_the_first_sample_of_a_message() -> None:
    assert positions("earliest") == [(0, 100, 0), (1, 0, 0), (2, 5, 0)]
    assert positions("latest") == [(0, 900, 0), (1, 50, 0), (2, 5, 0)]
    assert positions("timestamp:5", at={0: 321, 1: 50, 2: 5}) == [(0, 321, 0), (1, 50, 0), (2, 5, 0)]


def test_offsets_move_what_they_name_and_leave_the_rest() -> None:
    assert positions("offsets:1=10") == [(0, 400, 7), (1, 10, 0), (2, 5, 0)]
    assert positions("offsets:0=400") == [(0, 400, 0), (1, 50, 0), (2, 5, 0)]
    assert positions("offsets:0=earliest,1=latest") == [(0, 100, 0), (1, 50, 0), (2, 5, 0)]


def test_all_else_of_a_partition_stays() -> None:
    moved = resolve(parse_target("earliest"), KNOWN, ENDS, {})
    assert [(o.topic, o.start, o.end) for o in moved] == [(o.topic, o.start, o.end) for o in KNOWN]


@pytest.mark.parametrize(
    ("to", "says"),
    [
        ("offsets:0=99", "partition 0 has no offset 99; the topic holds 100 to 899, the end is 900"),
        ("offsets:0=901", "has no offset 901"),
        ("offsets:2=4", "holds no record, the end is 5"),
        ("offsets:7=1", "has no partition 7, it has 0, 1, 2"),
    ],
)
def test_a_place_that_the_topic_does_not_have_is_refused(to: str, says: str) -> None:
    with pytest.raises(TargetError, match=says):
        resolve(parse_target(to), KNOWN, ENDS, {})


def test_a_partition_that_the_topic_lost_is_refused() -> None:
    with pytest.raises(TargetError, match="no partition 3 any more"):
        resolve(parse_target("earliest"), (*KNOWN, offset(3, 1)), ENDS, {})


def test_a_new_partition_is_taken_along_unless_only_others_are_named() -> None:
    known = KNOWN[:2]
    assert positions("latest", known)[2] == (2, 5, 0)
    assert positions("offsets:2=5", known)[2] == (2, 5, 0)
    assert len(positions("offsets:1=5", known)) == 2


def test_a_bounded_partition_goes_no_further_than_its_end() -> None:
    known = (offset(0, 400, end=600), offset(1, 50))
    assert positions("latest", known)[0] == (0, 600, 0)
    assert positions("offsets:0=600", known)[0] == (0, 600, 0)
    with pytest.raises(TargetError, match="ends at 600 for this training"):
        positions("offsets:0=601", known)
