"""The engine: one plan, run over batches of samples (training) and over one user with many items (ranking).

Both go through the same compiled program; the only difference is whether a column advances from row to row, so a served
feature and a trained one are the same bits by construction. Derived columns (`feature.<name>`) are computed before the
program runs, by the same code for every backend.
"""

import importlib.util
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import pyarrow as pa

from featuregen.arrays import missing, to_array
from featuregen.derivations import Derivations
from featuregen.errors import FeatureError, did_you_mean
from featuregen.files import read_files
from featuregen.plan import Plan
from featuregen.results import Column, Features
from featuregen.usercolumns import Behavior, User, UserColumns

if TYPE_CHECKING:
    from featuregen.itemcache import ItemCache, Items
    from featuregen.items.ranking import CachedRanking

__all__ = ["Backend", "Column", "Engine", "Features", "Request"]

Backend = Literal["auto", "numba", "numpy"]
BACKEND_VARIABLE = "FEATUREGEN_BACKEND"

# pyarrow imports pandas, if it is installed, when it first makes an array: here and not within a request.
_NO_TIME = pa.array([0], pa.int64())


@dataclass(frozen=True, slots=True)
class Request:
    """One user with n items as a plan reads them; the arrays are never written to, so they may be kept.

    Attributes:
        rows: number of items.
        shared: an array of one row for each input of user, context and behaviour, and `now`; in the plan's order.
        items: an array of n rows for each input of the item and each context field that is perItem.
        derived: item-side derived columns that were computed before, of n rows, by name; others are computed.
    """

    rows: int
    shared: tuple[pa.Array, ...]
    items: tuple[pa.Array, ...]
    derived: Mapping[str, pa.Array] = field(default_factory=dict)


