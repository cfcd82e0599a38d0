"""Bodies of frames: offsets into raw arrays. Parsing checks every count against the length before it makes a view.

All numbers are little endian; every array starts at a multiple of its element size. A *block list* is one
`(width uint32, 0 uint32, rows uint64)` per table width. A *value* is float32, or half of it, as HELLO says.

| frame   | body |
|---------|------|
| HELLO   | shard, shards, worker, terms (uint32 each), incarnation (uint64), digest (64 bytes), token (rest) |
| WELCOME | 1 if the shard maps memory of the worker, which then sends it, else 0 (int64); after that, 1 if it did |
| PULL    | request (uint64), blocks (uint32), 0 (uint32), block list, keys (int64) |
| FETCH   | a pull in shared memory: request (uint64), blocks (uint32), 0 (uint32), byte of the dense slice and its |
|         | floats, or 0 (uint64 each), and for each width: width, keys, byte of the keys (int64), byte of their |
|         | positions (int32) or 0, byte of the rows (float32), how many rows there are (uint64 each) |
| ROWS    | request (uint64), blocks (uint32), 1 if the dense slice lies where it was fetched to (uint32), dense |
|         | floats (uint64), block list, dense (float32), rows (values), request again (uint64): another number says |
|         | that the shard failed midway, and why follows |
| PUSH    | sequence, watermark (int64), blocks, partitions (uint32), dense floats (uint64), block list, |
|         | applied (int64 partition, int64 samples), keys (int64), dense gradient (float32), gradients (values) |
| ACK     | sequence (int64) |
| MARK    | epoch (int64) |
| MARKED  | epoch (int64), 1 taken or 0 aborted (int64) |
| REFUSED | reason, UTF-8 |

A body may lie in memory that the sender still writes: every number is read once, and what is checked is a copy.
"""

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from kuberec_api.training import RowType
from kuberec_runtime.table.buckets import I64
from kuberec_runtime.table.initial import F32
from kuberec_runtime.wire.bodies import BLOCK, Reader, Writer
from kuberec_runtime.wire.errors import FrameError
from kuberec_runtime.wire.frames import BODY_LIMIT, Body, Buffer, part
from kuberec_runtime.wire.halves import CODES, DTYPE, ITEM, Values, decode

_HELLO = struct.Struct("<IIIIQ64s")
_PULL = struct.Struct("<QII")
_FETCH = struct.Struct("<QIIQQ")
_PLACED = struct.Struct("<QQQQQQ")
_ROWS = struct.Struct("<QIIQ")
_LAST = struct.Struct("<Q")
_PUSH = struct.Struct("<qqIIQ")
_ONE = struct.Struct("<q")
_TWO = struct.Struct("<qq")
_PAIR = struct.Struct("<qq")
_SHARE = 1 << 8
_MOSTBLOCKS = 4096
_REASON_LIMIT = 2048
_MOST_PARTITIONS = 1 << 16


@dataclass(frozen=True)
class Hello:
    """Who connects, and to what.

    Attributes:
        shard: the shard that the worker believes this is.
        shards: how many shards the worker knows.
        worker: number of the worker.
        incarnation: rises whenever the worker's place is taken by a new process or a rollback.
        digest: of the feature plan.
        token: the attempt's secret.
        values: type of rows and gradients on the wire.
        share: whether the worker asks for shared memory.
    """

    shard: int
    shards: int
    worker: int
    incarnation: int
    digest: str
    token: bytes = field(repr=False)
    values: RowType = RowType.FLOAT32
    share: bool = False


@dataclass(frozen=True)
class Pull:
    """Keys wanted, by width, in the order sent."""

    request: int
    keys: dict[int, I64]


@dataclass(frozen=True)
class Placed:
    """Rows wanted of one width, in shared memory; places are bytes from its beginning.

    Attributes:
        width: of the rows.
        keys: how many are wanted.
        keys_at: int64 keys.
        order_at: int32, the position of each key's row among the rows; 0 if they are wanted in the order of the keys.
        rows_at: float32, shape (rows, width), where they go.
        rows: how many positions there are.
    """

    width: int
    keys: int
    keys_at: int
    order_at: int
    rows_at: int
    rows: int


@dataclass(frozen=True)
class Fetch:
    """A pull whose rows go to shared memory, and so does the dense slice if it has `dense` floats."""

    request: int
    dense_at: int
    dense: int
    blocks: tuple[Placed, ...]


