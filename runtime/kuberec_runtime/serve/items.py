"""Item fields for a request's candidates, from the feature store through a bounded in-process cache.

Items change rarely and are read by every request, so an entry is served while it is refreshed behind: the cache has a
fresh and an old generation. A request takes from either; keys taken from the old one are read again by `refresh` (the
replica's background thread), and an entry is forgotten when nobody asked for it during a whole generation.
"""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from kuberec_runtime.publish.errors import TierError
from kuberec_runtime.publish.featurestore import FeatureStore
from kuberec_runtime.serve.breaker import Breaker

Values = tuple[Any, ...]
_REFRESH_BATCH = 1000


class ItemCache:
    """Fields of items by key. Safe for threads.

    Args:
        store: where items are read; None means that no item is known.
        fields: names of the item fields that the plan reads, without the key.
        capacity: entries of one generation; at most two generations are held.
        generation_s: an entry is read again when it is older than this.
        breaker: shared with the rows: both are the same Redis.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        store: FeatureStore | None,
        fields: Sequence[str],
        capacity: int = 200_000,
        generation_s: float = 30.0,
        breaker: Breaker | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.fields = tuple(fields)
        self._store = store
        self._capacity, self._generation_s, self._clock = capacity, generation_s, clock
        self._breaker = breaker or Breaker()
        self._lock = threading.Lock()
        self._fresh: dict[str, Values] = {}
        self._old: dict[str, Values] = {}
        self._due: set[str] = set()
        self._turned_at = clock()

    def lookup(self, keys: Sequence[str]) -> tuple[list[Values], list[str]]:
        """Returns the values of `fields` for each key (all None if unknown), and the keys that are unknown."""
        self._turn_if_due()
        fresh, old = self._fresh, self._old
        found = [fresh.get(key) for key in keys]
        if None not in found:
            return found, []  # type: ignore[return-value]
        unread: list[int] = []
        for i, values in enumerate(found):
            if values is None:
                found[i] = old.get(keys[i])
                if found[i] is None:
                    unread.append(i)
                else:
                    self._due.add(keys[i])
        if unread:
            read = self._read(list(dict.fromkeys(keys[i] for i in unread)))
            for i in unread:
                found[i] = read.get(keys[i])
        unknown = list(dict.fromkeys(keys[i] for i in unread if found[i] is None))
        nothing: Values = (None,) * len(self.fields)
        return [nothing if values is None else values for values in found], unknown

    def refresh(self) -> None:
        """Reads again what requests took from the old generation; called between requests."""
        while self._due:
            with self._lock:
                due = [self._due.pop() for _ in range(min(len(self._due), _REFRESH_BATCH))]
            if not self._read(due):
                return

    def __len__(self) -> int:
        return len(self._fresh) + len(self._old)

    def _read(self, keys: Sequence[str]) -> dict[str, Values]:
        if self._store is None or not self._breaker.allows():
            return {}
        try:
            items = self._store.items(keys)
        except TierError:
            self._breaker.failed()
            return {}
        self._breaker.succeeded()
        read = {
            key: tuple(item.get(field) for field in self.fields)
            for key, item in zip(keys, items, strict=True)
            if item is not None
        }
        with self._lock:
            self._fresh.update(read)
        return read

    def _turn_if_due(self) -> None:
        if self._clock() - self._turned_at < self._generation_s and len(self._fresh) < self._capacity:
            return
        with self._lock:
            if self._clock() - self._turned_at >= self._generation_s or len(self._fresh) >= self._capacity:
                self._old, self._fresh, self._due = self._fresh, {}, set()
                self._turned_at = self._clock()
