"""What is kept of one item, byte by byte: a record of fixed size, and spans of it in pools.

A record has, of every stored column, the code of a text, the number itself, or where its elements begin; and of every
output that an item alone decides, its numbers or its id. The eight-byte fields come first, so that all are aligned.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from featuregen.items.division import Division
from featuregen.plan import Input, Operation
from featuregen.sources import FieldType

Kind = Literal["key", "text", "texts", "number", "arrow"]
ResultKind = Literal["dense", "id", "ids"]
_KINDS: dict[FieldType, Kind] = {
    FieldType.STRING: "text",
    FieldType.STRING_LIST: "texts",
    FieldType.INT: "number",
    FieldType.FLOAT: "number",
}
PREVIOUS = 0
"""Where a record says which slot the item's record before it is in; 0: none."""
FLAGS = 4
"""Where a record has 32 flags, one for each number that is missing."""
_HEADER = 8


@dataclass(frozen=True)
class Field:
    """A stored column.

    Attributes:
        column: name and type.
        kind: `key` is the item's key, which its code in the cache says already; `text` has a code of four bytes,
            `texts` a span of codes, `number` eight bytes, `arrow` nothing: the value stays in an Arrow array.
        at: byte of the record; -1 if there is none.
        flag: number of its flag, of `number`.
    """

    column: Input
    kind: Kind
    at: int
    flag: int = 0


@dataclass(frozen=True)
class Result:
    """A stored output of an operation.

    Attributes:
        operation: the operation.
        kind: `dense` has `width` float32; `id` one id or -1; `ids` a span of ids.
        at: byte of the record.
        size: bytes of an id.
    """

    operation: Operation
    kind: ResultKind
    at: int
    size: int = 0


@dataclass(frozen=True)
class Layout:
    """All fields of a record, and its size in bytes (a multiple of 8).

    Fields before byte `whole` are made of words of eight bytes, the others of words of four.
    """

    fields: tuple[Field, ...]
    results: tuple[Result, ...]
    size: int
    whole: int

    def word(self, at: int) -> int:
        """Returns the bytes of a word of the field at a byte of the record."""
        return 8 if at < self.whole else 4


def lay_out(division: Division) -> Layout:
    """Places every stored column and output of a plan in a record."""
    places = _Places()
    kinds = [_kind(division, column) for column in division.stored]
    numbers = [c.name for c, kind in zip(division.stored, kinds, strict=True) if kind == "number"][:32]
    results = [(o, _result_kind(division, o)) for o in division.item.operations]
    for column, kind in zip(division.stored, kinds, strict=True):
        if kind == "number" and column.name not in numbers:
            kinds[division.stored.index(column)] = "arrow"  # there is no flag left for it
    sizes = [_field_size(kind) for kind in kinds]
    id_sizes = [4 if o.output.buckets <= 2**31 else 8 for o, _ in results]
    result_sizes = [
        {"dense": 4 * o.output.width, "id": size, "ids": 8}[kind]
        for (o, kind), size in zip(results, id_sizes, strict=True)
    ]
    at = places.of([*sizes, *result_sizes])
    fields = [
        Field(column, kind, at[i], numbers.index(column.name) if kind == "number" else 0)
        for i, (column, kind) in enumerate(zip(division.stored, kinds, strict=True))
    ]
    made = [
        Result(o, kind, at[len(fields) + i], id_sizes[i] if kind == "id" else 8) for i, (o, kind) in enumerate(results)
    ]
    return Layout(tuple(fields), tuple(made), places.size, places.whole)


class _Places:
    """Byte positions: what needs eight bytes before what needs four."""

    size, whole = _HEADER, _HEADER

    def of(self, sizes: Sequence[int]) -> list[int]:
        at = [-1] * len(sizes)
        for whole in (True, False):
            for index, size in enumerate(sizes):
                if size and (size % 8 == 0) == whole:
                    at[index] = self.size
                    self.size += size
            self.whole = self.size if whole else self.whole
        self.size = (self.size + 7) & ~7
        return at


def _kind(division: Division, column: Input) -> Kind:
    return "key" if column.name == division.key else _KINDS.get(column.type, "arrow")


def _field_size(kind: Kind) -> int:
    return {"key": 0, "text": 4, "texts": 8, "number": 8, "arrow": 0}[kind]


def _result_kind(division: Division, operation: Operation) -> ResultKind:
    """An output has one id at most if it is made of one text, or of one number."""
    if operation.output.kind == "dense":
        return "dense"
    types = {column.name: column.type for column in division.item.columns}
    if operation.op in ("id", "combo"):
        single = all(types[column] in (FieldType.STRING, FieldType.INT) for column in operation.columns)
    else:
        of_numbers = operation.boundaries is not None or operation.op == "combine"
        single = of_numbers and operation.dim == 1 and operation.combiner != "none"
    return "id" if single else "ids"
