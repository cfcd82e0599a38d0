"""A soak's schedule is a function of its seed, and every kind of misfortune comes in turn."""

from itertools import islice

import pytest

from tests.soak.schedule import FIRST_SIZE, Event, Kind, Mode, kinds_of, schedule

ROUNDS = 20


def events(seed: int, mode: Mode, count: int = ROUNDS * len(Kind)) -> list[Event]:
    return list(islice(schedule(seed, mode), count))


@pytest.mark.parametrize("mode", Mode)
def test_the_same_seed_is_the_same_schedule_and_another_is_another(mode: Mode) -> None:
    assert events(7, mode) == events(7, mode)
    assert events(7, mode) != events(8, mode)
    assert events(7, Mode.ASYNC) != events(7, Mode.SYNC)


@pytest.mark.parametrize("mode", Mode)
def test_every_kind_happens_once_before_any_happens_again(mode: Mode) -> None:
    drawn = [event.kind for event in events(3, mode)]
    kinds = kinds_of(mode)
    for at in range(0, len(drawn) - len(kinds) + 1, len(kinds)):
        assert set(drawn[at : at + len(kinds)]) == set(kinds)


def test_a_topic_grows_unless_bits_are_promised_for_it() -> None:
    assert set(Kind) - set(kinds_of(Mode.SYNC)) == {Kind.NEW_PARTITION}
    assert set(kinds_of(Mode.ASYNC)) == set(Kind)


def test_a_resize_changes_something_and_in_sync_the_workers_stay() -> None:
    for mode in Mode:
        size = FIRST_SIZE
        for event in events(5, mode):
            if event.kind is Kind.RESIZE:
                assert (event.workers, event.shards) != size
                assert event.workers >= 1 and event.shards >= 1
                assert mode is Mode.ASYNC or event.workers == FIRST_SIZE[0]
                size = event.workers, event.shards


def test_what_lasts_has_a_length_and_errors_have_a_chance() -> None:
    for event in events(11, Mode.ASYNC):
        lasts = event.kind in (
            Kind.STOP_SHARD,
            Kind.STOP_WORKER,
            Kind.STOP_DRIVER,
            Kind.STORE_ERRORS,
            Kind.STORE_LATENCY,
        )
        assert (event.seconds > 0) == lasts
        assert max(event.refused, event.lost) < 0.5, "requests are tried a few times: most must get through"
        assert not event.early or event.kind not in (Kind.KILL_SHARD, Kind.KILL_WORKER), "there is nobody yet"
