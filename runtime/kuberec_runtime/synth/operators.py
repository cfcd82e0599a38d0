"""A second world, of which each feature operator sees one thing: users, items, contexts, and what they do to a click.

Every effect is a sum over ids or a line over log(1 + number), so that a logistic model over the outputs of
`examples/operators.yaml` can learn all of them, and what it lacks without an operator is that operator's effect.
Nothing here uses featuregen: effects are computed from the entities, a second time and in another way.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

USERS, ITEMS = 3000, 600
CATES, BRANDS, AGES, CITIES, CHANNELS, DAYPARTS = 12, 30, 8, 10, 3, 4
BADGES = {"new": 1, "cheap": 2, "loved": 4, "rare": 8, "plain": 0}
AFFORD = (0.25, 0.5, 1.0, 2.0, 4.0)
NOTE_WORDS = (
    "gift", "urgent", "return", "fragile", "bulk", "sample", "refill", "spare", "party", "travel", "school", "garden",
)  # fmt: skip
DEVICES = ("phone", "tablet", "laptop", "watch", "console", "reader", "camera", "radio", "printer", "scale")
SCALE = 0.45
"""Standard deviation of each effect on the log-odds."""

_POOL = 4000
_FULL_WIDTH = 0xFEE0


@dataclass(frozen=True, eq=False)
class Pool:
    """Values of the columns that come together, one of which each sample gets, and what they do.

    Attributes:
        columns: flat name to k values.
        effects: effect to float64[k].
    """

    columns: dict[str, pa.Array]
    effects: dict[str, F64]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))


@dataclass(frozen=True, eq=False)
class OperatorWorld:
    """Entities by index, and the effects on the log-odds of a click; a function of the seed.

    Attributes:
        users, items: their columns, and the effects that they alone have.
        cate: category of each item, int64[ITEMS].
        pairs: effects of a user and an item, float64[USERS, ITEMS] each.
        affinity: float64[USERS, CATES, CHANNELS].
        place: float64[USERS, DAYPARTS].
        last: of the item that was clicked last, by its brand, float64[ITEMS].
        contexts: independent of each other and of everything else.
    """

    users: Pool
    items: Pool
    cate: I64
    pairs: dict[str, F64]
    affinity: F64
    place: F64
    last: F64
    contexts: tuple[Pool, ...]


def make_operator_world(seed: int) -> OperatorWorld:
    """Makes the world of a seed."""
    rng = np.random.Generator(np.random.PCG64(seed))
    age, city = rng.integers(0, AGES, USERS), rng.integers(0, CITIES, USERS)
    cate, brand = rng.permutation(np.arange(ITEMS) % CATES), rng.integers(0, BRANDS, ITEMS)
    budget, price = (np.round(np.exp(rng.normal(3.0, 0.7, n)), 2) for n in (USERS, ITEMS))
    skills = _some(rng, USERS, 20, 3) * rng.choice([0.5, 1.0, 1.5, 2.0], (USERS, 20))
    taste = _some(rng, USERS, BRANDS, 10) * rng.integers(1, 10, (USERS, BRANDS))
    liked = (rng.random((USERS, CATES, CHANNELS)) < 0.35) * rng.integers(1, 10, (USERS, CATES, CHANNELS))
    query, title = _some(rng, USERS, 20, 4), _some(rng, ITEMS, 20, 7)
    of_user = _some(rng, USERS, 12, 4) * rng.integers(1, 6, (USERS, 12))
    of_item = _some(rng, ITEMS, 12, 4) * np.round(rng.uniform(0.2, 1.0, (ITEMS, 12)), 2)
    badges = rng.random((ITEMS, len(BADGES))) < 0.4
    users = Pool(
        {
            "user.user_id": pa.array([f"u{n}" for n in range(USERS)]),
            "user.age": pa.array(age),
            "user.city": pa.array([f"city{n}" for n in city]),
            "user.budget": pa.array(budget),
            "user.skills": _maps(skills, "skill"),
            "user.taste": _maps(taste.astype(float), "b"),
            "user.affinity": _nested(liked),
            "user.query": _words(query, _names("w", 20)),
            "user.topics": _maps(of_user.astype(float), "t"),
        },
        {"skills": _scaled(skills @ rng.normal(size=20))},
    )
    items = Pool(
        {
            "item.item_id": pa.array([f"i{n}" for n in range(ITEMS)]),
            "item.cate": pa.array([f"c{n}" for n in cate]),
            "item.brand": pa.array([f"b{n}" for n in brand]),
            "item.price": pa.array(price),
            "item.badges": _words(badges, tuple(BADGES)),
            "item.title": _words(title, _names("w", 20)),
            "item.topics": _maps(of_item, "t"),
        },
        {
            "brand": _scaled(rng.normal(size=BRANDS)[brand]),
            "badges": _scaled(np.log1p(badges @ np.array(list(BADGES.values())))),
        },
    )
    bucket = np.searchsorted(AFFORD, price / budget[:, None], side="right")
    pairs = {
        "age_cate": rng.normal(size=(AGES, CATES))[age][:, cate],
        "taste": np.log1p(taste[:, brand]),
        "afford": rng.normal(size=len(AFFORD) + 1)[bucket],
        "words": np.log1p((query.astype(float) @ title.T) / query.sum(axis=1, keepdims=True)),
        "topics": np.log1p(of_user @ of_item.T),
    }
    return OperatorWorld(
        users,
        items,
        cate,
        {name: _scaled(effect) for name, effect in pairs.items()},
        affinity=_scaled(np.log1p(liked)),
        place=_scaled(rng.normal(size=(CITIES, DAYPARTS))[city]),
        last=_scaled(rng.normal(size=BRANDS)[brand]),
        contexts=_contexts(rng),
    )


def _contexts(rng: np.random.Generator) -> tuple[Pool, ...]:
    """One pool for each operator that reads the context only."""
    distance = np.round(rng.uniform(0.0, 9.999, _POOL), 3)
    tags, visible = _some(rng, _POOL, 12, 5), rng.random((_POOL, 12)) < 0.5
    flags = [mask[row].astype(int).tolist() for row, mask in zip(tags, visible, strict=True)]
    note = _some(rng, _POOL, len(NOTE_WORDS), 3)
    device, campaign, region = (rng.integers(0, n, _POOL) for n in (len(DEVICES), 30, 30))
    noise = rng.integers(0, 16**5, _POOL)
    return (
        _pool("distance", rng.normal(size=10)[distance.astype(int)], distance=pa.array(distance)),
        _pool(
            "shown",
            (tags & visible) @ rng.normal(size=12),
            tags=_words(tags, _names("tag", 12)),
            visible=pa.array(flags, pa.list_(pa.int64())),
        ),
        _pool(
            "note",
            note @ rng.normal(size=len(NOTE_WORDS)),
            note=pa.array([" ".join(words) for words in _words(note, NOTE_WORDS).to_pylist()]),
        ),
        _pool(
            "device",
            rng.normal(size=len(DEVICES))[device],
            device=pa.array([_spelt(DEVICES[d], n % 3) for d, n in zip(device, noise, strict=True)]),
        ),
        _pool(
            "campaign",
            rng.normal(size=30)[campaign],
            campaign=pa.array([f"summer{c}-{n:05x}" for c, n in zip(campaign, noise, strict=True)]),
        ),
        _pool(
            "region",
            rng.normal(size=30)[region],
            code=pa.array([f"{chr(65 + r)}{chr(90 - r % 7)}{n:06d}" for r, n in zip(region, noise, strict=True)]),
        ),
        _mistyped(rng),
    )


def _pool(effect: str, values: F64, **columns: pa.Array) -> Pool:
    return Pool({f"context.{name}": column for name, column in columns.items()}, {effect: _scaled(values)})


def _mistyped(rng: np.random.Generator) -> Pool:
    """Words of 12 letters, some of them replaced by digits: each of these costs one edit, and nothing else does."""
    wanted = ["".join(chr(97 + c) for c in rng.integers(0, 26, 12)) for _ in range(_POOL)]
    count = rng.integers(0, 7, _POOL)
    typed = []
    for word, edits in zip(wanted, count, strict=True):
        letters = list(word)
        for place in rng.permutation(12)[:edits]:
            letters[place] = str(place % 10)
        typed.append("".join(letters))
    return _pool("mistyped", -np.log1p(count), typed=pa.array(typed), wanted=pa.array(wanted))


def _scaled(effect: F64) -> F64:
    return np.asarray((effect - effect.mean()) * (SCALE / effect.std()))


def _some(rng: np.random.Generator, rows: int, of: int, count: int) -> NDArray[np.bool_]:
    """In each row `count` of `of`, bool[rows, of]."""
    return rng.random((rows, of)).argsort(axis=1).argsort(axis=1) < count


def _names(prefix: str, count: int) -> tuple[str, ...]:
    return tuple(f"{prefix}{n}" for n in range(count))


def _words(chosen: NDArray[np.bool_], names: Sequence[str]) -> pa.Array:
    """list<string> of the chosen names in each row."""
    offsets = np.concatenate([[0], chosen.sum(axis=1).cumsum()]).astype(np.int32)
    return pa.ListArray.from_arrays(offsets, pa.array(names).take(pa.array(np.nonzero(chosen)[1])))


def _maps(values: F64, prefix: str) -> pa.Array:
    """map<string,float> of what is not zero in each row."""
    given = values != 0
    offsets = np.concatenate([[0], given.sum(axis=1).cumsum()]).astype(np.int32)
    keys = pa.array(_names(prefix, values.shape[1])).take(pa.array(np.nonzero(given)[1]))
    return pa.MapArray.from_arrays(offsets, keys, pa.array(values[given]))


def _nested(liked: I64) -> pa.Array:
    """map<string,map<string,float>>: category to channel to number."""
    rows = [
        [
            (f"c{cate}", [(f"ch{n}", float(value)) for n, value in enumerate(channels) if value])
            for cate, channels in enumerate(user)
        ]
        for user in liked.tolist()
    ]
    return pa.array(rows, pa.map_(pa.string(), pa.map_(pa.string(), pa.float64())))


def _spelt(word: str, way: int) -> str:
    """A word as it is, in capitals, or in full-width letters."""
    return word if way == 0 else word.upper() if way == 1 else "".join(chr(ord(c) + _FULL_WIDTH) for c in word)
