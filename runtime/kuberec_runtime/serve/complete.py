"""A completed request: ranked where its items lie in the cache, and given back as the columns that were read.

Only a request that brings fields of its candidates itself has the others taken out of the cache as columns, for its
values hold for this request and nobody else's. Both ways give the same bits.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import pyarrow as pa

from featuregen.engine import Engine, Features, Request
from featuregen.itemcache import ItemCache, Items
from featuregen.plan import Plan


@dataclass(frozen=True)
class Complete:
    """Everything that a plan reads of a request.

    Attributes:
        plan: the plan.
        count: number of candidates.
        shared: one row of flat columns: user, context, behaviour and `now`; without what `events` are asked for.
        given: columns of the candidates that came with the request.
        cache: where items lie; None if the model has none.
        items: the candidates as the cache has them, None if nothing of them is read from there.
        ranked_in_cache: the candidates' fields all come from the cache.
        events: joined column `behavior.<name>.<field>` -> the items of the events.
        now_ms: time of the request.
        user_key: key of the user, None if there is none.
        unknown_user: the user's key, if the store does not know it.
        unknown_items: keys of candidates that the store does not know.
    """

    plan: Plan
    count: int
    shared: pa.RecordBatch
    given: Mapping[str, pa.Array]
    cache: ItemCache | None
    items: Items | None
    ranked_in_cache: bool
    events: Mapping[str, Items]
    now_ms: int
    user_key: str | None = None
    unknown_user: str | None = None
    unknown_items: list[str] = field(default_factory=list)

    def features(self, engine: Engine) -> Features:
        """Computes the features.

        Raises:
            FeatureError: a value has another type than the model declares.
        """
        if not self.ranked_in_cache or self.cache is None or self.items is None:
            return engine.run(self.request())
        names = [column.name for column in self.plan.inputs if column.per_item]
        per_item = pa.RecordBatch.from_arrays([self.given[name] for name in names], names) if names else None
        return engine.rank_cached(self.shared, self.items, {}, {}, self.now_ms, self.cache, per_item)

    def request(self) -> Request:
        """Returns all columns as they were read, also those that were ranked in the cache: what a log keeps."""
        columns = dict(self.given)
        absent = [c.name for c in self.plan.inputs if c.of_candidate and c.name not in columns]
        if absent and self.cache is not None and self.items is not None:
            columns |= zip(absent, self.cache.read(self.items, absent), strict=True)
        joined = {name: self._joined(name, items) for name, items in self.events.items()}
        shared = tuple(
            joined[c.name] if c.name in joined else self.shared.column(c.name)
            for c in self.plan.inputs
            if not c.of_candidate
        )
        return Request(self.count, shared, tuple(columns[c.name] for c in self.plan.inputs if c.of_candidate))

    def _joined(self, name: str, items: Items) -> pa.Array:
        assert self.cache is not None
        (values,) = self.cache.read(items, [f"item.{name.split('.', 2)[2]}"])
        return pa.ListArray.from_arrays(pa.array([0, len(values)], pa.int32()), values)
