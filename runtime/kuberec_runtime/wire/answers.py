"""A shard's answer to a pull, two MiB at a time: looked up, and sent or placed while a core still caches it.

Rows go out as they are found, so an answer takes the memory of one piece, whatever was asked for, and the worker reads
the first rows while the last are looked up. The price: what fails midway has begun to answer. It then fills up what it
announced, and the number at the end says that it is void.

Positions and keys of a fetch lie in memory that the worker may change: each piece of them is copied before it is
checked. Rows are placed only while the session is the worker's own (`Session.guard`): once a worker has another
connection, nobody writes into its memory because of the old one.
"""

from collections.abc import Iterator

import numpy as np

from kuberec_api.training import RowType
from kuberec_runtime.table.arena import lines
from kuberec_runtime.table.buckets import I64
from kuberec_runtime.table.errors import TableError
from kuberec_runtime.table.initial import F32
from kuberec_runtime.wire import messages
from kuberec_runtime.wire.channel import Channel
from kuberec_runtime.wire.errors import FrameError, WireError
from kuberec_runtime.wire.frames import BODY_LIMIT, Buffer, Kind
from kuberec_runtime.wire.halves import DTYPE, decode, encode
from kuberec_runtime.wire.messages import Fetch, Placed, Pull
from kuberec_runtime.wire.routing import I32, merge_rows
from kuberec_runtime.wire.session import Session
from kuberec_runtime.wire.shardstate import ShardState

PIECE = 2 << 20
"""Bytes of rows that are looked up at a time: small enough for a cache, and large enough not to count the calls."""
_MOST_KEYS = 1 << 16


class Answers:
    """Answers the pulls of one connection."""

    def __init__(self, state: ShardState, channel: Channel, session: Session, values: RowType) -> None:
        self._state, self._channel, self._session, self._values = state, channel, session, values
        self._rows = lines(np.float32, PIECE // 4)
        self._keys: I64 = np.empty(0, np.int64)

    def pull(self, pull: Pull) -> None:
        """Sends the rows of a pull, and the dense slice.

        Raises:
            FrameError: a width or key that is not of this shard, or too many of them.
            TableError: no room for a new row.
            OSError: the connection is broken.
        """
        counts = {width: keys.size for width, keys in pull.keys.items()}
        dense = np.empty(self._state.dense.size, np.float32)
        size = messages.rows_size(counts, dense.size, self._values)
        if messages.rows_size(counts, dense.size, RowType.FLOAT32) > BODY_LIMIT:
            raise FrameError(f"a pull of {size} bytes exceeds the limit of {BODY_LIMIT}")
        self._state.dense.read_into(dense)
        waiting: list[Buffer] = [messages.pack_rows(pull.request, counts, dense.size), dense.view(np.uint8).data]
        sending = self._channel.sending(Kind.ROWS, size)
        found = False
        try:
            for width, keys in pull.keys.items():
                for start, stop in _pieces(keys.size, width):
                    if found:  # they go before the next ones take their place, and the last with the end
                        sending.send(waiting)
                        waiting = []
                    waiting.append(self._found(width, keys[start:stop]))
                    found = True
        except (WireError, TableError):
            sending.fill_up()
            raise
        sending.send([*waiting, messages.pack_last(pull.request)])

    def _found(self, width: int, keys: I64) -> Buffer:
        rows = self._lookup(width, keys)
        if self._values is not RowType.FLOAT32:
            halves = np.empty(rows.shape, DTYPE[self._values])
            encode(rows, self._values, halves)
            return halves.reshape(-1).view(np.uint8).data
        return rows.reshape(-1).view(np.uint8).data

    def _lookup(self, width: int, keys: I64) -> F32:
        rows = self._rows[: keys.size * width].reshape(keys.size, width)
        self._state.pull_into(width, keys, rows)
        return rows

    def fetch(self, fetch: Fetch) -> None:
        """Writes the rows of a fetch, and the dense slice, where the worker wants them, and says so.

        Raises:
            FrameError: a width, key, position or place that is not acceptable; some rows may have been written.
            TableError: no room for a new row.
            Superseded: the session is closed; nothing more is written.
            OSError: the connection is broken.
        """
        segment = self._channel.segment
        if segment is None:
            raise FrameError("a FETCH, but this connection has no shared memory")
        dense = self._state.dense
        for block in fetch.blocks:
            with self._session.guard():
                keys = segment.span(block.keys_at, 8 * block.keys).view(np.int64)
                rows = segment.span(block.rows_at, 4 * block.rows * block.width).view(np.float32)
                out = rows.reshape(block.rows, block.width)
                if block.order_at:
                    order = segment.span(block.order_at, 4 * block.keys).view(np.int32)
                    self._scatter(block, keys, order, out)
                elif block.keys == block.rows:
                    self._fill(block, keys, out)
                else:
                    raise FrameError(f"FETCH wants {block.keys} rows in order at {block.rows} positions")
        placed = fetch.dense == dense.size
        if placed:
            with self._session.guard():
                dense.read_into(segment.span(fetch.dense_at, 4 * dense.size).view(np.float32))
        parts: list[Buffer] = [messages.pack_rows(fetch.request, {}, 0 if placed else dense.size, placed)]
        if not placed:
            copy = np.empty(dense.size, np.float32)
            dense.read_into(copy)
            parts.append(copy.view(np.uint8).data)
        self._channel.send(Kind.ROWS, [*parts, messages.pack_last(fetch.request)])

    def _fill(self, block: Placed, keys: I64, out: F32) -> None:
        """Writes the rows of keys one after another."""
        for start in range(0, block.keys, _MOST_KEYS):
            mine = self._own(keys[start : start + _MOST_KEYS])
            rows = out[start : start + _MOST_KEYS]
            if self._values is RowType.FLOAT32:
                self._state.pull_into(block.width, mine, rows)
            else:
                for first, last in _pieces(mine.size, block.width):
                    rows[first:last] = self._rounded(self._lookup(block.width, mine[first:last]))

    def _own(self, keys: I64) -> I64:
        """A copy of keys that others may change."""
        if self._keys.size < keys.size:
            self._keys = np.empty(keys.size, np.int64)
        mine = self._keys[: keys.size]
        mine[:] = keys
        return mine

    def _scatter(self, block: Placed, keys: I64, order: I32, out: F32) -> None:
        """Writes the row of each key at its position."""
        for start, stop in _pieces(block.keys, block.width):
            places = order[start:stop].copy()
            # As unsigned, so that one comparison finds negative ones, too.
            if int(places.view(np.uint32).max()) >= block.rows:
                raise FrameError(f"FETCH wants a row of width {block.width} at a position beyond the {block.rows} rows")
            found = self._lookup(block.width, self._own(keys[start:stop]))
            merge_rows(self._rounded(found), places, out)

    def _rounded(self, rows: F32) -> F32:
        """Rows as they would arrive through a stream."""
        if self._values is RowType.FLOAT32:
            return rows
        halves = np.empty(rows.shape, DTYPE[self._values])
        encode(rows, self._values, halves)
        return decode(halves, self._values)


def _pieces(rows: int, width: int) -> Iterator[tuple[int, int]]:
    step = max(PIECE // (4 * width), 1)
    for start in range(0, rows, step):
        yield start, min(start + step, rows)
