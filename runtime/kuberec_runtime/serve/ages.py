"""When each item was read and when it was last asked for, by its code in the cache: arrays, no object for any item.

A request marks all of its items at once and pays for no loop. What is decided of them (read again, forget) is decided
here, without a clock and without a store.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

NEVER = -np.inf
Codes = NDArray[np.int32]


@dataclass(frozen=True)
class Ages:
    """Of every code; code 0 is an item that the cache does not have. Times are seconds of one clock.

    Attributes:
        read: float64[n], when the store was asked; `NEVER` of an item that it does not know.
        used: float64[n], when a request asked for it.
        content: int64[n], a hash of what the store had; 0 of an item that it does not know.
        due: bool[n], is to be read again.
    """

    read: NDArray[np.float64]
    used: NDArray[np.float64]
    content: NDArray[np.int64]
    due: NDArray[np.bool_]

    @classmethod
    def of(cls, size: int) -> "Ages":
        """Ages of codes below `size`, of which nothing is known."""
        return cls(np.full(size, NEVER), np.full(size, NEVER), np.zeros(size, np.int64), np.zeros(size, np.bool_))

    def reaching(self, size: int) -> "Ages":
        """Returns these ages with room for codes below `size`; marks that a request makes meanwhile may be lost."""
        if size <= len(self.read):
            return self
        grown = Ages.of(2 * size)
        grown.copy(self, slice(len(self.read)), slice(len(self.read)))
        return grown

    def copy(self, other: "Ages", theirs: Codes | slice, mine: Codes | slice) -> None:
        """Takes over what another has of some codes."""
        self.read[mine], self.used[mine] = other.read[theirs], other.used[theirs]
        self.content[mine], self.due[mine] = other.content[theirs], other.due[theirs]

    def asked_for(self, codes: Codes, now: float, refresh_s: float) -> NDArray[np.bool_]:
        """Marks what a request asks for; returns bool[n]: must be read before it goes on.

        That is what was never read, or longer ago than twice `refresh_s`. Above `refresh_s` it becomes due.
        """
        read = self.read[codes]
        self.used[codes] = now
        unread = read < now - 2 * refresh_s
        self.due[codes[(read < now - refresh_s) & ~unread]] = True
        return unread

    def worth_keeping(self, now: float, idle_s: float, most: int) -> Codes:
        """Returns what was asked for within `idle_s`; if that is more than `most`, what was last asked for of it."""
        kept = np.flatnonzero(self.used[1:] >= now - idle_s) + 1
        if len(kept) > most:
            kept = kept[np.argpartition(self.used[kept], len(kept) - most)[len(kept) - most :]]
        return kept.astype(np.int32)
