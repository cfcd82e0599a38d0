"""Bodies of frames: offsets into raw arrays. Parsing checks every count against the length before it makes a view.

All numbers are little endian; every array starts at a multiple of its element size. A *block list* is one
`(width uint32, 0 uint32, rows uint64)` per table width.

| frame   | body |
|---------|------|
| HELLO   | shard, shards, worker, 0 (uint32 each), incarnation (uint64), digest (64 bytes), token (rest) |
| PULL    | request (uint64), blocks (uint32), 0, block list, keys (int64) |
| ROWS    | request (uint64), blocks (uint32), 0, dense floats (uint64), block list, rows (float32), dense (float32) |
| PUSH    | sequence, watermark (int64), blocks, partitions (uint32), dense floats (uint64), block list, |
|         | applied (int64 partition, int64 samples), keys (int64), gradients (float32), dense gradient (float32) |
| ACK     | sequence (int64) |
| MARK    | epoch (int64) |
| MARKED  | epoch (int64), 1 taken or 0 aborted (int64) |
| REFUSED | reason, UTF-8 |
"""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kuberec_runtime.table.buckets import I64
from kuberec_runtime.table.initial import F32
from kuberec_runtime.wire.errors import FrameError
from kuberec_runtime.wire.frames import Buffer, part

Body = npt.NDArray[np.uint8]

_HELLO = struct.Struct("<IIIIQ64s")
_PULL = struct.Struct("<QII")
_ROWS = struct.Struct("<QIIQ")
_PUSH = struct.Struct("<qqIIQ")
_ONE = struct.Struct("<q")
_TWO = struct.Struct("<qq")
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
    """

    shard: int
    shards: int
    worker: int
    incarnation: int
    digest: str
    token: bytes


@dataclass(frozen=True)
class Pull:
    """Keys wanted, by width, in the order sent; the arrays are views of the receive buffer."""

    request: int
    keys: dict[int, I64]


@dataclass(frozen=True)
class Push:
    """One worker step's gradients for this shard; the arrays are views of the receive buffer.

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

    def __init__(self, body: Body, what: str) -> None:
        self._body, self._what, self._at = body, what, 0

    def unpack(self, form: struct.Struct) -> tuple[int, ...]:
        self._need(form.size)
        out = form.unpack_from(self._body.data, self._at)
        self._at += form.size
        return out

    def array(self, dtype: type[np.generic], count: int) -> npt.NDArray[np.generic]:
        size = count * np.dtype(dtype).itemsize
        self._need(size)
        out = self._body[self._at : self._at + size].view(dtype)
        self._at += size
        return out

    def blocks(self, count: int) -> dict[int, int]:
        if count > _MOST_BLOCKS:
            raise FrameError(f"{self._what} names {count} row widths, more than {_MOST_BLOCKS}")
        table = self.array(np.uint64, 2 * count).reshape(count, 2)
        rows: dict[int, int] = {}
        for width, n in table.tolist():
            if not 1 <= width <= 1024 or width in rows:
                raise FrameError(f"{self._what} names row width {width} twice or out of range")
            if n * 4 > self._body.size:
                raise FrameError(f"{self._what} names {n} rows of width {width}, more than its body holds")
            rows[width] = n
        return rows

    def end(self) -> None:
        if self._at != self._body.size:
            raise FrameError(f"{self._what} has {self._body.size - self._at} bytes too many")

    def _need(self, size: int) -> None:
        if self._at + size > self._body.size:
            raise FrameError(f"{self._what} is cut short: {self._body.size} bytes, {self._at + size} needed")


def _block_list(keys: Mapping[int, I64]) -> bytes:
    return b"".join(struct.pack("<QQ", width, array.size) for width, array in keys.items())


def pack_hello(hello: Hello) -> list[Buffer]:
    """Parts of a HELLO body."""
    fixed = _HELLO.pack(
        hello.shard,
        hello.shards,
        hello.worker,
        0,
        hello.incarnation,
        hello.digest.encode("ascii")[:64].ljust(64, b"\0"),
    )
    return [fixed, hello.token]


