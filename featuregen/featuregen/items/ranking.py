"""A plan's features of one user with items that lie in the cache: the same bits as if the items had come along.

A run of the item kernels and one of the plan's rest. The first finds the items, copies their records, loads stored
outputs and computes coded operations; the numbers that it makes are columns of the rest like any other.
"""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from featuregen.arrays import missing, to_array
from featuregen.derivations import Derivations
from featuregen.engine import make_program
from featuregen.errors import FeatureError
from featuregen.items.computing import Computing
from featuregen.items.loading import Records, find
from featuregen.items.store import View
from featuregen.plan import Input
from featuregen.program.exports import Exports
from featuregen.program.program import Program
from featuregen.results import Column, Features
from featuregen.sources import FieldType
from featuregen.usercolumns import Behavior, User, UserColumns

_MADE_ELSEWHERE = ("coded.", "context.")
"""Columns of a candidate that do not come from its record."""


class CachedRanking:
    """Ranks items of a cache. Used by one thread at a time.

    Args:
        cache: the items of the plan.
        contents: of the files that the plan names.
        backend: runs the rest of the plan.
    """

    def __init__(self, cache: Any, contents: Mapping[str, bytes], backend: str) -> None:
        self.cache = cache
        self._division = division = cache.division
        self._rest = make_program(backend, division.rest, contents)
        self._derivations = Derivations(division.rest, contents)
        inputs = division.rest.inputs
        self._user = UserColumns([i for i in inputs if not i.of_candidate])
        self._own = inputs[len(self._user.columns) :]
        self._reads_records = any(not column.name.startswith(_MADE_ELSEWHERE) for column in self._own)
        self._at = {column.name: index for index, column in enumerate(division.rest.columns)}
        self._read = {column for o in division.rest.operations for column in o.read}
        self._read |= {column for d in division.rest.derivations for column in d.operation.read}
        self._counted = {coded.user[0] for coded in division.coded if coded.name == "count"}
        self._is_compiled = isinstance(self._rest, Program)
        self._exports = self._rest.exports if isinstance(self._rest, Program) else Exports(len(division.rest.columns))
        self._computing: Computing | None = None

    def rank(
        self,
        user: User,
        view: View,
        items: Any,
        context: Mapping[str, object],
        behavior: Behavior,
        now_ms: int,
        per_item: pa.RecordBatch | None,
    ) -> Features:
        """Computes the features; arguments and errors as those of `Engine.rank_cached`, items as `ItemCache.asked`."""
        computing = self._computing
        if computing is None or computing.store is not view.store:
            computing = self._computing = Computing(view.store, self._at)
        rows = computing.begin(view, items)
        arrays, batch = self._given_once(user, context, behavior, now_ms)
        event_codes = self._join(arrays, user, behavior, view)
        records = computing.records() if self._reads_records else None
        shared = len(arrays)
        for column in self._own:
            arrays.append(self._given(column, records, view, per_item, rows))
        kinds = [0] * shared + [int(column.of_candidate) for column in self._own]
        if self._division.rest.derivations:
            self._derivations.extend(arrays, kinds, rows, 1, {})
        self._exports.export(arrays, batch, self._user.columns_of_batch, self._user.places)
        try:
            made = computing.compute(self._exports.address, event_codes)
            for index, column in enumerate(self._own):
                if column.name in made:
                    arrays[shared + index] = made[column.name]
                    self._exports.add(shared + index, made[column.name])
            columns = self._run_rest(arrays, kinds, rows)
        except BaseException:
            self._exports.release()
            raise
        columns |= computing.columns()
        return Features(rows, {output.name: columns[output.name] for output in self._division.plan.outputs})

    def _given_once(
        self, user: User, context: Mapping[str, object], behavior: Behavior, now_ms: int
    ) -> tuple[list[pa.Array | None], pa.RecordBatch | None]:
        """Returns the user's columns; where only compiled code reads them, without those that a batch has, and it."""
        if self._is_compiled and not self._division.rest.derivations:
            return self._user.split(user, context, behavior, now_ms)
        return list(self._user.arrays(user, context, behavior, now_ms)), None

    def _run_rest(self, arrays: list[pa.Array | None], kinds: list[int], rows: int) -> dict[str, Column]:
        """Runs the rest of the plan, and releases what was exported."""
        if isinstance(self._rest, Program) and self._division.rest.operations:
            return self._rest.run_exported(arrays, kinds, rows, 1)
        self._exports.release()
        return self._rest.run(arrays, kinds, rows, 1) if self._division.rest.operations else {}

    def _given(
        self, column: Input, records: Records | None, view: View, per_item: pa.RecordBatch | None, rows: int
    ) -> pa.Array | None:
        """Returns a candidate's column that came with the request, or that the cache has; others are made later."""
        if column.name.startswith("coded."):
            return None
        if records is not None and not column.name.startswith(_MADE_ELSEWHERE):
            return records.array(view.store.field(column.name))
        names = per_item.schema.names if per_item is not None else []
        if per_item is None or column.name not in names:
            raise missing(column, names)
        if per_item.num_rows != rows:
            problem = f"per_item has {per_item.num_rows} rows, there are {rows} items"
            raise FeatureError(None, problem, "give one row for each item")
        return to_array(column, per_item.column(column.name))

    def _join(self, arrays: list[pa.Array | None], user: User, behavior: Behavior, view: View) -> dict[str, Any]:
        """Fills in what events do not say of their items; returns int32 codes of those that are counted by."""
        codes: dict[str, Any] = {}
        for log, attributes in self._division.joined.items():
            left_out = [a for a in attributes if not self._has(behavior, log, a)]
            keys = _event_items(user, behavior, log) if left_out else None
            if keys is None:
                continue
            records = Records.of(view, find(view, keys))
            for attribute in left_out:
                name, field = f"behavior.{log}.{attribute}", view.store.field(attributes[attribute])
                if name in self._read:
                    values = records.array(field)
                    arrays[self._at[name]] = pa.ListArray.from_arrays(pa.array([0, len(values)], pa.int32()), values)
                if name in self._counted:
                    codes[name] = records.codes_of(field)
        return codes

    def _has(self, behavior: Behavior, log: str, attribute: str) -> bool:
        return f"behavior.{log}.{attribute}" in self._user.in_batch or attribute in behavior.get(log, {})


def _event_items(user: User, behavior: Behavior, log: str) -> pa.StringArray | None:
    """Returns the keys of the events' items, None if there are none."""
    name = f"behavior.{log}.item"
    if isinstance(user, pa.RecordBatch) and name in user.schema.names:
        lists = to_array(Input(name, FieldType.STRING, is_list=True), user.column(name))
        return lists.flatten() if lists.is_valid()[0].as_py() else None
    items = behavior.get(log, {}).get("item")
    if items is None:
        return None
    try:
        return pa.array(items, pa.string())
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise FeatureError(None, f"'{name}' has a key that is no text", str(error)) from None
