"""Which source fields an fg.json reads, and their types: it names none, so they follow from the operators that read.

Every read says which types the operator takes, best first. A field's type is the first one that all its readers take.
Where they cannot agree the user must say, with `--field user.age=int`: a guess would be another feature.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from featuregen.errors import FeatureError
from featuregen.importer.fgjson import check_name
from featuregen.sources import BehaviorSource, ContextSource, FieldType, KeyedSource, Sources

T = FieldType
MANY_TEXTS = (T.STRING_LIST, T.STRING, T.INT_LIST, T.INT)
ONE_TEXT = (T.STRING, T.INT)
MANY_WHOLE = (T.INT_LIST, T.INT, T.STRING_LIST, T.STRING)
ONE_WHOLE = (T.INT, T.STRING)
NUMBER = (T.FLOAT,)
WHOLE_NUMBER = (T.INT, T.FLOAT)
NUMBERS = (T.FLOAT_LIST,)
WHOLE_NUMBERS = (T.INT_LIST, T.FLOAT_LIST)


@dataclass(frozen=True)
class _Read:
    feature: str
    types: tuple[FieldType, ...]


class Fields:
    """Collects what is read, then decides the types; `features` are (reader, name) of features read by others."""

    def __init__(
        self, user_key: str, item_key: str, given: Mapping[str, FieldType], behaviors: Collection[str]
    ) -> None:
        self._keys = {"user": user_key, "item": item_key}
        self._given = dict(given)
        self._reads: dict[str, list[_Read]] = {}
        self._events: dict[str, dict[str, list[_Read]]] = {name: {} for name in behaviors}
        self._lengths: dict[str, int] = {}
        self.features: list[tuple[str, str]] = []

    def given(self, ref: str) -> FieldType | None:
        """The type that the user has said."""
        return self._given.get(ref)

    def read(self, feature: str, expression: str, types: tuple[FieldType, ...]) -> str:
        """Notes that a feature reads `side:field` as one of some types; returns `side.field`."""
        side, name = split_expression(feature, expression)
        if side == "feature":
            self.features.append((feature, name))
        else:
            self._reads.setdefault(f"{side}.{name}", []).append(_Read(feature, types))
        return f"{side}.{name}"

    def read_event(self, feature: str, behavior: str, name: str, types: tuple[FieldType, ...]) -> str:
        """The same for a field of a behaviour's events; returns `event.<field>`."""
        self._events[behavior].setdefault(name, []).append(_Read(feature, types))
        return f"event.{name}"

    def behavior(self, name: str, length: int) -> None:
        """Notes that a behaviour's events are read, and how many of them."""
        self._lengths[name] = length

    def sources(self) -> tuple[Sources, list[FeatureError]]:
        """Returns the sources, and an error for each field whose readers do not agree."""
        errors: list[FeatureError] = []
        found: dict[str, dict[str, FieldType]] = {"user": {}, "item": {}, "context": {}}
        for ref in [*self._reads, *(ref for ref in self._given if ref not in self._reads)]:
            side, _, name = ref.partition(".")
            if side not in found:
                errors.append(FeatureError(None, f"--field {ref}: there is no source '{side}'", "write user.<field>"))
                continue
            try:
                found[side][name] = self._decide(ref, self._reads.get(ref, []))
            except FeatureError as error:
                errors.append(error)
        behaviors = {}
        for behavior, length in self._lengths.items():
            events = {}
            for name, reads in self._events[behavior].items():
                events[name] = _common(f"event.{name}", reads)
            behaviors[behavior] = BehaviorSource(fields=events, max_events=max(length, 1), max_age="87600h")
        context = ContextSource(fields=found["context"], per_item=list(found["context"]))
        keyed = {
            side: KeyedSource(key=key, fields={n: t for n, t in found[side].items() if n != key})
            for side, key in self._keys.items()
            if found[side] or (side == "item" and behaviors)
        }
        optional = {"context": context} if found["context"] else {}
        return Sources(**keyed, **optional, behavior=behaviors), errors

    def _decide(self, ref: str, reads: list[_Read]) -> FieldType:
        side, _, name = ref.partition(".")
        given = self._given.get(ref)
        if self._keys.get(side) == name:
            given = FieldType.STRING
        if given is None:
            return _common(ref, reads)
        wrong = next((read for read in reads if given not in read.types), None)
        if wrong is not None:
            what = f"the {side}'s key, a string," if self._keys.get(side) == name else f"given as {given.value}"
            raise FeatureError(
                wrong.feature, f"'{ref}' is {what} and read as {_names(wrong.types)}", _hint(wrong, given)
            )
        return given


def split_expression(feature: str, expression: str) -> tuple[str, str]:
    """Returns side and field of `side:field`; refuses what native sources do not have."""
    side, colon, name = expression.partition(":")
    if not colon or side not in ("user", "item", "context", "feature", "const"):
        raise FeatureError(feature, f"'{expression}' is no input", "write side:field with side user, item or context")
    if side == "const":
        raise FeatureError(feature, f"'{expression}' is a constant", "write it into an expression, or leave it out")
    check_name(feature, name)
    return side, name


def _common(ref: str, reads: list[_Read]) -> FieldType:
    first = reads[0]
    for kind in first.types:
        if all(kind in read.types for read in reads):
            return kind
    other = next((read for read in reads if not set(read.types) & set(first.types)), reads[-1])
    problem = f"'{ref}' is read as {_names(other.types)}, by '{first.feature}' as {_names(first.types)}"
    raise FeatureError(other.feature, problem, _hint(other, first.types[0]))


def _hint(read: _Read, kind: FieldType) -> str:
    numbers = {FieldType.FLOAT, FieldType.FLOAT_LIST}
    if (kind in numbers) != (read.types[0] in numbers):
        return "a float has no exact text: if its values are whole numbers give the raw_feature value_type int64"
    return "one field has one type: send the values in two fields"


def _names(types: tuple[FieldType, ...]) -> str:
    return " or ".join(kind.value for kind in types)
