"""Completes a request: what the caller left out of user, behaviour and items comes from the feature store.

Two round trips at most: the user with all behaviours, then the items (candidates and the behaviours' items together).
A store that does not answer makes fields missing, never an error; what was not found is named in the answer.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from featuregen.plan import Plan
from featuregen.schema import arrow_type
from featuregen.sources import FieldType
from kuberec_runtime.publish.errors import TierError
from kuberec_runtime.publish.featurestore import FeatureStore
from kuberec_runtime.serve.breaker import Breaker
from kuberec_runtime.serve.errors import BadInput
from kuberec_runtime.serve.items import ItemCache
from kuberec_runtime.serve.request import RankRequest, Sides
from kuberec_runtime.serve.values import fitting, stored

_EVENT = ("item", "action", "ts")


@dataclass(frozen=True)
class Complete:
    """Everything that the plan reads of a request, in the form of `Engine.rank`."""

    user: dict[str, Any]
    items: pa.RecordBatch
    context: dict[str, Any]
    behavior: dict[str, dict[str, list[Any]]]
    now_ms: int
    unknown_user: str | None = None
    unknown_items: list[str] = field(default_factory=list)


class Gatherer:
    """Completes requests for one plan. Safe for threads."""

    def __init__(
        self, plan: Plan, sides: Sides, store: FeatureStore | None, items: ItemCache, breaker: Breaker
    ) -> None:
        self._sides, self._store, self._items, self._breaker = sides, store, items, breaker
        self._behaviors = {name: behavior.max_events for name, behavior in plan.behaviors.items()}
        self._user_fields = {i.name.removeprefix("user.") for i in plan.inputs if i.name.startswith("user.")} - {
            sides.user_key
        }
        self._columns = [i for i in plan.inputs if i.of_candidate]
        self._own = {name: {f: sides.event_fields[name][f] for f in sides.required[name]} for name in self._behaviors}
        self._joined: dict[str, dict[str, FieldType]] = {name: {} for name in self._behaviors}
        for name, attribute, kind in _of_items(plan, sides):
            self._joined[name][attribute] = kind

    @staticmethod
    def item_fields(plan: Plan, sides: Sides) -> list[str]:
        """Names of the item fields that a plan reads, of candidates or of events, without the key."""
        names: dict[str, None] = {}
        for column_ in plan.inputs:
            source, _, rest = column_.name.partition(".")
            if source == "item":
                names[rest] = None
        names |= dict.fromkeys(attribute for _, attribute, _ in _of_items(plan, sides))
        names.pop(sides.item_key or "", None)
        return list(names)

    def complete(self, request: RankRequest) -> Complete:
        """Returns the request with everything that the plan reads.

        Raises:
            BadInput: if something is left out and there is no key to find it by.
        """
        user, behavior, unknown_user = self._user(request)
        keys, absent = self._candidates(request)
        events = [item for name in behavior for item in behavior[name]["item"] if item is not None]
        joins = any(
            attribute not in behavior[name] for name, attributes in self._joined.items() for attribute in attributes
        )
        wanted = [*(keys if absent else []), *(events if joins else [])]
        values, unknown = self._items.lookup(wanted) if wanted else ([], [])
        at = len(keys) if absent else 0
        if joins:
            of_event = dict(zip(events, values[at:], strict=True))
            behavior = {name: self._join(name, lists, of_event) for name, lists in behavior.items()}
        candidates = set(keys)
        return Complete(
            user,
            self._batch(request, values[:at]),
            request.context,
            behavior,
            int(time.time() * 1000) if request.now_ms is None else request.now_ms,
            unknown_user,
            [key for key in unknown if key in candidates],
        )

    def synthetic(self, count: int) -> Complete:
        """A request of `count` candidates of which nothing is known, to warm the path."""
        empty = RankRequest({}, [""] * count, {}, {}, {}, 0, count)
        nothing: list[tuple[Any, ...]] = [(None,) * len(self._items.fields)] * count
        columns = {i.name: pa.nulls(count, arrow_type(i)) for i in self._columns}
        batch = self._batch(replace(empty, columns=columns), nothing)
        behavior: dict[str, dict[str, list[Any]]] = {}
        for name, attributes in self._joined.items():
            behavior[name] = {attribute: [] for attribute in (*self._own[name], *attributes)}
        return Complete({}, batch, {}, behavior, 0)

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

    def _candidates(self, request: RankRequest) -> tuple[list[str], bool]:
        """The candidates' keys, and whether fields of theirs must be looked up."""
        absent = [i.name for i in self._columns if i.name not in request.columns and i.name.startswith("item.")]
        if not absent:
            return request.keys or [], False
        if request.keys is None:
            raise BadInput(
                f"item.{self._sides.item_key}", f"the candidates' keys, since '{absent[0]}' is left out", "nothing"
            )
        return request.keys, True

    def _batch(self, request: RankRequest, values: list[tuple[Any, ...]]) -> pa.RecordBatch:
        arrays = []
        fields = dict(zip(self._items.fields, zip(*values, strict=True), strict=True)) if values else {}
        for needed in self._columns:
            given = request.columns.get(needed.name)
            source, _, name = needed.name.partition(".")
            if given is not None:
                arrays.append(given)
            elif source == "item":
                arrays.append(stored(fields.get(name, ()), needed.type))
            else:
                arrays.append(pa.array([request.context.get(name)] * request.count, arrow_type(needed)))
        if not arrays:
            return pa.record_batch([pa.nulls(request.count)], ["count"])
        return pa.record_batch(arrays, [i.name for i in self._columns])

    def _join(
        self, name: str, lists: dict[str, list[Any]], of_event: dict[str, tuple[Any, ...]]
    ) -> dict[str, list[Any]]:
        out = dict(lists)
        nothing = (None,) * len(self._items.fields)
        for attribute, kind in self._joined[name].items():
            if attribute not in lists:
                index = self._items.fields.index(attribute)
                out[attribute] = fitting([of_event.get(item, nothing)[index] for item in lists["item"]], kind)
        return out

    def _of_store(self, name: str, lists: dict[str, list[Any]]) -> dict[str, list[Any]]:
        """The fields that events bring themselves; what was not written, or with another type, is missing."""
        out = {event: lists[event] for event in _EVENT}
        for own, kind in self._own[name].items():
            if own not in out:
                out[own] = fitting(lists[own], kind) if own in lists else [None] * len(lists["item"])
        return out


def _of_items(plan: Plan, sides: Sides) -> Iterator[tuple[str, str, FieldType]]:
    """Behaviour, name and type of each item field that is read through a behaviour."""
    for input_ in plan.inputs:
        if input_.name.startswith("behavior."):
            _, name, attribute = input_.name.split(".", 2)
            if attribute not in _EVENT and attribute not in sides.sources.behavior[name].fields:
                yield name, attribute, input_.type
