"""Where the buffers of an Arrow array lie, for kernels that read records in place."""

import pyarrow as pa


def buffer_address(buffer: pa.Buffer | None) -> int:
    """Returns where a buffer lies, 0 if there is none or nothing in it."""
    return 0 if buffer is None or buffer.size == 0 else int(buffer.address)


def validity_of(array: pa.Array, buffer: pa.Buffer | None) -> tuple[int, int]:
    """Returns where an array's own validity bitmap lies, 0 if nothing is missing, and the bit of its first value."""
    return buffer_address(buffer) if array.null_count else 0, array.offset
