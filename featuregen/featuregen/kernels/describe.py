"""Arrow arrays to rows of the column table: their addresses, and how much is in them.

The arrays come by Arrow's C data interface. To export one costs less than to look at its buffers from Python.
"""

import numba as nb

from featuregen.kernels import layout
from featuregen.kernels.arrow import buffer_of, child, length_of, nulls_of, offset_of, user_array
from featuregen.kernels.memory import get, jit, load_i32, put


@jit
def _bitmap(array: int) -> int:
    """Address of the validity bitmap, 0 if nothing is missing."""
    return buffer_of(array, 0) if nulls_of(array) != 0 else nb.int64(0)


@jit
def _describe(op: int, row: int, array: int, extra: int, first: int, last: int) -> None:
    """Writes one row of an array whose elements `first` to `last` - 1 are read, `extra` behind its own offset."""
    shape = get(op, layout.O_SHAPES) + 8 * layout.SHAPE_WIDTH * row
    column = get(op, layout.O_COLUMNS) + 8 * layout.COLUMN_WIDTH * row
    size = get(op, layout.O_SIZES) + 16 * row
    offset = offset_of(array) + extra
    put(column, layout.C_VALID, _bitmap(array))
    put(column, layout.C_VALID_BIT, offset)
    elements, lists = array, nb.int64(0)
    if get(shape, layout.S_NESTED) == 1:
        lists = buffer_of(array, 1) + 4 * offset
        first, last = (load_i32(lists + 4 * first), load_i32(lists + 4 * last)) if last > first else (first, first)
        elements, offset = child(array, 0), offset_of(child(array, 0))
        if get(shape, layout.S_IS_MAP) == 1:
            elements, offset = child(elements, 0), offset + offset_of(child(elements, 0))
    put(column, layout.C_LIST, lists)
    put(size, 0, last - first)
    put(size, 1, 0)
    if get(shape, layout.S_HAS_ELEMENTS) == 0:  # they are lists: the next row's
        return
    put(column, layout.C_CHILD_VALID, _bitmap(elements))
    put(column, layout.C_CHILD_BIT, offset)
    if get(shape, layout.S_KIND) == layout.KIND_TEXT:
        texts = buffer_of(elements, 1) + 4 * offset
        put(column, layout.C_DATA, buffer_of(elements, 2))
        put(column, layout.C_TEXT, texts)
        if last > first:
            put(size, 1, load_i32(texts + 4 * last) - load_i32(texts + 4 * first))
    else:
        put(column, layout.C_DATA, buffer_of(elements, 1) + 8 * offset)


@jit
def run_describe(op: int) -> None:
    """Writes the column table of a call, and of each row the number of elements and the bytes of their texts.

    A row that names no array has the level below the row before it: the items of a map, or the inner lists of a list.
    """
    array, extra, first, last = nb.int64(0), nb.int64(0), nb.int64(0), nb.int64(0)
    for row in range(get(op, layout.O_ROWS)):
        shape = get(op, layout.O_SHAPES) + 8 * layout.SHAPE_WIDTH * row
        if get(shape, layout.S_ARRAY) >= 0:
            array, extra = user_array(get(op, layout.O_EXPORTS), get(shape, layout.S_ARRAY)), nb.int64(0)
            first, last = nb.int64(0), length_of(array)
        else:
            above, lists = shape - 8 * layout.SHAPE_WIDTH, buffer_of(array, 1) + 4 * (offset_of(array) + extra)
            first, last = (load_i32(lists + 4 * first), load_i32(lists + 4 * last)) if last > first else (first, first)
            array, extra = child(array, 0), nb.int64(0)
            if get(above, layout.S_IS_MAP) == 1:
                extra, array = offset_of(array), child(array, 1)
        _describe(op, row, array, extra, first, last)
