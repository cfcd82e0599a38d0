import os
import socket
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kuberec_runtime.wire.errors import FrameError
from kuberec_runtime.wire.frames import LINE
from kuberec_runtime.wire.segment import Arena, Region, Segment, create, door_name, hand_over, lease, take_over

SIZE = 1 << 16


@pytest.fixture(scope="module")
def segment() -> Iterator[Segment]:
    fd, segment = create(SIZE)
    os.close(fd)
    yield segment


def test_nobody_can_shrink_or_grow_what_the_other_side_maps() -> None:
    fd, _ = create(SIZE)
    try:
        for size in (0, SIZE // 2, 2 * SIZE):
            with pytest.raises(PermissionError):
                os.ftruncate(fd, size)
    finally:
        os.close(fd)


def test_a_segment_has_no_name_on_any_file_system() -> None:
    before = set(os.listdir("/dev/shm"))
    fd, segment = create(SIZE)
    assert set(os.listdir("/dev/shm")) <= before
    assert os.readlink(f"/proc/self/fd/{fd}").startswith("/memfd:")
    os.close(fd)
    segment.bytes[:] = 1  # mapped still


@pytest.mark.parametrize(("place", "length"), [(0, SIZE + 1), (SIZE // LINE, 1), (2**32 - 1, 64), (1, SIZE)])
def test_a_place_beyond_the_segment_is_refused(segment: Segment, place: int, length: int) -> None:
    with pytest.raises(FrameError, match="reach beyond"):
        segment.part(place, length)


def test_the_last_byte_belongs_to_the_segment(segment: Segment) -> None:
    assert segment.part(SIZE // LINE - 1, LINE).size == LINE


def test_freed_memory_at_the_low_end_is_used_first(segment: Segment) -> None:
    arena = Arena(segment)
    first, second, third = (arena.take(1000) for _ in range(3))
    assert first is not None and second is not None and third is not None
    first.free()
    again = arena.take(900)
    assert again is not None and again.place == first.place == 0
    third.free()
    wide = arena.take(3000)
    assert wide is not None and wide.place == third.place


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, SIZE // 2)), max_size=60))
def test_regions_never_overlap_and_all_memory_comes_back(steps: list[tuple[bool, int]]) -> None:
    fd, segment = create(SIZE)
    os.close(fd)
    arena = Arena(segment)
    held: list[tuple[Region, int]] = []
    for number, (give, size) in enumerate(steps):
        if give and held:
            region, value = held.pop(size % len(held))
            assert (region.bytes == value).all(), "another region wrote here"
            region.free()
        elif (region := arena.take(size)) is not None:  # type: ignore[assignment]
            assert region.bytes.size == size
            region.bytes[:] = number % 251
            held.append((region, number % 251))
    for region, value in held:
        assert (region.bytes == value).all()
        region.free()
    assert arena.taken_bytes == 0
    assert arena.take(SIZE) is not None


def test_without_memory_there_is_no_region() -> None:
    class Exhausted(Segment):
        def back(self, start: int, stop: int) -> None:
            raise OSError(12, "no memory")

    fd, _ = create(SIZE)
    arena = Arena(Exhausted(fd, SIZE))
    os.close(fd)
    assert arena.take(100) is None


def test_memory_of_a_segment_that_is_gone_stays_readable() -> None:
    fd, segment = create(SIZE)
    os.close(fd)
    region = Arena(segment).take(128)
    assert region is not None
    region.bytes[:] = 7
    del segment
    assert np.array_equal(region.bytes, np.full(128, 7))


def test_an_array_on_a_region_frees_it_when_its_last_view_is_gone(segment: Segment) -> None:
    arena = Arena(segment)
    region = arena.take(6 * 4)
    assert region is not None
    array = lease(region, np.float32, 2, 3)
    array[:] = 7
    assert (segment.bytes[region.place * LINE :][:24].view(np.float32) == 7).all()
    view = array[1:, ::2]
    del array, region
    assert arena.taken_bytes == LINE and (view == 7).all()
    del view
    assert arena.taken_bytes == 0


def handed_over(fd: int, most: int) -> Segment:
    left, right = socket.socketpair(socket.AF_UNIX)
    with left, right:
        hand_over(left, fd)
        return take_over(right, most)


def test_what_one_side_writes_the_other_reads() -> None:
    fd, ours = create(SIZE)
    theirs = handed_over(fd, SIZE)
    os.close(fd)
    ours.bytes[5] = 9
    assert theirs.size == SIZE and theirs.bytes[5] == 9


def test_memory_that_could_shrink_or_is_too_large_or_a_file_is_not_mapped(tmp_path: Path) -> None:
    fd, _ = create(SIZE)
    loose = os.memfd_create("loose", os.MFD_ALLOW_SEALING)
    os.ftruncate(loose, SIZE)
    file = os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT)
    os.ftruncate(file, SIZE)
    for unreliable, most in ((fd, SIZE - 1), (loose, SIZE), (file, SIZE)):
        with pytest.raises(OSError):
            handed_over(unreliable, most)
        os.close(unreliable)


def test_the_name_of_a_door_needs_the_token() -> None:
    name = door_name(b"token", ("10.0.0.1", 5000))
    assert name[:1] == b"\0" and len(name) < 108
    assert name == door_name(b"token", ("10.0.0.1", 5000))
    assert len({name, door_name(b"other", ("10.0.0.1", 5000)), door_name(b"token", ("10.0.0.1", 5001))}) == 3