class Engine:
    """Runs a plan. One engine is used by one thread at a time; the kernels run without the GIL.

    Args:
        plan: the plan.
        files: folder of the files that the plan names; `$KUBEREC_FILES` or /etc/kuberec/files unless given.
        backend: `numba`, `numpy`, or `auto`: `$FEATUREGEN_BACKEND` if it is set, else numba where it is installed. The
            results are the same bits.

    Raises:
        FeatureError: if a file is absent or has another content than the plan says, or there is no such backend.
    """

    def __init__(self, plan: Plan, files: str | Path | None = None, backend: Backend = "auto") -> None:
        self.plan = plan
        self._contents = contents = read_files(plan, files)
        self.backend = choose_backend(backend)
        self._program = make_program(self.backend, plan, contents)
        self._derivations = Derivations(plan, contents)
        self._per_item = [column.of_candidate for column in plan.inputs]
        self._shared = UserColumns([column for column in plan.inputs if not column.of_candidate])
        self._steps = [int(own) for own in self._per_item]
        read = {name for operation in plan.operations for name in operation.read}
        self._needs_now = bool(plan.behaviors) or "now" in read
        self._ranking: CachedRanking | None = None
        self._item_side = [d.column for d in plan.derivations if d.side == "item"]

    def batch(self, table: pa.Table | pa.RecordBatch) -> Features:
        """Computes the features of n samples.

        Args:
            table: flat columns of `sample_schema`; others are ignored. Arrow types that cast without loss are taken.

        Raises:
            FeatureError: if a column is absent or has another type, or `now` is null where it is read.
        """
        names = table.schema.names
        arrays, rows = [], table.num_rows
        for column in self.plan.inputs:
            if column.name == "now" and not self._needs_now and "now" not in names:
                arrays.append(_NO_TIME)
                continue
            if column.name not in names:
                raise missing(column, names)
            arrays.append(to_array(column, table.column(column.name)))
        if self._needs_now and arrays[-1].null_count:
            raise FeatureError(None, "column 'now' has nulls", "every sample needs the time of its request, int64 ms")
        steps = [int(array is not _NO_TIME) for array in arrays]
        return self._run(arrays, steps, rows, rows, {})

    def rank(
        self,
        user: User,
        items: pa.RecordBatch,
        context: Mapping[str, object],
        behavior: Behavior,
        now_ms: int,
    ) -> Features:
        """Computes the features of one user with n items.

        Args:
            user: field -> value, absent fields are missing; or, which costs no conversion, one row of flat columns
                `user.<field>`, and of as many of `context.<field>` and `behavior.<name>.<attribute>` as it has.
            items: one row for each candidate: `item.*` columns, and `context.*` for fields that are perItem. A column
                `feature.<name>` of an item-side derivation is taken as it is instead of being computed.
            context: field -> value of the request.
            behavior: behaviour name -> its parallel lists `item`, `action`, `ts` and item fields, oldest first.
            now_ms: time of the request.

        Returns:
            User-side outputs with one row, the others with n.

        Raises:
            FeatureError: naming the column or value that has a wrong type or is absent.
        """
        return self.run(self.request(user, items, context, behavior, now_ms))

    def rank_cached(
        self,
        user: User,
        items: "Items | Sequence[str] | pa.Array",
        context: Mapping[str, object],
        behavior: Behavior,
        now_ms: int,
        cache: "ItemCache",
        per_item: pa.RecordBatch | None = None,
    ) -> Features:
        """Computes what `rank` does, of items that a cache has.

        Args:
            user: as for `rank`.
            items: keys, or what the cache found of them before. Of an item that it does not have, or no longer,
                everything is missing, its key too.
            context: as for `rank`.
            behavior: as for `rank`; attributes of the events' items that it leaves out are taken from the cache.
            now_ms: time of the request.
            cache: made for the same plan.
            per_item: one row for each item: `context.*` for fields that are perItem; None if there are none.

        Raises:
            FeatureError: naming the column or value that has a wrong type or is absent.
        """
        ranking = self._ranking
        if ranking is None or ranking.cache is not cache:
            from featuregen.items.ranking import CachedRanking

            if cache.plan.digest != self.plan.digest:
                hint = "make an ItemCache of this engine's plan"
                raise FeatureError(None, "the item cache was made for another plan", hint)
            ranking = self._ranking = CachedRanking(cache, self._contents, self.backend)
        view, found = cache.asked(items)
        return ranking.rank(user, view, found, context, behavior, now_ms, per_item)

    def request(
        self,
        user: User,
        items: pa.RecordBatch,
        context: Mapping[str, object],
        behavior: Behavior,
        now_ms: int,
    ) -> Request:
        """Reads what the plan needs of one user and n items; the arguments and errors of `rank`."""
        names = items.schema.names
        shared = self._shared.arrays(user, context, behavior, now_ms)
        arrays = []
        for column, own in zip(self.plan.inputs, self._per_item, strict=True):
            if own and column.name not in names:
                raise missing(column, names)
            if own:
                arrays.append(to_array(column, items.column(column.name)))
        known = {c.name: to_array(c, items.column(c.name)) for c in self._item_side if c.name in names}
        return Request(items.num_rows, tuple(shared), tuple(arrays), known)

    def run(self, request: Request) -> Features:
        """Computes what `rank` does of a request that was read before, such as one that was logged."""
        shared, items = iter(request.shared), iter(request.items)
        arrays = [next(items) if own else next(shared) for own in self._per_item]
        return self._run(arrays, list(self._steps), request.rows, 1, request.derived)

    def _run(
        self, arrays: list[pa.Array], steps: list[int], rows: int, user_rows: int, known: Mapping[str, pa.Array]
    ) -> Features:
        if self.plan.derivations:
            self._derivations.extend(arrays, steps, rows, user_rows, known)
        return Features(rows, self._program.run(arrays, steps, rows, user_rows))


class _Program(Protocol):
    def run(self, arrays: list[pa.Array], steps: list[int], rows: int, user_rows: int) -> dict[str, Column]: ...


def choose_backend(backend: str) -> str:
    """Returns `numba` or `numpy`.

    Raises:
        FeatureError: if there is no backend of that name, or numba is asked for and not installed.
    """
    if backend == "auto":
        backend = os.environ.get(BACKEND_VARIABLE) or "auto"
    installed = importlib.util.find_spec("numba") is not None
    if backend == "auto":
        return "numba" if installed else "numpy"
    if backend not in ("numba", "numpy"):
        hint = did_you_mean(backend, ("auto", "numba", "numpy"), "backends")
        raise FeatureError(None, f"there is no backend '{backend}' (${BACKEND_VARIABLE})", hint)
    if backend == "numba" and not installed:
        raise FeatureError(
            None, "numba is not installed", f"install it, or use {BACKEND_VARIABLE}=numpy: the same bits"
        )
    return backend


def make_program(backend: str, plan: Plan, files: Mapping[str, bytes]) -> _Program:
    """Returns what runs a plan, by one of the two backends."""
    if backend == "numpy":
        from featuregen.vectors.program import NumpyProgram

        return NumpyProgram(plan, files)
    from featuregen.program.program import Program

    return Program(plan, files)
