"""A plan divided by what an item cache makes of it: what an item alone decides, what codes decide, and the rest.

Everything here is a function of the plan. The parts are plans again, so that one engine runs all of them: an output is
computed by the same code whether its item came with the request or lies in the cache.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from featuregen.compiler.inputs import EVENT
from featuregen.errors import FeatureError
from featuregen.plan import Input, Operation, Plan
from featuregen.sources import FieldType, Sources

CodedName = Literal["combo", "lookup", "match", "overlap", "count"]
_ENTRY = frozenset(EVENT)
_TEXTS = (FieldType.STRING, FieldType.STRING_LIST)
_SCALARS = (FieldType.STRING, FieldType.INT)
_SHARES = ("query_common_ratio", "title_common_ratio")


@dataclass(frozen=True)
class Coded:
    """A cross operation that is computed from codes of the item's texts.

    Attributes:
        operation: as the plan has it.
        name: which kernel.
        user: columns of the user's side that it reads.
        item: stored columns that it reads.
        column: the column of numbers that it makes, of which the rest of the plan makes the output; "" if it makes the
            output itself: ids, or numbers that need no more than a default.
    """

    operation: Operation
    name: CodedName
    user: tuple[str, ...]
    item: tuple[str, ...]
    column: str = ""


@dataclass(frozen=True)
class Division:
    """The parts of a plan.

    Attributes:
        plan: the whole.
        key: the item's key column.
        item: a plan of the item side: all derivations, and the outputs that are computed once for each item.
        listed: item-side ids of lists of texts; they are kept by code, one id for each distinct text.
        stored: columns that are kept of an item because something outside of `item` reads them.
        coded: cross operations that run on codes.
        rest: a plan of everything else; it reads columns that `coded` operations make, and stored ones as they came.
        joined: behaviour -> attribute of its events' items -> stored column.
    """

    plan: Plan
    key: str
    item: Plan
    listed: tuple[Operation, ...]
    stored: tuple[Input, ...]
    coded: tuple[Coded, ...]
    rest: Plan
    joined: Mapping[str, Mapping[str, str]]


def divide(plan: Plan, sources: Sources, keep_inputs: bool = False) -> Division:
    """Divides a plan.

    Args:
        plan: the plan.
        sources: the sources that it was compiled from: they say what is the item's key, and what is an event's own.
        keep_inputs: stores every field that the plan reads of an item, so that it can be given back.

    Raises:
        FeatureError: if there are no items.
    """
    if sources.item is None:
        raise FeatureError(None, "there are no items to keep", "the spec's sources have no 'item'")
    return _Divider(plan, sources, f"item.{sources.item.key}").division(keep_inputs)


class _Divider:
    def __init__(self, plan: Plan, sources: Sources, key: str) -> None:
        self._plan, self._sources, self._key = plan, sources, key
        self._types = {column.name: column for column in plan.columns}
        item_side = {d.column.name for d in plan.derivations if d.side == "item"}
        self._of_item = {c.name for c in plan.columns if c.name.startswith("item.") or c.name in item_side}
        self._of_user = {c.name for c in plan.inputs if not c.of_candidate}
        self._of_user |= {d.column.name for d in plan.derivations if d.side == "user"}
        self._stored: dict[str, Input] = {}
        self._coded: list[Coded] = []
        self._joined = self._join()

    def division(self, keep_inputs: bool) -> Division:
        plan = self._plan
        item = [o for o in plan.operations if o.output.side == "item"]
        listed = tuple(o for o in item if self._is_listed(o))
        rest = tuple(self._rest_of(o) for o in plan.operations if o.output.side != "item")
        kept = tuple(o for o in rest if o is not None)
        derivations = tuple(d for d in plan.derivations if d.side != "item")
        for operation in (*kept, *(d.operation for d in derivations)):
            for column in operation.read:
                if column in self._of_item:
                    self._store(column)
        for operation in listed:
            self._store(operation.columns[0])
        for columns in self._joined.values():
            for column in columns.values():
                self._store(column)
        if keep_inputs:
            for given in plan.inputs:
                if given.name.startswith("item."):
                    self._store(given.name)
        shared = tuple(i for i in plan.inputs if not i.of_candidate)
        read = {column for o in (*kept, *(d.operation for d in derivations)) for column in o.read}
        own = tuple(c for c in self._candidates() if c.name in read)
        return Division(
            plan,
            self._key,
            self._item_plan(tuple(o for o in item if o not in listed)),
            listed,
            tuple(self._stored.values()),
            tuple(self._coded),
            Plan(plan.hash, kept, shared + own, plan.behaviors, derivations),
            self._joined,
        )

    def _item_plan(self, operations: tuple[Operation, ...]) -> Plan:
        inputs = {i.name: i for i in self._plan.inputs if i.name.startswith("item.")}
        inputs |= {name: column for name, column in self._stored.items() if name.startswith("item.")}
        inputs.setdefault(self._key, Input(self._key, FieldType.STRING))
        derivations = tuple(d for d in self._plan.derivations if d.side == "item")
        return Plan(self._plan.hash, operations, tuple(inputs.values()), {}, derivations)

    def _candidates(self) -> list[Input]:
        """Returns every column that the rest may read of a candidate."""
        given = [i for i in self._plan.inputs if i.per_item]
        stored = [replace(column, per_item=True) for column in self._stored.values()]
        made = [Input(coded.column, FieldType.FLOAT, per_item=True) for coded in self._coded if coded.column]
        return [*given, *stored, *made]

    def _join(self) -> dict[str, dict[str, str]]:
        """Returns what each behaviour's events have of their items."""
        joined: dict[str, dict[str, str]] = {}
        for column in self._plan.inputs:
            if not column.name.startswith("behavior."):
                continue
            _, log, attribute = column.name.split(".", 2)
            if attribute not in _ENTRY and attribute not in self._sources.behavior[log].fields:
                joined.setdefault(log, {})[attribute] = f"item.{attribute}"
                self._types.setdefault(f"item.{attribute}", Input(f"item.{attribute}", column.type))
        return joined

    def _store(self, column: str) -> str:
        self._stored.setdefault(column, self._types.get(column, Input(column, FieldType.STRING)))
        return column

    def _is_listed(self, operation: Operation) -> bool:
        return operation.op == "id" and self._types[operation.columns[0]].type is FieldType.STRING_LIST

    def _rest_of(self, operation: Operation) -> Operation | None:
        """Returns what the rest of the plan does for an output that is not the item's; None: nothing."""
        if operation.output.side != "cross":
            return operation
        coded = self._coded_form(operation)
        if coded is not None:
            self._coded.append(coded)
            for column in coded.item:
                self._store(column)
            if not coded.column:
                return None
            return replace(
                operation, op="raw", columns=(coded.column,), dim=1, combiner="", method="", value_map=(), show=()
            )
        return operation

    def _coded_form(self, operation: Operation) -> Coded | None:
        if operation.op == "combo":
            return self._combo(operation)
        if operation.op in ("lookup", "match"):
            return self._of_map(operation)
        if operation.op == "window" and operation.columns and operation.method == "count":
            return self._count(operation)
        if operation.op == "overlap" and operation.method in _SHARES:
            user = tuple(c for c in operation.columns if c in self._of_user)
            item = tuple(c for c in operation.columns if self._is_text(c, _TEXTS))
            if len(user) == 1 and len(item) == 1 and self._types[user[0]].type in _TEXTS:
                return self._number(operation, "overlap", user, item)
        return None

    def _combo(self, operation: Operation) -> Coded | None:
        """One text of the item and single values of the user: one id for each distinct text."""
        user = tuple(c for c in operation.columns if c in self._of_user and self._types[c].type in _SCALARS)
        item = tuple(c for c in operation.columns if self._is_text(c, (FieldType.STRING,)))
        if len(item) != 1 or len(user) + 1 != len(operation.columns):
            return None
        return Coded(operation, "combo", user, item)

    def _of_map(self, operation: Operation) -> Coded | None:
        """A user's map of numbers under texts of the item."""
        table, *keys = operation.columns
        numbers = self._types[table].type in (FieldType.STRING_FLOAT_MAP, FieldType.NESTED_FLOAT_MAP)
        if not numbers or table not in self._of_user or operation.combiner == "none":
            return None
        if not all(self._is_text(key, _TEXTS) for key in keys):
            return None
        return self._number(operation, "lookup" if operation.op == "lookup" else "match", (table,), tuple(keys))

    def _count(self, operation: Operation) -> Coded | None:
        """Events whose text is the item's."""
        event, candidate = operation.columns
        if not self._is_text(candidate, (FieldType.STRING,)):
            return None
        log = f"behavior.{operation.behavior}"
        actions = (f"{log}.action",) if operation.actions else ()
        return Coded(operation, "count", (event, f"{log}.ts", "now", *actions), (candidate,))

    def _number(self, operation: Operation, name: CodedName, user: tuple[str, ...], item: tuple[str, ...]) -> Coded:
        plain = operation.output.kind == "dense" and operation.rescale is None
        return Coded(operation, name, user, item, "" if plain else f"coded.{operation.output.name}")

    def _is_text(self, column: str, kinds: tuple[FieldType, ...]) -> bool:
        return column in self._of_item and self._types[column].type in kinds
