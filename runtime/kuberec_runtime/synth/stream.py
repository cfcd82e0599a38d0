"""Impressions in event-time order: who saw what when, the behaviour logged before, and whether they clicked.

The click's probability is a planted function of the features of `examples/feed.yaml`, so the best AUC any model can
reach on a set of samples is known. A sample depends on the world, the start, the pace and its position, never on how
many are asked for at once nor on the wall clock: one sequential kernel carries all state.
"""

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from kuberec_runtime.synth.world import UNKNOWN, World

EFFECTS = ("item", "brand", "age_category", "preference", "clicks_1h", "clicks_24h", "price", "hour")
BIAS = -2.1
MAX_EVENTS = 50
MAX_AGE_MS = 24 * 3_600_000
HOUR_MS = 3_600_000
SESSIONS = 200
ACTIONS = ("click", "buy")
CLICK, BUY = 0, 1
DEFAULT_START_MS = 1_767_225_600_000  # 2026-01-01T00:00:00Z
DEFAULT_GAP_MS = 576.0  # 300,000 samples span two days

_SESSION_LENGTH = 12.0
_SAME_CATEGORY_SHARE = 0.30
_PREFERRED_SHARE = 0.25
_BUY_SHARE = 0.15


@dataclass(frozen=True, eq=False)
class Samples:
    """Consecutive samples, by index into the world.

    Attributes:
        first: position of the first sample in the stream.
        user, item, hour: int64[n].
        now: int64[n], milliseconds since the epoch, ascending.
        click: int8[n], the label.
        buy: int8[n], whether the click became a purchase as well: one more event of the behaviour.
        effects: float32[n, len(EFFECTS)], addends of the log-odds.
        offsets: int64[n + 1]: events of sample k are offsets[k]..offsets[k + 1], oldest first.
        event_item, event_action, event_ts: int64[events].
    """

    first: int
    user: NDArray[np.int64]
    item: NDArray[np.int64]
    hour: NDArray[np.int64]
    now: NDArray[np.int64]
    click: NDArray[np.int8]
    buy: NDArray[np.int8]
    effects: NDArray[np.float32]
    offsets: NDArray[np.int64]
    event_item: NDArray[np.int64]
    event_action: NDArray[np.int64]
    event_ts: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.user)

    @property
    def logit(self) -> NDArray[np.float32]:
        """True log-odds of a click, float32[n]."""
        return self.effects.sum(axis=1, dtype=np.float32) + np.float32(BIAS)


class Stream:
    """The endless stream of a world.

    Args:
        world: entities and effects.
        start_ms: event time of the first sample.
        gap_ms: mean event time between samples (exponential). The wall-clock aligned live stream is `1000 / rate`.
    """

    def __init__(self, world: World, start_ms: int = DEFAULT_START_MS, gap_ms: float = DEFAULT_GAP_MS) -> None:
        self.world = world
        self.position = 0
        self._gap = gap_ms
        self._clock = np.array([start_ms], np.float64)
        self._random = np.array([(world.seed * 0x9E3779B97F4A7C15 + 0x1234567) % 2**64], np.uint64)
        users = world.size.users
        self._sessions = np.full(SESSIONS, UNKNOWN, np.int64)
        self._events = np.zeros((users, MAX_EVENTS, 3), np.int64)
        self._ends = np.zeros(users, np.int64)  # events ever logged: the ring's next place modulo MAX_EVENTS

    @property
    def clock_ms(self) -> int:
        """Event time reached."""
        return int(self._clock[0])

    def set_clock(self, now_ms: int, gap_ms: float) -> None:
        """Goes on from `now_ms` (never backwards) with another pace: a backfill becomes a live stream."""
        self._clock[0] = max(self._clock[0], float(now_ms))
        self._gap = gap_ms

    def skip(self, samples: int) -> None:
        """Advances without keeping the samples: how a resumed stream gets to its position."""
        while samples > 0:
            samples -= len(self.batch(min(samples, 65536)))

    def batch(self, count: int) -> Samples:
        """Returns the next `count` samples."""
        world = self.world
        columns = np.zeros((5, count), np.int64)
        click, buy = np.zeros((2, count), np.int8)
        effects = np.zeros((count, len(EFFECTS)), np.float32)
        offsets = np.zeros(count + 1, np.int64)
        events = np.empty((count * MAX_EVENTS, 3), np.int64)
        _advance(
            self._random,
            self._clock,
            self._gap,
            self._sessions,
            self._events,
            self._ends,
            world.age,
            world.preferred,
            world.preference,
            world.category,
            world.brand,
            world.price,
            world.of_category,
            world.category_start,
            world.item_effect,
            world.brand_effect,
            world.age_category_effect,
            world.hour_effect,
            columns,
            click,
            buy,
            effects,
            offsets,
            events,
        )
        events = events[: offsets[-1]].copy()
        first = self.position
        self.position += count
        return Samples(
            first, columns[0], columns[1], columns[2], columns[3], click, buy, effects, offsets,
            np.ascontiguousarray(events[:, 0]), np.ascontiguousarray(events[:, 1]), np.ascontiguousarray(events[:, 2]),
        )  # fmt: skip


