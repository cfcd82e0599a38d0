"""Which version a replica serves: follows `current`, loads and warms behind, swaps by one assignment.

A request holds the version it began with; its network goes back to the pool when the last such request is done, so at
most one version is being loaded beside those in use. A version that does not fit (digest, tables, weights) is refused
with a reason and not tried again until `current` moves; the version before goes on being served.
"""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from kuberec_api.layout import Layout
from kuberec_api.training import RowType
from kuberec_runtime.publish.errors import TierCorrupt, TierError
from kuberec_runtime.publish.publication import Current, Delta, Dense, Description, Version
from kuberec_runtime.publish.tier import Tier
from kuberec_runtime.serve.errors import NotReady, VersionRefused
from kuberec_runtime.serve.rows import RowReader

F32 = NDArray[np.float32]
_PREFILL_DELTAS = 20


class Scorer(Protocol):
    """What is needed of `models.network.Network`."""

    def flat(self, named: Mapping[str, F32]) -> F32:
        """Joins weights by name; ValueError if they do not fit."""

    def set_dense(self, flat: F32) -> None:
        """Sets all dense weights."""

    def score(self, x: F32) -> F32:
        """Probabilities float32[n] of X float32[n, D]."""


@dataclass
class Served:
    """A warm version: immutable for requests but for the count of those that hold it."""

    namespace: str
    description: Description
    network: Scorer
    rows: RowReader
    holders: int = 0
    retired: bool = False

    @property
    def version(self) -> Version:
        """The version."""
        return self.description.version


@dataclass
class _Followed:
    """A namespace's rows and how far its delta stream has been applied."""

    namespace: str
    rows: RowReader
    last_id: str = "0"
    last_version: str = ""


@dataclass(frozen=True)
class VersionStatus:
    """What is served and why nothing newer is; `reason` is empty when all is well. Times in ms since the epoch."""

    version: str | None = None
    wanted: str | None = None
    reason: str = ""
    watermark: int = 0
    trained_at: int = 0
    digest: str = ""


