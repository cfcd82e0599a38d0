"""Row numbers of the last pulls: a worker pushes to the rows that it pulled, and need not search for them again.

A search of a large table waits for memory about as long as the optimizer's step does; to compare the keys takes a
thirtieth of that. Numbers hold until a key is removed, and whoever removes one forgets all of them.
"""

import threading
from collections import deque
from typing import NamedTuple

import numpy as np

from kuberec_runtime.table.buckets import I64

MOST_PULLS = 64
"""Of several workers, each of which pulls ahead of its pushes; what is older is searched for again."""
MOST_KEYS = 1 << 20


class _Pull(NamedTuple):
    keys: I64
    numbers: I64
    first: int
    last: int

    def are_at(self, keys: I64, at: int) -> bool:
        """Whether `keys` goes on with these from position `at`."""
        end = at + self.keys.size
        if end > keys.size or self.first != keys[at] or self.last != keys[end - 1]:
            return False
        return np.array_equal(self.keys, keys[at:end])


class Recent:
    """Keys and row numbers of pulls, oldest first. Its methods may be called from any thread."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._pulls: deque[_Pull] = deque()
        self._keys = 0

    @property
    def memory_bytes(self) -> int:
        """Bytes held."""
        return 16 * self._keys

    def note(self, keys: I64, numbers: I64, most: int = MOST_KEYS) -> None:
        """Remembers a copy of the keys, int64 of shape (n,), and their numbers, up to `most` keys in all.

        What is too old is forgotten.
        """
        most = min(most, MOST_KEYS)
        if not 0 < keys.size <= most:
            return
        pull = _Pull(keys.copy(), numbers, int(keys[0]), int(keys[-1]))
        with self._guard:
            self._pulls.append(pull)
            self._keys += keys.size
            while len(self._pulls) > MOST_PULLS or self._keys > most:
                self._keys -= self._pulls.popleft().keys.size

    def take(self, keys: I64) -> I64 | None:
        """The numbers of keys that one pull named, or several one after another, which are then forgotten; or None."""
        found: list[_Pull] = []
        at = 0
        with self._guard:
            while at < keys.size:
                pull = next((pull for pull in self._pulls if pull.are_at(keys, at)), None)
                if pull is None:
                    return None
                found.append(pull)
                at += pull.keys.size
            if not found:
                return None
            self._pulls = deque(pull for pull in self._pulls if not any(pull is taken for taken in found))
            self._keys = sum(pull.keys.size for pull in self._pulls)
        return found[0].numbers if len(found) == 1 else np.concatenate([pull.numbers for pull in found])

    def clear(self) -> None:
        """Forgets everything."""
        with self._guard:
            self._pulls.clear()
            self._keys = 0