@njit(nogil=True, cache=True)
def _uniform(state):  # type: ignore[no-untyped-def]
    """The next uniform float64 in [0, 1): splitmix64 (Steele, Lea, Flood 2014)."""
    state[0] += np.uint64(0x9E3779B97F4A7C15)
    z = state[0]
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return np.float64(z >> np.uint64(11)) * (1.0 / 9007199254740992.0)


@njit(nogil=True, cache=True)
def _below(state, bound):  # type: ignore[no-untyped-def]
    return min(np.int64(_uniform(state) * bound), bound - 1)


@njit(nogil=True, cache=True)
def _advance(  # type: ignore[no-untyped-def]
    state, clock, gap, sessions, ring, ends, age, preferred, preference, category, brand, price, of_category,
    category_start, item_effect, brand_effect, age_category_effect, hour_effect, columns, click, buy, effects,
    offsets, events,
):  # fmt: skip
    users = len(age)
    items = len(category)
    for n in range(len(click)):
        clock[0] += -np.log(1.0 - _uniform(state)) * gap
        now = np.int64(clock[0])
        hour = (now // HOUR_MS) % 24
        # Users come in sessions, so that an hour's window says something that a day's does not.
        session = _below(state, len(sessions))
        user = sessions[session]
        if user == UNKNOWN or _uniform(state) < 1.0 / _SESSION_LENGTH:
            user = np.int64(users * _uniform(state) ** 1.2)
            sessions[session] = user
        # The behaviour of the last day, oldest first; this impression's own click is not in it.
        first = max(ends[user] - MAX_EVENTS, 0)
        begin = offsets[n]
        size = begin
        for k in range(first, ends[user]):
            event = ring[user, k % MAX_EVENTS]
            if now - event[2] <= MAX_AGE_MS:
                events[size] = event
                size += 1
        offsets[n + 1] = size
        # What is shown: more of what was just clicked, something preferred, or something popular.
        choice = _uniform(state)
        if choice < _SAME_CATEGORY_SHARE and size > begin:
            chosen = category[events[size - 1, 0]]
        elif choice < _SAME_CATEGORY_SHARE + _PREFERRED_SHARE:
            chosen = preferred[user, _below(state, preferred.shape[1])]
        else:
            chosen = category[np.int64(items * _uniform(state) ** 1.3)]
        low, high = category_start[chosen], category_start[chosen + 1]
        item = of_category[low + np.int64((high - low) * _uniform(state) ** 1.3)]
        clicks_hour = 0
        clicks_day = 0
        for k in range(begin, size):
            if events[k, 1] == CLICK and category[events[k, 0]] == chosen:
                past = now - events[k, 2]
                if 0 < past <= 24 * HOUR_MS:
                    clicks_day += 1
                    if past <= HOUR_MS:
                        clicks_hour += 1
        effects[n, 0] = item_effect[item]
        effects[n, 1] = brand_effect[brand[item]]
        if age[user] != UNKNOWN:
            effects[n, 2] = age_category_effect[age[user], chosen]
        for k in range(preferred.shape[1]):
            if preferred[user, k] == chosen:
                effects[n, 3] = 1.3 * preference[user, k]
        effects[n, 4] = 0.40 * min(clicks_hour, 4)
        effects[n, 5] = 0.15 * min(clicks_day, 6)
        effects[n, 6] = -0.5 * abs(np.log(price[item]) - 3.0)
        effects[n, 7] = hour_effect[hour]
        logit = BIAS
        for k in range(effects.shape[1]):
            logit += effects[n, k]
        clicked = _uniform(state) < 1.0 / (1.0 + np.exp(-logit))
        bought = _uniform(state) < _BUY_SHARE
        if clicked:
            for action in range(2 if bought else 1):
                event = ring[user, ends[user] % MAX_EVENTS]
                event[0], event[1], event[2] = item, action, now
                ends[user] += 1
        columns[0, n], columns[1, n], columns[2, n], columns[3, n] = user, item, hour, now
        click[n] = clicked
        buy[n] = clicked and bought
