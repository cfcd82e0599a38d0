"""Bodies of frames: offsets into raw arrays. Parsing checks every count against the length before it makes a view.

All numbers are little endian; every array starts at a multiple of its element size. A *block list* is one
`(width uint32, 0 uint32, rows uint64)` per table width. A *value* is float32, or half of it, as HELLO says.

| frame   | body |
|---------|------|
| HELLO   | shard, shards, worker, terms (uint32 each), incarnation (uint64), digest (64 bytes), token (rest) |
| WELCOME | bytes of the shared segment, whose descriptor follows, or 0 (int64) |
| PULL    | request (uint64), blocks (uint32), place of the answer (uint32) and room there (uint64), block list, |
|         | keys (int64) |
| ROWS    | request (uint64), blocks (uint32), 0, dense floats (uint64), block list, dense (float32), rows (values) |
| PUSH    | sequence, watermark (int64), blocks, partitions (uint32), dense floats (uint64), block list, |
|         | applied (int64 partition, int64 samples), keys (int64), dense gradient (float32), gradients (values) |
| ACK     | sequence (int64) |
| MARK    | epoch (int64) |
| MARKED  | epoch (int64), 1 taken or 0 aborted (int64) |
| REFUSED | reason, UTF-8 |

A body may lie in memory that the sender still writes: every number is read once, and what is checked is a copy.
"""

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from kuberec_api.training import RowType
from kuberec_runtime.table.buckets import I64
from kuberec_runtime.table.initial import F32
from kuberec_runtime.wire.errors import FrameError
from kuberec_runtime.wire.frames import BODY_LIMIT, Body, Buffer
from kuberec_runtime.wire.halves import CODES, DTYPE, ITEM, Values, decode

_HELLO = struct.Struct("<IIIIQ64s")
_PULL = struct.Struct("<QIIQ")
_ROOM = slice(12, 24)
_ROWS = struct.Struct("<QIIQ")
_PUSH = struct.Struct("<qqIIQ")
_ONE = struct.Struct("<q")
_TWO = struct.Struct("<qq")
_BLOCK = struct.Struct("<QQ")
_PAIR = struct.Struct("<qq")
_SHARE = 1 << 8
_MOST_BLOCKS = 4096
_REASON_LIMIT = 2048


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
    """Keys wanted, by width, in the order sent, and where the answer may lie: `room` bytes from line `place` on."""

    request: int
    place: int
    room: int
    keys: dict[int, I64]


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


class _Reader:
    """A cursor that refuses to leave the body."""

    def __init__(self, body: Body, what: str, shared: bool = False) -> None:
        self._body, self._what, self._at, self._shared = body, what, 0, shared

    def unpack(self, form: struct.Struct) -> tuple[int, ...]:
        self._need(form.size)
        out = form.unpack_from(self._body.data, self._at)
        self._at += form.size
        return out

    def array(self, dtype: type[np.generic], count: int) -> Values:
        size = count * np.dtype(dtype).itemsize
        self._need(size)
        out = self._body[self._at : self._at + size].view(dtype)
        self._at += size
        return out

    def keys(self, count: int) -> I64:
        keys: I64 = self.array(np.int64, count)
        return keys.copy() if self._shared else keys

    def values(self, dtype: RowType, count: int, width: int) -> Values:
        return self.array(DTYPE[dtype], count * width).reshape(count, width)

    def blocks(self, count: int) -> dict[int, int]:
        if count > _MOST_BLOCKS:
            raise FrameError(f"{self._what} names {count} row widths, more than {_MOST_BLOCKS}")
        table = self.array(np.uint64, 2 * count).reshape(count, 2)
        rows: dict[int, int] = {}
        for width, n in table.tolist():
            if not 1 <= width <= 1024 or width in rows:
                raise FrameError(f"{self._what} names row width {width} twice or out of range")
            if 2 * n > self._body.size:
                raise FrameError(f"{self._what} names {n} rows of width {width}, more than its body holds")
            rows[width] = n
        return rows

    def end(self) -> None:
        if self._at != self._body.size:
            raise FrameError(f"{self._what} has {self._body.size - self._at} bytes too many")

    def _need(self, size: int) -> None:
        if self._at + size > self._body.size:
            raise FrameError(f"{self._what} is cut short: {self._body.size} bytes, {self._at + size} needed")