@dataclass
class Versions:
    """The version in service and the steps that keep it new. `step` is called by one thread, the rest by any.

    Args:
        digest: the plan digest of this replica's model; other versions are refused.
        layout: of the model's network input.
        tier: the training's tier.
        make_network: builds a network; called once for each version in use at the same time.
        make_reader: builds the row reader of a namespace.
        warm: runs a synthetic request against a version before it is served.
        pinned: serve this version instead of the current one.
    """

    digest: str
    layout: Layout
    tier: Tier
    make_network: Callable[[], Scorer]
    make_reader: Callable[[str, RowType], RowReader]
    warm: Callable[[Served], None] = lambda _: None
    pinned: Version | None = None
    on_swap: Callable[[Served], None] = lambda _: None
    _served: Served | None = field(default=None, init=False)
    _followed: _Followed | None = field(default=None, init=False)
    _free: list[Scorer] = field(default_factory=list, init=False)
    _refused: tuple[Current, Version] | None = field(default=None, init=False)
    _wanted: Version | None = field(default=None, init=False)
    _reason: str = field(default="the replica has just started", init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def acquire(self) -> Served:
        """Returns the version in service, held until `release`.

        Raises:
            NotReady: if none is warm yet.
        """
        with self._lock:
            if self._served is None:
                raise NotReady(f"no version is served yet: {self._reason}")
            self._served.holders += 1
            return self._served

    def release(self, served: Served) -> None:
        """Gives a version back."""
        with self._lock:
            served.holders -= 1
            if served.retired and not served.holders:
                self._free.append(served.network)

    @property
    def ready(self) -> bool:
        """True once a version is warm; stays true."""
        return self._served is not None

    @property
    def status(self) -> VersionStatus:
        """What is served."""
        served, wanted = self._served, None if self._wanted is None else str(self._wanted)
        if served is None:
            return VersionStatus(None, wanted, self._reason, digest=self.digest)
        about = served.description
        return VersionStatus(str(about.version), wanted, self._reason, about.watermark, about.trained_at, about.digest)

    def pin(self, version: Version | None) -> None:
        """Pins a version, or follows the current one again with None; takes effect at the next step."""
        self.pinned = version
        self._refused = None

    def step(self) -> None:
        """Looks at the tier once: applies new deltas to cached rows, loads and swaps if another version is due."""
        try:
            current = self.tier.current()
            if current is None:
                self._reason = "nothing has been published yet"
                return
            if self._followed is not None:
                self._apply_deltas(self._followed)
            self._wanted = self.pinned or current.version
            self._load_if_due(current, self._wanted)
        except TierCorrupt as error:
            self._reason = str(error)
        except TierError as error:
            self._reason = str(error)

    def _load_if_due(self, current: Current, wanted: Version) -> None:
        served = self._served
        if served is not None and (served.namespace, served.version) == (current.namespace, wanted):
            self._reason = ""
            return
        if self._refused == (current, wanted):
            return
        try:
            fresh = self._load(current.namespace, wanted)
        except (VersionRefused, TierCorrupt) as error:
            self._refused = (current, wanted)
            self._reason = f"version {wanted} is refused: {error}"
            return
        with self._lock:
            self._served = fresh
            if served is not None:
                served.retired = True
                if not served.holders:
                    self._free.append(served.network)
        self._reason = ""
        self.on_swap(fresh)

    def _load(self, namespace: str, version: Version) -> Served:
        dense = self.tier.dense(namespace, version)
        check(dense, self.digest, self.layout)
        followed = self._followed
        if followed is None or followed.namespace != namespace:
            followed = self._follow(namespace, dense.description.dtype)
        with self._lock:
            network = self._free.pop() if self._free else None
        network = network or self.make_network()
        served = Served(namespace, dense.description, network, followed.rows)
        try:
            network.set_dense(network.flat(dense.weights))
            scores = network.score(np.zeros((2, self.layout.dimension), np.float32))
            if not np.isfinite(scores).all():
                raise VersionRefused("its network answers NaN or infinity")
            self.warm(served)
        except BaseException as error:
            with self._lock:
                self._free.append(network)
            if isinstance(error, ValueError):
                raise VersionRefused(str(error)) from None
            raise
        self._followed = followed
        return served

    def _follow(self, namespace: str, dtype: RowType) -> _Followed:
        last = self.tier.last_delta(namespace)
        reader = self.make_reader(namespace, dtype)
        followed = _Followed(namespace, reader)
        if last is not None:
            followed.last_id, followed.last_version = last.id, str(last.version)
        recent: dict[str, list[NDArray[np.int64]]] = {}
        for delta in self.tier.deltas(namespace)[-_PREFILL_DELTAS:]:
            for table, ids in (delta.changed or {}).items():
                recent.setdefault(table, []).append(ids)
        reader.fill({table: np.unique(np.concatenate(ids)) for table, ids in recent.items()})
        return followed

    def _apply_deltas(self, followed: _Followed) -> None:
        for delta in self.tier.deltas(followed.namespace, followed.last_id):
            if not followed.rows.refresh(_changed(delta, followed.last_version)):
                return
            followed.last_id, followed.last_version = delta.id, str(delta.version)


def _changed(delta: Delta, last_version: str) -> dict[str, NDArray[np.int64]] | None:
    """Ids to refresh; None (all) if the entry does not know them or entries before it are lost."""
    return delta.changed if delta.previous == last_version else None


def check(dense: Dense, digest: str, layout: Layout) -> None:
    """Refuses a version that this replica's model cannot serve.

    Raises:
        VersionRefused: says which part differs and how to mend it.
    """
    about = dense.description
    if about.digest != digest:
        raise VersionRefused(
            f"it was trained for plan {about.digest[:8]}, this replica's model has plan {digest[:8]}\n"
            "  restart the training with this RecModel, or serve the RecModel that it was trained with"
        )
    for name, table in layout.tables.items():
        meta = about.tables.get(name)
        if meta is None or (meta.width, meta.linear, meta.ordinal) != (table.width, table.linear, table.ordinal):
            got = "no such table" if meta is None else f"width {meta.width}, linear {meta.linear}"
            raise VersionRefused(f"table '{name}': the model has width {table.width}, the version has {got}")
    for name, weights in dense.weights.items():
        if not np.isfinite(weights).all():
            raise VersionRefused(f"dense weight '{name}' holds NaN or infinity")


def freshness_s(status: VersionStatus, now: Callable[[], float] = time.time) -> float | None:
    """Seconds since the newest event that the served version has learnt; None if unknown."""
    return None if not status.watermark else max(0.0, now() - status.watermark / 1000)
