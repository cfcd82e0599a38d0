"""What a consumer takes out of a table: copied rows, tombstones, and for a checkpoint counts of keys without a row."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from kuberec_runtime.table.admission import Counts
from kuberec_runtime.table.buckets import I64
from kuberec_runtime.table.initial import F32
from kuberec_runtime.table.marks import CHECKPOINT_BIT, PUBLICATION_BIT

Consumer = Literal["checkpoint", "publication"]
CONSUMERS: dict[str, int] = {"checkpoint": CHECKPOINT_BIT, "publication": PUBLICATION_BIT}


@dataclass(frozen=True)
class Rows:
    """Rows copied out of a table.

    Attributes:
        keys: int64, shape (n,), in order of row numbers.
        raw: float32, shape (n, stride): `[weights | optimizer state | frequency | last seen]`; the last two are uint32.
        removed: int64, shape (m,), ascending, none of them in `keys`: tombstones, removed since the consumer's last
            take. The checkpoint also gets those that the publication has yet to take, so that a restored shard can
            publish them.
        counts: with a checkpoint's copy, pushes of keys that have no row yet; None without admission.
    """

    keys: I64
    raw: F32
    removed: I64 = field(default_factory=lambda: np.zeros(0, np.int64))
    counts: Counts | None = None

    @property
    def touched(self) -> I64:
        """All keys that this copy says something about: what `redirty` needs if it could not be written."""
        return np.concatenate([self.keys, self.removed]) if self.removed.size else self.keys
