"""Arrow arrays to rows of the kernels' column table: addresses and offsets, and nothing is copied."""

import numpy as np
import pyarrow as pa

from featuregen.layout import KIND_FLOAT, KIND_INT, KIND_TEXT
from featuregen.plan import Input
from featuregen.schema import arrow_type


def element_count(array: pa.Array) -> int:
    """Returns the number of elements of a list or map array's rows; of rows if it is plain."""
    if not pa.types.is_nested(array.type):
        return len(array)
    if len(array) == 0:
        return 0
    offsets = np.frombuffer(array.buffers()[1], np.int32)
    return int(offsets[array.offset + len(array)]) - int(offsets[array.offset])


def text_bytes(array: pa.Array, shape: tuple[str, int]) -> int:
    """Returns an upper bound of the bytes of one row's texts."""
    nesting, kind = shape
    if kind != KIND_TEXT:
        return 0
    data = (array.values if nesting == "list" else array).buffers()[2]
    return 0 if data is None else int(data.size)


def _address(buffer: pa.Buffer | None) -> int:
    return 0 if buffer is None or buffer.size == 0 else int(buffer.address)


def shape_of(column: Input) -> tuple[str, int]:
    """Returns ("plain" | "list" | "map", kind of the elements), which an input's type decides once."""
    kind = arrow_type(column)
    if pa.types.is_map(kind):
        return "map", KIND_TEXT
    nesting, value = ("list", kind.value_type) if pa.types.is_list(kind) else ("plain", kind)
    if pa.types.is_string(value):
        return nesting, KIND_TEXT
    return nesting, KIND_FLOAT if pa.types.is_floating(value) else KIND_INT


def describe(array: pa.Array, step: int, shape: tuple[str, int]) -> tuple[int, ...]:
    """Returns an array's row of the column table; the array must stay alive while its addresses are used."""
    nesting, kind = shape
    buffers = array.buffers()
    valid, bit = _address(buffers[0]) if array.null_count else 0, array.offset
    offsets = items = items_valid = items_bit = 0
    values = array
    if nesting != "plain":
        offsets = _address(buffers[1]) + 4 * bit
        values = array.values
        if nesting == "map":
            entries = values
            values, numbers = entries.field(0), entries.field(1)
            held = numbers.buffers()
            items_bit = numbers.offset
            items = _address(held[1]) + 8 * items_bit
            items_valid = _address(held[0]) if numbers.null_count else 0
        buffers = values.buffers()
    child_bit = values.offset
    child_valid = _address(buffers[0]) if values.null_count else 0
    data, texts = _address(buffers[1]) + 8 * child_bit, 0
    if kind == KIND_TEXT:
        data, texts = _address(buffers[2]), _address(buffers[1]) + 4 * child_bit
    # The order of featuregen.layout: C_KIND, C_STEP, C_VALID, C_VALID_BIT, C_LIST, C_DATA, C_TEXT, C_CHILD_VALID, ...
    return kind, step, valid, bit, offsets, data, texts, child_valid, child_bit, items, items_valid, items_bit
