"""What one pull wants of one shard, how it asks for it, and where the answer goes.

Asked through shared memory, the shard places every row itself. Asked through a stream, rows come grouped by shard, and
are merged a few hundred KiB at a time, while they are still in the core's cache and the shard looks up the next.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from kuberec_api.training import RowType
from kuberec_runtime.table.buckets import I64
from kuberec_runtime.table.initial import F32
from kuberec_runtime.wire import messages
from kuberec_runtime.wire.channel import Channel
from kuberec_runtime.wire.errors import FrameError
from kuberec_runtime.wire.frames import Body, Header, Kind
from kuberec_runtime.wire.halves import DTYPE, ITEM, decode
from kuberec_runtime.wire.messages import Fetch
from kuberec_runtime.wire.routing import I32, merge_rows

PIECE = 256 << 10
"""Bytes that are received and merged at a time; what `Share.receive` needs as scratch memory."""


class _Take(Protocol):
    """Yields the next `size` bytes of a body, in `into` if it has to be read anyway."""

    def __call__(self, size: int, into: Body | None = None) -> Body: ...


@dataclass
class Share:
    """One shard's share of a pull.

    Attributes:
        request: number of the pull.
        keys: int64, shape (n,), by width.
        places: by width, positions (int32, shape (n,)) of their rows in an array of rows (float32), and that array;
            None instead of positions if the array has exactly these rows, in order.
        dense: float32, where the dense slice goes; replaced if the shard's slice has another size.
        values: type of rows in the stream.
        fetch: the same as places in shared memory; None if some of it does not lie there.
    """

    request: int
    keys: dict[int, I64]
    places: dict[int, tuple[I32 | None, F32]]
    dense: F32
    values: RowType
    fetch: Fetch | None = None
    _fetched: bool = False

    def ask(self, channel: Channel) -> None:
        """Asks for it; raises OSError."""
        self._fetched = self.fetch is not None and channel.arena is not None and not channel.checked
        if self.fetch is not None and self._fetched:
            channel.send(Kind.FETCH, [messages.pack_fetch(self.fetch)])
        else:
            channel.send(Kind.PULL, messages.pack_pull(self.request, self.keys))

    def receive(self, channel: Channel, header: Header, scratch: Body) -> bool:
        """Receives a ROWS frame; False if it answers an earlier pull, or the shard gave it up midway.

        Raises:
            OSError: the connection is broken.
            FrameDamaged: bits changed on the way.
            FrameError: it is no answer to this pull.
        """
        whole = channel.body(header).body if channel.checked or header.flags else None
        at = 0

        def take(size: int, into: Body | None = None) -> Body:
            nonlocal at
            if at + size > header.length:
                raise FrameError(f"ROWS is cut short: {header.length} bytes, {at + size} needed")
            at += size
            if whole is not None:
                return whole[at - size : at]
            part = into if into is not None else scratch[:size] if size <= scratch.size else np.empty(size, np.uint8)
            channel.rest(part)
            return part

        head, rows = messages.read_rows(take)
        if head.request != self.request:
            while at < header.length:
                take(min(header.length - at, scratch.size))
            return False
        wanted = {} if self._fetched else {width: keys.size for width, keys in self.keys.items()}
        size = messages.rows_size(wanted, head.dense, self.values)
        if list(rows.items()) != list(wanted.items()) or size != header.length or head.placed > self._fetched:
            raise FrameError("ROWS holds other rows than were asked for")
        if not head.placed:
            self._read_dense(take, head.dense)
        for width, n in wanted.items():
            self._read_rows(take, width, n)
        return messages.read_last(take(messages.LAST)) == self.request

    def _read_dense(self, take: _Take, size: int) -> None:
        if size != self.dense.size:
            self.dense = np.empty(size, np.float32)
        _read_into(take, self.dense)

    def _read_rows(self, take: _Take, width: int, n: int) -> None:
        order, out = self.places[width]
        item = ITEM[self.values]
        if order is None and self.values is RowType.FLOAT32:
            _read_into(take, out)
            return
        step = max(PIECE // (width * item), 1)
        for start in range(0, n, step):
            stop = min(start + step, n)
            raw = take((stop - start) * width * item).view(DTYPE[self.values]).reshape(-1, width)
            if order is None:
                out[start:stop] = decode(raw, self.values)
            else:
                merge_rows(decode(raw, self.values), order[start:stop], out)


def _read_into(take: _Take, out: F32) -> None:
    """Reads floats to where they belong."""
    raw = out.reshape(-1).view(np.uint8)
    got = take(raw.size, raw)
    if got is not raw:
        raw[:] = got