@dataclass(frozen=True)
class Push:
    """One worker step's gradients for this shard; the arrays may be views of the receive buffer.

    Attributes:
        sequence: of the worker's incarnation, rising.
        watermark: newest event time of the step's samples, ms; 0 if unknown.
        keys: int64 keys by width.
        grads: float32, shape (n, width), by width.
        applied: samples by partition that the step consumed.
        dense: float32 gradient of the shard's dense slice, or empty for a step without one.
    """

    sequence: int
    watermark: int
    keys: dict[int, I64]
    grads: dict[int, F32]
    applied: dict[int, int]
    dense: F32


def pack_hello(hello: Hello) -> list[Buffer]:
    """Parts of a HELLO body."""
    fixed = _HELLO.pack(
        hello.shard,
        hello.shards,
        hello.worker,
        CODES.index(hello.values) | (_SHARE if hello.share else 0),
        hello.incarnation,
        hello.digest.encode("ascii")[:64].ljust(64, b"\0"),
    )
    return [fixed, hello.token]


def parse_hello(body: Body) -> Hello:
    """Reads a HELLO body.

    Raises:
        FrameError: it is too short, asks for what does not exist, or the digest is not ASCII.
    """
    if body.size < _HELLO.size:
        raise FrameError(f"HELLO is cut short: {body.size} bytes")
    raw = body.tobytes()
    shard, shards, worker, terms, incarnation, digest = _HELLO.unpack_from(raw)
    code = terms & ~_SHARE
    if code >= len(CODES):
        raise FrameError(f"HELLO asks for unknown terms {terms:#x}")
    try:
        text = digest.rstrip(b"\0").decode("ascii")
    except UnicodeDecodeError:
        raise FrameError("HELLO carries a digest that is not ASCII") from None
    token = raw[_HELLO.size :]
    return Hello(shard, shards, worker, incarnation, text, token, CODES[code], bool(terms & _SHARE))


def pack_pull(request: int, keys: Mapping[int, I64]) -> list[Buffer]:
    """Parts of a PULL body."""
    head = _PULL.pack(request, len(keys), 0) + b"".join(BLOCK.pack(width, k.size) for width, k in keys.items())
    return [head, *(part(array) for array in keys.values())]


def parse_pull(body: Body) -> Pull:
    """Reads a PULL body; raises FrameError if a count disagrees with the length."""
    reader = Reader(body, "PULL")
    request, count, _ = reader.unpack(_PULL)
    blocks = reader.blocks(count)
    keys = {width: reader.keys(n) for width, n in blocks.items()}
    reader.end()
    return Pull(request, keys)


def pack_fetch(fetch: Fetch) -> bytes:
    """A FETCH body."""
    head = _FETCH.pack(fetch.request, len(fetch.blocks), 0, fetch.dense_at, fetch.dense)
    return head + b"".join(
        _PLACED.pack(b.width, b.keys, b.keys_at, b.order_at, b.rows_at, b.rows) for b in fetch.blocks
    )


def parse_fetch(body: Body) -> Fetch:
    """Reads a FETCH body; raises FrameError if its places are not those of numbers. Where they end, nobody checked."""
    reader = Reader(body, "FETCH")
    request, count, _, dense_at, dense = reader.unpack(_FETCH)
    if count > _MOSTBLOCKS:
        raise FrameError(f"FETCH names {count} row widths, more than {_MOSTBLOCKS}")
    blocks = tuple(Placed(*reader.unpack(_PLACED)) for _ in range(count))
    reader.end()
    if not all(1 <= b.width <= 1024 for b in blocks) or len({b.width for b in blocks}) < count:
        raise FrameError("FETCH names a row width twice or out of range")
    if dense_at % 4 or any(b.keys_at % 8 or b.order_at % 4 or b.rows_at % 4 for b in blocks):
        raise FrameError("FETCH names places at which no numbers can lie")
    return Fetch(request, dense_at, dense, blocks)


def rows_size(rows: Mapping[int, int], dense: int, values: RowType) -> int:
    """Bytes of a ROWS body: `rows` are counts by width, `dense` the floats of the dense slice."""
    floats = sum(width * n for width, n in rows.items())
    return _ROWS.size + len(rows) * BLOCK.size + 4 * dense + ITEM[values] * floats + _LAST.size


def pack_rows(request: int, rows: Mapping[int, int], dense: int, placed: bool = False) -> bytes:
    """Head of a ROWS body: what comes before the dense slice."""
    head = _ROWS.pack(request, len(rows), placed, dense)
    return head + b"".join(BLOCK.pack(width, n) for width, n in rows.items())


def pack_last(request: int) -> bytes:
    """End of a ROWS body."""
    return _LAST.pack(request)


class RowsHead(NamedTuple):
    """Head of a ROWS body: `dense` floats and the rows of `blocks` widths follow."""

    request: int
    blocks: int
    placed: int
    dense: int


