"""Samples of the second world: what was shown, the clicks before it, and by how much each operator's effect moved it.

A model that computes one operator wrongly falls short of the oracle by that operator's effect; one that sees events
which had not happened yet rises above it, which no honest model can.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numba import njit
from numpy.typing import NDArray

from kuberec_runtime.synth.operators import CHANNELS, DAYPARTS, F64, I64, ITEMS, USERS, OperatorWorld

HOUR_MS = 3_600_000
MAX_AGE_MS = 24 * HOUR_MS
MAX_EVENTS = 50
START_MS = 1_767_225_600_000  # 2026-01-01T00:00:00Z
EFFECTS = (
    "brand", "skills", "distance", "age_cate", "badges", "taste", "affinity", "afford", "words", "topics", "shown",
    "note", "device", "campaign", "place", "region", "mistyped", "last", "clicks_1h", "clicks_24h", "paid_24h",
)  # fmt: skip
"""As the features of `examples/operators.yaml` are called."""

_BIAS = -3.4
_GAP_MS = 2160.0  # 40,000 samples a day
_SESSIONS, _SESSION_LENGTH = 60, 6.0
_AGAIN = 0.5  # share of items from the category that was clicked last
_HOUR, _DAY, _PAID = 1.0, 0.8, 0.22  # on log(1 + clicks) and log(1 + money)
_PAYS = 0.3
_USER_BIT = 42  # a time in milliseconds takes less: user and time are one sortable number


@dataclass(frozen=True, eq=False)
class Planted:
    """Samples in the order of time.

    Attributes:
        columns: all columns of `examples/operators.yaml` but those of the behaviour and `now`.
        user, item, now: int64[n]; now in milliseconds, ascending without ties.
        click: float32[n], the labels.
        paid: float64[n], what a click on the sample pays.
        effects: float64[n, len(EFFECTS)], addends of the log-odds.
    """

    columns: dict[str, pa.Array]
    user: I64
    item: I64
    now: I64
    click: NDArray[np.float32]
    paid: F64
    effects: F64

    @property
    def logit(self) -> F64:
        """True log-odds of a click, without their constant."""
        return np.asarray(self.effects.sum(axis=1))

    def table(self, ahead_ms: int = 0) -> pa.Table:
        """Returns the samples as flat columns; with `ahead_ms` as if each had been logged so much later than it was.

        Then its behaviour has events that had not happened yet, its own click among them: a leak.
        """
        when = self.now + ahead_ms
        clicks = np.flatnonzero(self.click)
        clicks = clicks[np.lexsort((self.now[clicks], self.user[clicks]))]
        of_user = self.user << _USER_BIT
        placed = (of_user + self.now)[clicks]
        stop = np.searchsorted(placed, of_user + when)
        start = np.searchsorted(placed, of_user + when - MAX_AGE_MS)
        start = np.maximum(start, stop - MAX_EVENTS)
        offsets = np.concatenate([[0], (stop - start).cumsum()])
        events = clicks[np.arange(offsets[-1]) + np.repeat(start - offsets[:-1], stop - start)]

        def each(values: pa.Array) -> pa.Array:
            return pa.ListArray.from_arrays(offsets.astype(np.int32), values.take(pa.array(events)))

        behavior = {
            "item": self.columns["item.item_id"],
            "cate": self.columns["item.cate"],
            "brand": self.columns["item.brand"],
            "action": pa.array(["click"]).take(pa.array(np.zeros(len(self.now), np.int64))),
            "ts": pa.array(self.now),
            "paid": pa.array(self.paid),
        }
        return pa.table(
            {
                **self.columns,
                **{f"behavior.clicks.{name}": each(values) for name, values in behavior.items()},
                "now": pa.array(when),
                "label.click": pa.array(self.click),
            }
        )


def plant(world: OperatorWorld, seed: int, samples: int) -> Planted:
    """Draws samples, 40,000 a day; equal seeds draw equal ones."""
    rng = np.random.Generator(np.random.PCG64(seed))
    now = START_MS + (1 + rng.exponential(_GAP_MS, samples).astype(np.int64)).cumsum()
    channel, daypart = rng.integers(0, CHANNELS, samples), rng.integers(0, DAYPARTS, samples)
    drawn = [rng.integers(0, len(pool), samples) for pool in world.contexts]
    paid = np.round(np.exp(rng.normal(3.0, 1.0, samples)) * (rng.random(samples) < _PAYS), 2)
    independent = {n: e[k] for p, k in zip(world.contexts, drawn, strict=True) for n, e in p.effects.items()}
    pairs = np.add.reduce([*world.pairs.values()]) + sum(world.items.effects.values())
    by_cate = np.argsort(world.cate, kind="stable").reshape(-1, ITEMS // (world.cate.max() + 1))
    user, item, click, state = _walk(
        rng.random((samples, 6)),
        now,
        np.add.reduce([*independent.values()]),
        pairs + world.users.effects["skills"][:, None],
        world.affinity,
        world.place,
        world.last,
        world.cate,
        by_cate,
        channel,
        daypart,
        paid,
    )
    effects = {
        **independent,
        **{name: effect[user] for name, effect in world.users.effects.items()},
        **{name: effect[item] for name, effect in world.items.effects.items()},
        **{name: effect[user, item] for name, effect in world.pairs.items()},
        "affinity": world.affinity[user, world.cate[item], channel],
        "place": world.place[user, daypart],
        **{name: state[:, k] for k, name in enumerate(("last", "clicks_1h", "clicks_24h", "paid_24h"))},
    }
    names = {"channel": [f"ch{n}" for n in range(CHANNELS)], "daypart": [f"part{n}" for n in range(DAYPARTS)]}
    columns = {
        **{name: values.take(pa.array(user)) for name, values in world.users.columns.items()},
        **{name: values.take(pa.array(item)) for name, values in world.items.columns.items()},
        "context.channel": pa.array(names["channel"]).take(pa.array(channel)),
        "context.daypart": pa.array(names["daypart"]).take(pa.array(daypart)),
        **{n: v.take(pa.array(k)) for p, k in zip(world.contexts, drawn, strict=True) for n, v in p.columns.items()},
    }
    return Planted(columns, user, item, now, click, paid, np.stack([effects[name] for name in EFFECTS], axis=1))


@njit(nogil=True, cache=True)
def _walk(  # type: ignore[no-untyped-def]
    random, now, independent, pairs, affinity, place, last, cate, by_cate, channel, daypart, paid
):
    """Goes through time: who comes, what is shown, and whether it is clicked, given the clicks of before."""
    samples = len(now)
    user, item = np.empty(samples, np.int64), np.empty(samples, np.int64)
    click = np.zeros(samples, np.float32)
    state = np.zeros((samples, 4), np.float64)
    sessions = np.full(_SESSIONS, -1, np.int64)
    ring, ends = np.zeros((USERS, MAX_EVENTS), np.int64), np.zeros(USERS, np.int64)
    for n in range(samples):
        # Users come in sessions, so that an hour says something that a day does not.
        session = int(random[n, 0] * _SESSIONS)
        if sessions[session] < 0 or random[n, 1] < 1.0 / _SESSION_LENGTH:
            sessions[session] = int(random[n, 2] * USERS)
        u = sessions[session]
        first = max(ends[u] - MAX_EVENTS, 0)
        while first < ends[u] and now[n] - now[ring[u, first % MAX_EVENTS]] > MAX_AGE_MS:
            first += 1
        chosen = int(random[n, 4] * ITEMS)
        if first < ends[u]:
            newest = item[ring[u, (ends[u] - 1) % MAX_EVENTS]]
            state[n, 0] = last[newest]
            if random[n, 3] < _AGAIN:
                chosen = by_cate[cate[newest], int(random[n, 4] * by_cate.shape[1])]
        clicks_hour, clicks_day, money = 0, 0, 0.0
        for k in range(first, ends[u]):
            event = ring[u, k % MAX_EVENTS]
            money += paid[event]
            if cate[item[event]] == cate[chosen]:
                clicks_day += 1
                clicks_hour += now[n] - now[event] <= HOUR_MS
        state[n, 1] = _HOUR * np.log1p(clicks_hour)
        state[n, 2] = _DAY * np.log1p(clicks_day)
        state[n, 3] = _PAID * np.log1p(money)
        logit = _BIAS + independent[n] + pairs[u, chosen] + affinity[u, cate[chosen], channel[n]]
        logit += place[u, daypart[n]] + state[n].sum()
        user[n], item[n] = u, chosen
        if random[n, 5] < 1.0 / (1.0 + np.exp(-logit)):
            click[n] = 1.0
            ring[u, ends[u] % MAX_EVENTS] = n
            ends[u] += 1
    return user, item, click, state
