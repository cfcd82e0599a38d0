"""The item cache of a replica: featuregen's, filled from the feature store by what requests ask for.

Items change rarely and are read by every request, so an item is served while it is read again behind: one that is older
than the refresh time is due for `refresh` (the replica's background thread), and only one that is twice as old keeps a
request waiting. A store that does not answer leaves items as they are. Of an item that the store does not know the
cache has its key alone, and the store is asked again each time.

What came back unchanged is not put again, so a quiet catalogue makes no old records. Forgetting is a compaction that
keeps what was asked for lately; a request that found its items before goes on with them.
"""

import threading
import time
from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from featuregen.itemcache import ItemCache, Items, View
from featuregen.plan import Plan
from featuregen.sources import Sources
from kuberec_runtime.publish.errors import TierError
from kuberec_runtime.publish.featurestore import FeatureStore
from kuberec_runtime.serve.ages import NEVER, Ages
from kuberec_runtime.serve.breaker import Breaker
from kuberec_runtime.serve.values import stored

_REFRESH_BATCH = 1000
_FEW_RECORDS = 4096
"""A cache of fewer records is not worth compacting for what it forgets."""
_KEPT_OF_A_FULL_ONE = 0.75
_NEVER_COMPACTED_BY_A_PUT = 1.0


class ItemReader:
    """Items of one plan, by key. Safe for threads.

    Args:
        plan: what is ranked.
        sources: those that the plan was compiled from.
        store: where items are read.
        capacity: items at which the least used are forgotten; never more than twice as many are kept.
        limit_bytes: the same in bytes.
        refresh_s: an item is read again when it is older than this; it is forgotten when nobody asked for it twice as
            long.
        breaker: shared with the rows: both are the same Redis.
        clock: seconds, monotonic.

    Attributes:
        cache: what `Engine.rank_cached` reads.
    """

    def __init__(
        self,
        plan: Plan,
        sources: Sources,
        store: FeatureStore,
        capacity: int = 200_000,
        limit_bytes: int = 1 << 30,
        refresh_s: float = 30.0,
        breaker: Breaker | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.cache = ItemCache(plan, sources, garbage=_NEVER_COMPACTED_BY_A_PUT, keep_inputs=True)
        self._store, self._breaker, self._clock = store, breaker or Breaker(), clock
        self._capacity, self._limit_bytes, self._refresh_s = capacity, limit_bytes, refresh_s
        self._lock = threading.Lock()
        self._now: tuple[View, Ages] = (self.cache.view(), Ages.of(1024))

    def lookup(self, keys: pa.StringArray) -> tuple[Items, NDArray[np.bool_]]:
        """Finds items, in the order of their keys; reads what the cache does not have.

        Returns:
            The items, and bool[n]: the store does not know it, or does not answer. A null key is no item.
        """
        now = self._clock()
        view, ages = self._now
        items = self.cache.find(keys, view)
        unread = ages.asked_for(np.maximum(items.codes, 0), now, self._refresh_s)
        if unread.any():
            wanted = keys.filter(pa.array(unread)).drop_null().unique()
            view, ages = self._admit(wanted, self._fetch(wanted), now, asked_for=True)
            items = self.cache.find(keys, view)
            self._shrink(now, 2 * self._capacity, 2 * self._limit_bytes)
        return items, ages.read[np.maximum(items.codes, 0)] == NEVER

    def find(self, keys: Sequence[str]) -> Items:
        """Finds items without reading any."""
        return self.cache.find(pa.array(keys, pa.string()), self._now[0])

    def refresh(self) -> None:
        """Reads again what is due and forgets what nobody asks for; called between requests, by one thread."""
        view, ages = self._now
        due = np.flatnonzero(ages.due).astype(np.int32)
        for first in range(0, len(due), _REFRESH_BATCH):
            keys = self.cache.keys(Items(view, due[first : first + _REFRESH_BATCH]))
            values = self._fetch(keys)
            if values is None:
                return
            self._admit(keys, values, self._clock(), asked_for=False)
        self._shrink(self._clock(), self._capacity, self._limit_bytes, also_idle=True)

    def __len__(self) -> int:
        return len(self.cache)

    def _fetch(self, keys: pa.StringArray) -> list[bytes | None] | None:
        """Returns what the store has of each key, None if it does not answer."""
        if not self._breaker.allows():
            return None
        try:
            values = self._store.packed_items(keys.to_pylist())
        except TierError:
            self._breaker.failed()
            return None
        self._breaker.succeeded()
        return values

    def _admit(
        self, keys: pa.StringArray, values: Sequence[bytes | None] | None, now: float, asked_for: bool
    ) -> tuple[View, Ages]:
        """Puts what has changed of some distinct keys, and notes that it was read; returns what there is then."""
        answered = values is not None
        values = values if values is not None else [None] * len(keys)
        content = np.array([0 if value is None else hash(value) or 1 for value in values], np.int64)
        with self._lock:
            view, ages = self._now
            codes = self.cache.find(keys, view).codes
            changed = (codes <= 0) | (answered & (ages.content[np.maximum(codes, 0)] != content))
            named = np.array([bool(key) for key in keys.to_pylist()])
            chosen = np.flatnonzero(changed & named).tolist()
            if chosen:
                self.cache.put(self._batch(keys.take(pa.array(chosen, pa.int64())), [values[i] for i in chosen]))
                view = self.cache.view()
                codes = self.cache.find(keys, view).codes
                ages = ages.reaching(int(codes.max()) + 1)
            at = codes[codes > 0]
            if answered:
                content = content[codes > 0]
                ages.content[at], ages.read[at], ages.due[at] = content, np.where(content, now, NEVER), False
            if asked_for:
                ages.used[at] = now
            self._now = view, ages
            return view, ages

    def _batch(self, keys: pa.StringArray, values: Sequence[bytes | None]) -> pa.RecordBatch:
        """The columns of some items; what does not parse or has another type is missing."""
        items = [self._fields(key, value) for key, value in zip(keys.to_pylist(), values, strict=True)]
        arrays = []
        for column in self.cache.inputs:
            name = column.name.removeprefix("item.")
            is_key = column.name == self.cache.division.key
            arrays.append(keys if is_key else stored([item.get(name) for item in items], column.type))
        return pa.RecordBatch.from_arrays(arrays, [column.name for column in self.cache.inputs])

    def _fields(self, key: str, value: bytes | None) -> dict[str, object]:
        try:
            return {} if value is None else self._store.unpack_item(key, value)
        except TierError:
            return {}

    def _shrink(self, now: float, items: int, size: int, also_idle: bool = False) -> None:
        """Compacts if there is more than these limits, or (`also_idle`) more to forget than to keep."""
        cache, used = self.cache, self.cache.nbytes
        too_much = len(cache) > items or used > size
        if not too_much and not (also_idle and cache.records > _FEW_RECORDS):
            return
        with self._lock:
            view, ages = self._now
            most = int(min(self._capacity, self._limit_bytes * cache.records / max(used, 1)) * _KEPT_OF_A_FULL_ONE)
            kept = ages.worth_keeping(now, 2 * self._refresh_s, most if too_much else len(ages.used))
            if not too_much and 2 * len(kept) > cache.records:
                return
            items_kept = Items(view, kept)
            keys = cache.keys(items_kept)
            cache.compact(items_kept)
            new, younger = cache.view(), Ages.of(len(kept) + 1024)
            younger.copy(ages, kept, cache.find(keys, new).codes)
            self._now = new, younger