class _Writer:
    """A cursor that lays out a body which is exactly as long as the caller computed."""

    def __init__(self, body: Body) -> None:
        self._body, self._at = body, 0

    def pack(self, form: struct.Struct, *values: int) -> None:
        form.pack_into(self._body.data, self._at, *values)
        self._at += form.size

    def blocks(self, rows: Mapping[int, int]) -> None:
        for width, n in rows.items():
            self.pack(_BLOCK, width, n)

    def array(self, dtype: type[np.generic], *shape: int) -> Values:
        size = math.prod(shape) * np.dtype(dtype).itemsize
        out = self._body[self._at : self._at + size].view(dtype).reshape(shape)
        self._at += size
        return out


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


def pull_size(rows: Mapping[int, int]) -> int:
    """Bytes of a PULL body for `rows` keys by width."""
    return _PULL.size + len(rows) * _BLOCK.size + 8 * sum(rows.values())


def write_pull(body: Body, request: int, keys: Mapping[int, I64], place: int = 0, room: int = 0) -> None:
    """Fills a body of `pull_size` bytes; the answer may lie in `room` bytes from line `place` on."""
    writer = _Writer(body)
    writer.pack(_PULL, request, len(keys), place, room)
    writer.blocks({width: array.size for width, array in keys.items()})
    for array in keys.values():
        writer.array(np.int64, array.size)[:] = array


def forget_room(body: Body) -> None:
    """Takes the room for the answer out of a PULL body that is sent again, on a connection without that memory."""
    body[_ROOM] = 0


def parse_pull(body: Body, shared: bool = False) -> Pull:
    """Reads a PULL body; raises FrameError if a count disagrees with the length."""
    reader = _Reader(body, "PULL", shared)
    request, count, place, room = reader.unpack(_PULL)
    blocks = reader.blocks(count)
    keys = {width: reader.keys(n) for width, n in blocks.items()}
    reader.end()
    return Pull(request, place, room, keys)


def rows_size(rows: Mapping[int, int], dense: int, values: RowType) -> int:
    """Bytes of a ROWS body: `rows` are counts by width, `dense` the floats of the dense slice."""
    floats = sum(width * n for width, n in rows.items())
    return _ROWS.size + len(rows) * _BLOCK.size + 4 * dense + ITEM[values] * floats


def write_rows(
    body: Body, request: int, rows: Mapping[int, int], dense: int, values: RowType
) -> tuple[F32, dict[int, Values]]:
    """Writes the head of a ROWS body of `rows_size` bytes; returns where dense weights and rows go."""
    writer = _Writer(body)
    writer.pack(_ROWS, request, len(rows), 0, dense)
    writer.blocks(rows)
    slice_ = writer.array(np.float32, dense)
    return slice_, {width: writer.array(DTYPE[values], n, width) for width, n in rows.items()}


def parse_rows(body: Body, values: RowType = RowType.FLOAT32) -> tuple[int, dict[int, Values], F32]:
    """Reads a ROWS body: (request, rows (n, width) by width, dense float32 (d,)); raises FrameError."""
    reader = _Reader(body, "ROWS")
    request, count, _, dense = reader.unpack(_ROWS)
    blocks = reader.blocks(count)
    slice_ = reader.array(np.float32, dense)
    rows = {width: reader.values(values, n, width) for width, n in blocks.items()}
    reader.end()
    return request, rows, slice_


def push_size(rows: Mapping[int, int], partitions: int, dense: int, values: RowType) -> int:
    """Bytes of a PUSH body: `rows` are counts by width, `dense` the floats of the dense gradient."""
    floats = sum(width * n for width, n in rows.items())
    fixed = _PUSH.size + len(rows) * _BLOCK.size + partitions * _PAIR.size
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
    writer = _Writer(body)
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
    reader = _Reader(body, "PUSH", shared)
    sequence, watermark, count, partitions, dense = reader.unpack(_PUSH)
    blocks = reader.blocks(count)
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
    reader = _Reader(body, what)
    (value,) = reader.unpack(_ONE)
    reader.end()
    return value


def pack_marked(epoch: int, taken: bool) -> list[Buffer]:
    """Body of MARKED."""
    return [_TWO.pack(epoch, taken)]


def parse_marked(body: Body) -> tuple[int, bool]:
    """Reads a MARKED body: (epoch, taken); raises FrameError."""
    reader = _Reader(body, "MARKED")
    epoch, taken = reader.unpack(_TWO)
    reader.end()
    return epoch, bool(taken)


def pack_reason(reason: str) -> list[Buffer]:
    """Body of REFUSED."""
    return [reason.encode()[:_REASON_LIMIT]]


def parse_reason(body: Body) -> str:
    """Reads a REFUSED body."""
    return body[:_REASON_LIMIT].tobytes().decode("utf-8", "replace")
