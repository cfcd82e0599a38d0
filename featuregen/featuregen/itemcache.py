"""The item cache: what a plan reads of many items, encoded once and kept in memory, while requests read it.

A put encodes texts by dictionaries and computes all that an item alone decides; a ranking then meets numbers only. One
thread at a time writes, any number of threads read; a reader has an item's old record or its new one, never a mix.
"""

import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from featuregen.arrays import to_array
from featuregen.engine import Backend, choose_backend
from featuregen.errors import FeatureError
from featuregen.files import read_files
from featuregen.items.division import divide
from featuregen.items.itemside import ItemSide, nothing
from featuregen.items.layout import lay_out
from featuregen.items.loading import Records, find
from featuregen.items.store import KEYS, Items, Store, View
from featuregen.plan import Input, Plan
from featuregen.sources import FieldType, Sources

__all__ = ["ItemCache", "Items", "View"]

_KEY = Input("keys", FieldType.STRING)
_COMPACTED_AT_ONCE = 65536
_FEW_SLOTS = 4096
"""A cache of fewer records than that is not worth compacting by itself."""


class ItemCache:
    """Items of one plan, by key. Safe for threads: writers wait for each other, readers for nobody.

    Args:
        plan: the plan.
        sources: the sources that it was compiled from.
        files: folder of the files that the plan names; `$KUBEREC_FILES` or /etc/kuberec/files unless given.
        garbage: share of records that are old versions or deleted, at which a put compacts.
        backend: computes the item side: as for an engine.
        keep_inputs: keeps every field that the plan reads of an item, also one that only the item's own outputs are
            made of, so that `read` can give it back.

    Raises:
        FeatureError: if the sources have no items, or a file cannot be read.
    """

    def __init__(
        self,
        plan: Plan,
        sources: Sources,
        files: str | Path | None = None,
        garbage: float = 0.5,
        backend: Backend = "auto",
        keep_inputs: bool = False,
    ) -> None:
        self.plan = plan
        self.division = divide(plan, sources, keep_inputs)
        self._layout = lay_out(self.division)
        self._side = ItemSide(self.division, read_files(plan, files), choose_backend(backend))
        self._garbage = garbage
        self._lock = threading.Lock()
        self._store = self._new_store()
        self._view = self._store.view()

    @property
    def inputs(self) -> tuple[Input, ...]:
        """Columns that items are put with: the key, and `item.<field>` of every field that the plan reads."""
        return self._side.inputs

    @property
    def nbytes(self) -> int:
        """Bytes that are in use, of records, dictionaries and pools."""
        return self._store.nbytes

    @property
    def records(self) -> int:
        """Number of records that take memory: items, and their old versions until the next compaction."""
        return self._store.slots

    def __len__(self) -> int:
        return self._store.live

    def view(self) -> View:
        """Returns what the cache has now; while it is held, it and the memory that it needs stay."""
        return self._view

    def find(self, keys: Sequence[str] | pa.Array | pa.ChunkedArray, view: View | None = None) -> Items:
        """Finds items by key, in what the cache has now or in a view that was taken before.

        Raises:
            FeatureError: if the keys are no texts.
        """
        view = view or self._view
        return Items(view, find(view, key_array(keys)))

    def asked(self, items: Items | Sequence[str] | pa.Array | pa.ChunkedArray) -> tuple[View, Any]:
        """Returns a view with the codes (int32[n]) of items that were found before in it, or with keys as an array."""
        if isinstance(items, Items):
            return items.view, items.codes
        return self._view, key_array(items)

    def read(self, items: Items, columns: Sequence[str]) -> list[pa.Array]:
        """Returns columns of items as they were put, all of one moment; of an item that is not there, nulls.

        Args:
            items: that were found.
            columns: names of `inputs` that are kept: with `keep_inputs` all that the plan reads.
        """
        records = Records.of(items.view, items.codes)
        return [records.array(items.view.store.field(name)) for name in columns]

    def keys(self, items: Items) -> pa.StringArray:
        """Returns the keys of items that were found; a null of one that is not there."""
        return Records.of(items.view, items.codes).keys()

    def put(self, items: pa.RecordBatch | pa.Table) -> None:
        """Adds items, or replaces those of the same key; of equal keys in a batch the last one counts.

        Args:
            items: the columns of `inputs`; others are ignored.

        Raises:
            FeatureError: if a column is absent or has another type, a key is missing, or the cache is full. Then no
                item has changed.
        """
        with self._lock:
            columns, results = self._side.compute(items)
            keys = columns[self.division.key]
            if keys.null_count or "" in keys.unique().to_pylist():
                raise FeatureError(None, f"an item has no '{self.division.key}'", "every item needs its key")
            first = self._store.append(columns, results, items.num_rows)
            codes = self._store.dictionaries.encode(KEYS, keys)
            self._view = self._store.view()
            self._store.publish(codes, first)
            dead = self._store.slots - 1 - self._store.live
            if self._store.slots > _FEW_SLOTS and dead > self._garbage * self._store.slots:
                self._compact()

    def delete(self, keys: Sequence[str] | pa.Array | pa.ChunkedArray) -> None:
        """Makes items unknown; keys that are not there are ignored."""
        with self._lock:
            self._store.remove(find(self._store.view(), key_array(keys)))

    def compact(self, keep: Items | None = None) -> None:
        """Copies what is in use to fresh memory; what readers hold is freed when the last of them has finished.

        Args:
            keep: all other items become unknown, but not to readers that found them before. Found since the last
                compaction, each once.

        Raises:
            FeatureError: if they were found before it.
        """
        with self._lock:
            if keep is not None and keep.view.store is not self._store:
                raise FeatureError(None, "the items to keep were found before a compaction", "find them again")
            self._compact(None if keep is None else keep.codes)

    def _new_store(self) -> Store:
        store = Store(self.division, self._layout, self._side)
        columns, results = self._side.compute(nothing(self.inputs))
        store.append(columns, results, 1)  # slot 0 is the item that nobody knows
        return store

    def _compact(self, keep: Any = None) -> None:
        old, new = self._store.view(), self._new_store()
        among = np.arange(old.store.dictionaries.count(KEYS), dtype=np.int32) if keep is None else keep
        known = among[old.store.current.array[among] != 0].astype(np.int32)
        for codes in np.array_split(known, range(_COMPACTED_AT_ONCE, len(known), _COMPACTED_AT_ONCE)):
            records = Records.of(old, codes)
            columns = {field.column.name: records.array(field) for field in self._layout.fields}
            results = {r.operation.output.name: records.column(r) for r in self._layout.results}
            first = new.append(columns, results, len(codes))
            new.publish(new.dictionaries.encode(KEYS, records.keys()), first)
        self._store, self._view = new, new.view()


def key_array(keys: Iterable[str] | pa.Array | pa.ChunkedArray) -> pa.StringArray:
    """Returns keys as an Arrow array.

    Raises:
        FeatureError: if they are no texts.
    """
    if isinstance(keys, pa.Array | pa.ChunkedArray):
        return to_array(_KEY, keys)
    try:
        return pa.array(keys, pa.string())
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise FeatureError(None, "the keys of items are no texts", str(error)) from None