def parse_hello(body: Body) -> Hello:
    """Reads a HELLO body.

    Raises:
        FrameError: it is too short, or the digest is not ASCII.
    """
    if body.size < _HELLO.size:
        raise FrameError(f"HELLO is cut short: {body.size} bytes")
    raw = body.tobytes()
    shard, shards, worker, _, incarnation, digest = _HELLO.unpack_from(raw)
    try:
        text = digest.rstrip(b"\0").decode("ascii")
    except UnicodeDecodeError:
        raise FrameError("HELLO carries a digest that is not ASCII") from None
    return Hello(shard, shards, worker, incarnation, text, raw[_HELLO.size :])


def pack_pull(request: int, keys: Mapping[int, I64]) -> list[Buffer]:
    """Parts of a PULL body; the arrays are not copied."""
    head = _PULL.pack(request, len(keys), 0) + _block_list(keys)
    return [head, *(part(array) for array in keys.values())]


def parse_pull(body: Body) -> Pull:
    """Reads a PULL body; raises FrameError if a count disagrees with the length."""
    reader = _Reader(body, "PULL")
    request, count, _ = reader.unpack(_PULL)
    blocks = reader.blocks(count)
    keys = {width: reader.array(np.int64, n) for width, n in blocks.items()}
    reader.end()
    return Pull(request, keys)  # type: ignore[arg-type]


def pack_rows_head(request: int, rows: Mapping[int, int], dense: int) -> bytes:
    """What precedes the floats of a ROWS body: `rows` are counts by width, `dense` the floats of the dense slice."""
    blocks = b"".join(struct.pack("<QQ", width, n) for width, n in rows.items())
    return _ROWS.pack(request, len(rows), 0, dense) + blocks


def parse_rows(body: Body) -> tuple[int, dict[int, F32], F32]:
    """Reads a ROWS body: (request, rows by width float32 (n, width), dense float32 (d,)); raises FrameError."""
    reader = _Reader(body, "ROWS")
    request, count, _, dense = reader.unpack(_ROWS)
    blocks = reader.blocks(count)
    rows = {width: reader.array(np.float32, n * width).reshape(n, width) for width, n in blocks.items()}
    slice_ = reader.array(np.float32, dense)
    reader.end()
    return request, rows, slice_  # type: ignore[return-value]


def pack_push(
    sequence: int,
    watermark: int,
    keys: Mapping[int, I64],
    grads: Mapping[int, F32],
    applied: Mapping[int, int],
    dense: F32,
) -> list[Buffer]:
    """Parts of a PUSH body; the arrays are not copied."""
    pairs = np.array([pair for pair in applied.items()], np.int64).reshape(-1)
    head = _PUSH.pack(sequence, watermark, len(keys), len(applied), dense.size) + _block_list(keys)
    return [
        head,
        part(pairs),
        *(part(array) for array in keys.values()),
        *(part(grads[width]) for width in keys),
        part(dense),
    ]


def parse_push(body: Body) -> Push:
    """Reads a PUSH body; raises FrameError if a count disagrees with the length or is negative."""
    reader = _Reader(body, "PUSH")
    sequence, watermark, count, partitions, dense = reader.unpack(_PUSH)
    blocks = reader.blocks(count)
    pairs: Sequence[Sequence[int]] = reader.array(np.int64, 2 * partitions).reshape(-1, 2).tolist()
    if any(samples < 0 for _, samples in pairs):
        raise FrameError("PUSH counts a negative number of samples")
    keys = {width: reader.array(np.int64, n) for width, n in blocks.items()}
    grads = {width: reader.array(np.float32, n * width).reshape(n, width) for width, n in blocks.items()}
    gradient = reader.array(np.float32, dense)
    reader.end()
    applied: dict[int, int] = {}
    for partition, samples in pairs:
        applied[partition] = applied.get(partition, 0) + samples
    return Push(sequence, watermark, keys, grads, applied, gradient)  # type: ignore[arg-type]


def pack_number(value: int) -> list[Buffer]:
    """Body of ACK and MARK."""
    return [_ONE.pack(value)]


def parse_number(body: Body, what: str) -> int:
    """Reads the body of ACK or MARK; raises FrameError."""
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
