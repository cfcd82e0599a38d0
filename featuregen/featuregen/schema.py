"""The flat Arrow schema of samples: derived from the plan, so producer and trainer cannot disagree about types."""

from collections.abc import Sequence

import pyarrow as pa

from featuregen.plan import Input, Plan
from featuregen.sources import FieldType

_FLOATS, _TEXTS = pa.list_(pa.float64()), pa.list_(pa.string())
_ARROW: dict[FieldType, pa.DataType] = {
    FieldType.STRING: pa.string(),
    FieldType.INT: pa.int64(),
    FieldType.FLOAT: pa.float64(),
    FieldType.STRING_LIST: _TEXTS,
    FieldType.INT_LIST: pa.list_(pa.int64()),
    FieldType.FLOAT_LIST: _FLOATS,
    FieldType.STRING_LISTS: pa.list_(_TEXTS),
    FieldType.FLOAT_LISTS: pa.list_(_FLOATS),
    FieldType.STRING_FLOAT_MAP: pa.map_(pa.string(), pa.float64()),
    FieldType.STRING_STRING_MAP: pa.map_(pa.string(), pa.string()),
    FieldType.STRING_FLOATS_MAP: pa.map_(pa.string(), _FLOATS),
    FieldType.NESTED_FLOAT_MAP: pa.map_(pa.string(), pa.map_(pa.string(), pa.float64())),
    FieldType.NESTED_STRING_MAP: pa.map_(pa.string(), pa.map_(pa.string(), pa.string())),
}


def arrow_type(column: Input) -> pa.DataType:
    """Returns the Arrow type of an input column of a sample."""
    return pa.list_(_ARROW[column.type]) if column.is_list else _ARROW[column.type]


def sample_schema(plan: Plan, labels: Sequence[str] = ()) -> pa.Schema:
    """Returns the schema of one sample a row: the plan's inputs, `now` (int64 ms) and `label.<name>` (float32)."""
    fields = [pa.field(column.name, arrow_type(column)) for column in plan.inputs]
    return pa.schema(fields + [pa.field(f"label.{name}", pa.float32()) for name in labels])
