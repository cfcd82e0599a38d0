"""Row cache and circuit breaker, with a clock that the test turns."""

import numpy as np

from kuberec_runtime.serve.breaker import Breaker
from kuberec_runtime.serve.rowcache import RowCache


def keys(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


def rows_of(wanted: np.ndarray, plus: float = 0.0) -> np.ndarray:
    return (wanted[:, None] + np.array([0.25, 0.5]) + plus).astype(np.float32)


def admit(cache: RowCache, wanted: np.ndarray, plus: float = 0.0, found: bool = True) -> None:
    cache.admit(wanted, rows_of(wanted, plus) * found, np.full(wanted.size, found), cache.generation)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_row_is_read_back_and_an_unknown_one_is_a_miss() -> None:
    cache = RowCache(2, 64)
    admit(cache, keys(3, 9))
    rows, misses, absent = cache.read(keys(9, 4, 3))
    assert misses.tolist() == [1] and absent == 0
    assert rows.tolist() == [[9.25, 9.5], [0, 0], [3.25, 3.5]]


def test_absence_is_remembered_until_a_refresh_brings_the_row() -> None:
    cache = RowCache(2, 64)
    admit(cache, keys(3), found=False)
    assert cache.read(keys(3))[2] == 1
    cache.begin_refresh()
    cache.refresh(keys(3, 5), rows_of(keys(3, 5)), np.array([True, True]))
    rows, misses, absent = cache.read(keys(3, 5))
    assert rows[0].tolist() == [3.25, 3.5] and absent == 0
    assert misses.tolist() == [1], "a refresh admits nothing"


def test_a_row_read_before_a_refresh_is_not_admitted_after_it() -> None:
    cache = RowCache(2, 64)
    generation = cache.generation
    cache.begin_refresh()
    cache.admit(keys(3), rows_of(keys(3)), np.array([True]), generation)
    assert cache.read(keys(3))[1].size == 1


def test_a_burst_of_cold_ids_leaves_the_hot_ones() -> None:
    cache = RowCache(2, 512)
    hot = np.arange(200, dtype=np.int64)
    admit(cache, hot)
    for start in range(1000, 21000, 500):
        cache.read(hot)
        admit(cache, np.arange(start, start + 500, dtype=np.int64))
    assert cache.read(hot)[1].size < 20
    assert len(cache) <= 512


def test_what_was_hot_once_gives_way() -> None:
    cache = RowCache(2, 512)
    old, new = np.arange(400, dtype=np.int64), np.arange(1000, 1400, dtype=np.int64)
    admit(cache, old)
    for _ in range(20):
        cache.read(old)
    for _ in range(200):
        missed = new[cache.read(new)[1]]
        if missed.size:
            admit(cache, missed)
    assert cache.read(new)[1].size < 40


def test_cached_names_what_a_publication_must_refresh() -> None:
    cache = RowCache(2, 64)
    admit(cache, keys(3, 9))
    assert sorted(cache.cached().tolist()) == [3, 9]
    assert cache.cached(keys(1, 9)).tolist() == [9]


def test_the_breaker_opens_probes_and_closes() -> None:
    clock = Clock()
    breaker = Breaker(failures=2, pause_s=1.0, longest_s=3.0, clock=clock)
    breaker.failed()
    assert breaker.allows()
    breaker.failed()
    assert breaker.open and not breaker.allows()
    clock.now = 1.5
    assert breaker.allows() and not breaker.allows(), "one probe at a time"
    breaker.failed()
    clock.now = 3.0
    assert not breaker.allows(), "a failed probe doubles the pause"
    clock.now = 3.6
    assert breaker.allows()
    breaker.succeeded()
    assert breaker.allows() and breaker.allows() and not breaker.open
