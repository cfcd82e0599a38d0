"""Who and what exists: users, items and the planted effects, all of them a function of one seed.

Effects sit mostly on low-cardinality features (age x category, category preference, recent clicks, price), with
moderate effects of single items and brands, so that a few hundred thousand samples are enough to learn them.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

AGES = np.array([16, 20, 25, 30, 35, 40, 50, 60], np.int64)
GENDERS = ("female", "male")
UNKNOWN = -1
UNKNOWN_SHARE = 0.02
PREFERENCES = 6


@dataclass(frozen=True)
class Size:
    """How many there are of each."""

    users: int = 4000
    items: int = 2000
    categories: int = 40
    brands: int = 200

    def __post_init__(self) -> None:
        if min(self.users, self.items, self.brands) < 1 or self.categories < PREFERENCES:
            raise ValueError(f"a world needs users, items, brands and at least {PREFERENCES} categories, not {self}")
        if self.items < self.categories:
            raise ValueError(f"{self.items} items cannot fill {self.categories} categories: raise --items")


@dataclass(frozen=True, eq=False)
class World:
    """Entities by index, and the effects on the log-odds of a click.

    Attributes:
        size: numbers of entities.
        seed: what it was made from.
        age: shape (users,), index into `AGES` or `UNKNOWN`.
        gender: shape (users,), index into `GENDERS` or `UNKNOWN`.
        preferred: shape (users, PREFERENCES), categories, distinct in a row.
        preference: the same shape, float64 in (0, 1], two decimals.
        category, brand, price: shape (items,); price has two decimals.
        of_category, category_start: items sorted by category and where each category begins, shape (categories + 1,).
        item_effect: shape (items,).
        brand_effect: shape (brands,).
        age_category_effect: shape (ages, categories).
        hour_effect: shape (24,).
    """

    size: Size
    seed: int
    age: NDArray[np.int64]
    gender: NDArray[np.int64]
    preferred: NDArray[np.int64]
    preference: NDArray[np.float64]
    category: NDArray[np.int64]
    brand: NDArray[np.int64]
    price: NDArray[np.float64]
    of_category: NDArray[np.int64]
    category_start: NDArray[np.int64]
    item_effect: NDArray[np.float64]
    brand_effect: NDArray[np.float64]
    age_category_effect: NDArray[np.float64]
    hour_effect: NDArray[np.float64]

    @cached_property
    def user_keys(self) -> list[str]:
        """Keys of the users, by index."""
        return [f"u{index}" for index in range(self.size.users)]

    @cached_property
    def item_keys(self) -> list[str]:
        """Keys of the items, by index."""
        return [f"i{index}" for index in range(self.size.items)]

    def user_fields(self, index: int) -> dict[str, object]:
        """Fields of a user as `examples/feed.yaml` declares them; an unknown one is left out."""
        fields: dict[str, object] = {}
        if self.age[index] != UNKNOWN:
            fields["age"] = int(AGES[self.age[index]])
        if self.gender[index] != UNKNOWN:
            fields["gender"] = GENDERS[self.gender[index]]
        pairs = zip(self.preferred[index].tolist(), self.preference[index].tolist(), strict=True)
        fields["cate_pref"] = {category_key(category): value for category, value in pairs}
        return fields

    def item_fields(self, index: int) -> dict[str, object]:
        """Fields of an item."""
        return {
            "cate": category_key(int(self.category[index])),
            "brand": f"b{self.brand[index]}",
            "price": float(self.price[index]),
        }


def category_key(index: int) -> str:
    """Returns the name of a category."""
    return f"c{index}"


def make_world(seed: int, size: Size | None = None) -> World:
    """Makes the world of a seed; equal seeds and sizes make equal worlds, bit for bit.

    Numbers are rounded so that the last bit of a platform's `exp` cannot show.
    """
    size = size or Size()
    rng = np.random.Generator(np.random.PCG64(seed))

    def unknown_some(values: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.where(rng.random(len(values)) < UNKNOWN_SHARE, UNKNOWN, values)

    def effect(scale: float, *shape: int) -> NDArray[np.float64]:
        return np.round(rng.normal(0.0, scale, shape), 4)

    age = unknown_some(rng.integers(0, len(AGES), size.users))
    gender = unknown_some(rng.integers(0, len(GENDERS), size.users))
    preferred = np.argsort(rng.random((size.users, size.categories)), axis=1, kind="stable")[:, :PREFERENCES]
    preference = np.round(0.1 + 0.9 * rng.random((size.users, PREFERENCES)), 2)
    # Every category has items: the first ones go round, the rest fall where they may.
    category = np.concatenate(
        [np.arange(size.categories), rng.integers(0, size.categories, size.items - size.categories)]
    )
    category = category[rng.permutation(size.items)]
    brand = rng.integers(0, size.brands, size.items)
    price = np.round(np.exp(rng.normal(3.0, 0.9, size.items)), 2)
    of_category = np.argsort(category, kind="stable")
    category_start = np.searchsorted(category[of_category], np.arange(size.categories + 1))
    return World(
        size=size,
        seed=seed,
        age=age,
        gender=gender,
        preferred=preferred.astype(np.int64),
        preference=preference,
        category=category.astype(np.int64),
        brand=brand,
        price=np.maximum(price, 0.5),
        of_category=of_category.astype(np.int64),
        category_start=category_start.astype(np.int64),
        item_effect=effect(0.25, size.items),
        brand_effect=effect(0.2, size.brands),
        age_category_effect=effect(0.58, len(AGES), size.categories),
        hour_effect=effect(0.2, 24),
    )
