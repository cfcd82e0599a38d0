"""Completes a request: what the caller left out of user, behaviour and items comes from the feature store.

Two round trips at most: the user with all behaviours, then the items that the cache does not have (candidates and the
behaviours' items together). A store that does not answer makes fields missing, never an error; what was not found is
named in the answer.
"""

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pyarrow as pa

from featuregen.itemcache import Items
from featuregen.plan import Input, Plan
from featuregen.schema import arrow_type
from featuregen.sources import FieldType
from featuregen.usercolumns import UserColumns
from kuberec_runtime.publish.errors import TierError
from kuberec_runtime.publish.featurestore import FeatureStore
from kuberec_runtime.serve.breaker import Breaker
from kuberec_runtime.serve.complete import Complete
from kuberec_runtime.serve.errors import BadInput
from kuberec_runtime.serve.items import ItemReader
from kuberec_runtime.serve.request import RankRequest, Sides
from kuberec_runtime.serve.values import fitting

_EVENT = ("item", "action", "ts")
_NO_KEYS = pa.array([], pa.string())


class Gatherer:
    """Completes requests for one plan. Safe for threads.

    Args:
        plan: the plan.
        sides: what the model's sources allow.
        store: where users and behaviour are read; None means that nobody is known.
        items: where items are read; None if the model has none.
        breaker: shared with all that reads the same Redis.
    """

    def __init__(
        self, plan: Plan, sides: Sides, store: FeatureStore | None, items: ItemReader | None, breaker: Breaker
    ) -> None:
        self._plan, self._sides, self._store, self._items, self._breaker = plan, sides, store, items, breaker
        self._behaviors = {name: behavior.max_events for name, behavior in plan.behaviors.items()}
        self._user_fields = {i.name.removeprefix("user.") for i in plan.inputs if i.name.startswith("user.")} - {
            sides.user_key
        }
        self._columns = [i for i in plan.inputs if i.of_candidate]
        self._own = {name: {f: sides.event_fields[name][f] for f in sides.required[name]} for name in self._behaviors}
        self._joined = [i.name for i in plan.inputs if _is_of_item(i, sides)]
        self._forms: dict[tuple[str, ...], tuple[UserColumns, pa.Schema]] = {}

    def complete(self, request: RankRequest) -> Complete:
        """Returns the request with everything that the plan reads.

        Raises:
            BadInput: if something is left out and there is no key to find it by.
            FeatureError: a value of the user has another type than the model declares.
        """
        user, behavior, unknown_user = self._user(request)
        keys, in_cache = self._candidates(request)
        now_ms = int(time.time() * 1000) if request.now_ms is None else request.now_ms
        left_out = tuple(name for name in self._joined if not _has(behavior, name))
        shared = self._shared(left_out, user, request.context, behavior, now_ms)
        of_logs = {name.split(".")[1]: _NO_KEYS for name in left_out}
        for log in of_logs:
            of_logs[log] = shared.column(f"behavior.{log}.item").flatten()
        count = len(keys)
        items: Items | None = None
        of_event: dict[str, Items] = {}
        unknown: list[str] = []
        if self._items is not None and (count or of_logs):
            found, missed = self._items.lookup(pa.concat_arrays([keys, *of_logs.values()]))
            items = Items(found.view, found.codes[:count]) if count else None
            unknown = keys.filter(pa.array(missed[:count])).unique().to_pylist()
            at = count
            for log, of_log in of_logs.items():
                of_event[log] = Items(found.view, found.codes[at : at + len(of_log)])
                at += len(of_log)
        return Complete(
            self._plan,
            request.count,
            shared,
            self._given(request),
            None if self._items is None else self._items.cache,
            items,
            in_cache and items is not None,
            {name: of_event[name.split(".")[1]] for name in left_out},
            now_ms,
            user.get(self._sides.user_key) if self._sides.user_key else None,
            unknown_user,
            unknown,
        )

    def synthetic(self, count: int) -> list[Complete]:
        """Requests of `count` candidates of which nothing is known, to warm each path."""
        behavior: dict[str, dict[str, list[Any]]] = {name: {own: [] for own in self._own[name]} for name in self._own}
        whole = {name: dict(lists) for name, lists in behavior.items()}
        for name in self._joined:
            _, log, attribute = name.split(".", 2)
            whole[log][attribute] = []
        given = {i.name: pa.nulls(count, arrow_type(i)) for i in self._columns}
        plain = Complete(self._plan, count, self._shared((), {}, {}, whole, 0), given, None, None, False, {}, 0)
        if self._items is None:
            return [plain]
        shared = self._shared(tuple(self._joined), {}, {}, behavior, 0)
        nobody, cache = self._items.find([""] * count), self._items.cache
        events = dict.fromkeys(self._joined, self._items.find([]))
        of_request = {name: array for name, array in given.items() if not name.startswith("item.")}
        cached = replace(plain, shared=shared, given=of_request, cache=cache, items=nobody, events=events)
        return [plain, replace(cached, ranked_in_cache=True)]

    def _shared(
        self,
        left_out: tuple[str, ...],
        user: Mapping[str, Any],
        context: Mapping[str, Any],
        behavior: Mapping[str, Mapping[str, list[Any]]],
        now_ms: int,
    ) -> pa.RecordBatch:
        """One row of all that a request has once, but for what is joined from the events' items."""
        form = self._forms.get(left_out)
        if form is None:
            columns = {c.name: c for c in self._plan.inputs if not c.of_candidate and c.name not in left_out}
            for name in left_out:
                of_log = f"behavior.{name.split('.')[1]}.item"
                columns[of_log] = Input(of_log, FieldType.STRING, is_list=True)
            schema = pa.schema([pa.field(name, arrow_type(column)) for name, column in columns.items()])
            form = self._forms[left_out] = UserColumns(list(columns.values())), schema
        columns_, schema = form
        return pa.RecordBatch.from_arrays(columns_.arrays(user, context, behavior, now_ms), schema=schema)

    def _given(self, request: RankRequest) -> dict[str, pa.Array]:
        """The candidates' columns that came with the request; one context for all is repeated."""
        given = {}
        for needed in self._columns:
            column = request.columns.get(needed.name)
            if column is None and not needed.name.startswith("item."):
                value = request.context.get(needed.name.partition(".")[2])
                column = pa.array([value] * request.count, arrow_type(needed))
            if column is not None:
                given[needed.name] = column
        return given

    def _user(self, request: RankRequest) -> tuple[dict[str, Any], dict[str, dict[str, list[Any]]], str | None]:
        given = request.behavior or {}
        behaviors = {} if request.behavior is not None else self._behaviors
        behavior = {name: given.get(name) or {own: [] for own in self._own[name]} for name in self._behaviors}
        fields_left_out = not self._user_fields <= request.user.keys()
        if not fields_left_out and not behaviors:
            return request.user, behavior, None
        key_field = self._sides.user_key
        key = request.user.get(key_field) if key_field else None
        if key is None:
            if key_field is None:
                return request.user, behavior, None
            missing = sorted(self._user_fields - request.user.keys()) or sorted(behaviors)
            raise BadInput(f"user.{key_field}", f"the user's key, since '{missing[0]}' is left out", "nothing")
        stored, read = self._snapshot(key, behaviors, fields_left_out)
        behavior |= {name: self._of_store(name, lists) for name, lists in read.items()}
        unknown = key if fields_left_out and stored is None else None
        return {**(stored or {}), **request.user}, behavior, unknown

    def _snapshot(
        self, key: str, behaviors: dict[str, int], with_user: bool
    ) -> tuple[dict[str, Any] | None, dict[str, dict[str, list[Any]]]]:
        if self._store is None or not self._breaker.allows():
            return None, {}
        try:
            found = self._store.snapshot(key, behaviors, with_user)
        except TierError:
            self._breaker.failed()
            return None, {}
        self._breaker.succeeded()
        return found

    def _candidates(self, request: RankRequest) -> tuple[pa.StringArray, bool]:
        """The keys of candidates that must be looked up (none if they came whole), and whether all fields are."""
        names = [i.name for i in self._columns if i.name.startswith("item.")]
        absent = [name for name in names if name not in request.columns]
        key = f"item.{self._sides.item_key}"
        if not absent:
            return _NO_KEYS, False
        if request.keys is None:
            raise BadInput(key, f"the candidates' keys, since '{absent[0]}' is left out", "nothing")
        keys = request.columns.get(key)
        if keys is None:
            keys = pa.array(request.keys, pa.string())
        return keys, all(name == key or name not in request.columns for name in names)

    def _of_store(self, name: str, lists: dict[str, list[Any]]) -> dict[str, list[Any]]:
        """The fields that events bring themselves; what was not written, or with another type, is missing."""
        out = {event: lists[event] for event in _EVENT}
        for own, kind in self._own[name].items():
            if own not in out:
                out[own] = fitting(lists[own], kind) if own in lists else [None] * len(lists["item"])
        return out


def _is_of_item(column: Input, sides: Sides) -> bool:
    """Says whether a column is a field of the items of a behaviour's events."""
    if not column.name.startswith("behavior."):
        return False
    _, log, attribute = column.name.split(".", 2)
    return attribute not in _EVENT and attribute not in sides.sources.behavior[log].fields


def _has(behavior: Mapping[str, Mapping[str, list[Any]]], column: str) -> bool:
    _, log, attribute = column.split(".", 2)
    return attribute in behavior[log]
