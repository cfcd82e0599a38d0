"""The user's side of a request as arrays of one row: from Python values, or from an Arrow batch without conversion."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa

from featuregen.arrays import from_values, to_array
from featuregen.errors import FeatureError
from featuregen.plan import Input
from featuregen.schema import arrow_type

User: TypeAlias = Mapping[str, object] | pa.RecordBatch
Behavior: TypeAlias = Mapping[str, Mapping[str, Sequence[object]]]


class UserColumns:
    """The inputs of a plan that one request has once.

    Args:
        columns: inputs of user, context and behaviour, and `now`.

    Attributes:
        columns_of_batch, places: numbers of the columns that the last batch had, and where it had them.
        in_batch: names of the columns that the last user had as a batch.
    """

    def __init__(self, columns: Sequence[Input]) -> None:
        self.columns = tuple(columns)
        self._type = pa.struct([pa.field(column.name, arrow_type(column)) for column in columns])
        self._schema: pa.Schema | None = None
        self.columns_of_batch, self.places = np.zeros((2, 0), np.int64)
        self.in_batch: frozenset[str] = frozenset()
        self._names: frozenset[str] = frozenset()
        self._absent: list[int] = []
        self._exact = True

    def arrays(self, user: User, context: Mapping[str, object], behavior: Behavior, now_ms: int) -> list[pa.Array]:
        """Returns an array of one row for each column.

        Args:
            user: field -> value; or one row of flat columns (`user.<field>`, and as many of `context.<field>` and
                `behavior.<name>.<attribute>` as it has).
            context: field -> value, of what the batch does not have.
            behavior: behaviour name -> its parallel lists, of what the batch does not have.
            now_ms: time of the request.

        Raises:
            FeatureError: naming the column or value that has a wrong type.
        """
        arrays, batch = self.split(user, context, behavior, now_ms)
        if batch is not None:
            for at, index in zip(self.columns_of_batch.tolist(), self.places.tolist(), strict=True):
                arrays[at] = batch.column(index)
        return arrays

    def split(
        self, user: User, context: Mapping[str, object], behavior: Behavior, now_ms: int
    ) -> tuple[list[pa.Array | None], pa.RecordBatch | None]:
        """Returns what `arrays` does, without the columns that a batch has in the very types, and that batch.

        They are None; `columns_of_batch` and `places` say where the batch has which of them.
        """
        if not isinstance(user, pa.RecordBatch):
            values = {column.name: _value(column, user, context, behavior, now_ms) for column in self.columns}
            self.in_batch = frozenset()
            return from_values(self.columns, self._type, values), None
        if user.num_rows != 1:
            raise FeatureError(None, f"the user is a batch of {user.num_rows} rows", "a request has one user")
        if self._schema is None or not user.schema.equals(self._schema):
            self._read_schema(user)
        self.in_batch = self._names
        arrays: list[pa.Array | None] = [None] * len(self.columns)
        if not self._exact:
            for at, index in zip(self.columns_of_batch.tolist(), self.places.tolist(), strict=True):
                arrays[at] = to_array(self.columns[at], user.column(index))
        for at in self._absent:
            column = self.columns[at]
            arrays[at] = pa.array([_value(column, {}, context, behavior, now_ms)], self._type.field(at).type)
        return arrays, user if self._exact else None

    def _read_schema(self, user: pa.RecordBatch) -> None:
        """Remembers where a batch has the columns: requests come with the same schema."""
        indexes = {name: index for index, name in enumerate(user.schema.names)}
        places = [(at, indexes[c.name]) for at, c in enumerate(self.columns) if c.name in indexes]
        self.columns_of_batch, self.places = np.array(places, np.int64).reshape(-1, 2).T
        self._names = frozenset(self.columns[at].name for at, _ in places)
        self._absent = [at for at, c in enumerate(self.columns) if c.name not in indexes]
        self._exact = all(user.schema.types[i].equals(self._type.field(at).type) for at, i in places)
        self._schema = user.schema


def _value(column: Input, user: Any, context: Mapping[str, object], behavior: Behavior, now_ms: int) -> object:
    source, _, name = column.name.partition(".")
    if source == "now":
        return int(now_ms)
    if source == "behavior":
        log, _, attribute = name.partition(".")
        return behavior.get(log, {}).get(attribute)
    return (user if source == "user" else context).get(name)