def read_rows(take: Callable[[int], Body]) -> tuple[RowsHead, dict[int, int]]:
    """Reads the head of a ROWS body, and rows by width; `take(n)` yields its next n bytes. Raises FrameError."""
    head = RowsHead(*_ROWS.unpack(take(_ROWS.size).data))
    if head.blocks > _MOSTBLOCKS:
        raise FrameError(f"ROWS names {head.blocks} row widths, more than {_MOSTBLOCKS}")
    pairs = BLOCK.iter_unpack(take(head.blocks * BLOCK.size).data) if head.blocks else ()
    return head, {width: n for width, n in pairs}


def read_last(raw: Body) -> int:
    """Reads the end of a ROWS body, `LAST` bytes."""
    return int(_LAST.unpack(raw.data)[0])


LAST = _LAST.size


def push_size(rows: Mapping[int, int], partitions: int, dense: int, values: RowType) -> int:
    """Bytes of a PUSH body: `rows` are counts by width, `dense` the floats of the dense gradient."""
    floats = sum(width * n for width, n in rows.items())
    fixed = _PUSH.size + len(rows) * BLOCK.size + partitions * _PAIR.size
    return fixed + 8 * sum(rows.values()) + 4 * dense + ITEM[values] * floats


def write_push(
    body: Body,
    sequence: int,
    watermark: int,
    keys: Mapping[int, I64],
    applied: Mapping[int, int],
    dense: F32,
    values: RowType,
) -> dict[int, Values]:
    """Fills a body of `push_size` bytes but for the gradients; returns where those go, by width."""
    writer = Writer(body)
    writer.pack(_PUSH, sequence, watermark, len(keys), len(applied), dense.size)
    writer.blocks({width: array.size for width, array in keys.items()})
    for pair in applied.items():
        writer.pack(_PAIR, *pair)
    for array in keys.values():
        writer.array(np.int64, array.size)[:] = array
    writer.array(np.float32, dense.size)[:] = dense
    return {width: writer.array(DTYPE[values], array.size, width) for width, array in keys.items()}


def parse_push(body: Body, values: RowType = RowType.FLOAT32, shared: bool = False) -> Push:
    """Reads a PUSH body; raises FrameError if a count disagrees with the length or is negative."""
    reader = Reader(body, "PUSH", shared)
    sequence, watermark, count, partitions, dense = reader.unpack(_PUSH)
    blocks = reader.blocks(count)
    if partitions > _MOST_PARTITIONS:
        raise FrameError(f"PUSH counts samples of {partitions} partitions, more than {_MOST_PARTITIONS}")
    pairs: Sequence[Sequence[int]] = reader.array(np.int64, 2 * partitions).reshape(-1, 2).tolist()
    if any(samples < 0 for _, samples in pairs):
        raise FrameError("PUSH counts a negative number of samples")
    keys = {width: reader.keys(n) for width, n in blocks.items()}
    gradient = reader.array(np.float32, dense)
    raw = {width: reader.values(values, n, width) for width, n in blocks.items()}
    reader.end()
    if (size := 4 * sum(array.size for array in raw.values())) > BODY_LIMIT:
        raise FrameError(f"gradients of {size} bytes exceed the limit of {BODY_LIMIT}")
    grads = {width: decode(array, values) for width, array in raw.items()}
    applied: dict[int, int] = {}
    for partition, samples in pairs:
        applied[partition] = applied.get(partition, 0) + samples
    return Push(sequence, watermark, keys, grads, applied, gradient)


def pack_number(value: int) -> list[Buffer]:
    """Body of ACK, MARK and WELCOME."""
    return [_ONE.pack(value)]


def parse_number(body: Body, what: str) -> int:
    """Reads the body of ACK, MARK or WELCOME; raises FrameError."""
    reader = Reader(body, what)
    (value,) = reader.unpack(_ONE)
    reader.end()
    return value


def pack_marked(epoch: int, taken: bool) -> list[Buffer]:
    """Body of MARKED."""
    return [_TWO.pack(epoch, taken)]


def parse_marked(body: Body) -> tuple[int, bool]:
    """Reads a MARKED body: (epoch, taken); raises FrameError."""
    reader = Reader(body, "MARKED")
    epoch, taken = reader.unpack(_TWO)
    reader.end()
    return epoch, bool(taken)


def pack_reason(reason: str) -> list[Buffer]:
    """Body of REFUSED."""
    return [reason.encode()[:_REASON_LIMIT]]


def parse_reason(body: Body) -> str:
    """Reads a REFUSED body."""
    return body[:_REASON_LIMIT].tobytes().decode("utf-8", "replace")
