"""All shards as a worker sees them: one pull, one push, one mark; split by bucket on the way out, merged on the way in.

With shards of the same machine a pull lies in memory that all of them map: keys, where their rows go, and the rows,
which every shard writes to their final place. That memory is free again when the last array on it is gone. What a pull
that failed had placed is not used again: a shard may still be writing there.

A pool belongs to one incarnation of a worker. Pulls may come from one thread and pushes from another; two pulls do not
run at once (two threads that both fill sockets and do not read could wait for each other).
"""

import logging
import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt

from kuberec_api.training import RowType
from kuberec_runtime.table.arena import lines
from kuberec_runtime.table.buckets import I64
from kuberec_runtime.table.initial import F32
from kuberec_runtime.wire import messages
from kuberec_runtime.wire.frames import LINE
from kuberec_runtime.wire.halves import Values, encode
from kuberec_runtime.wire.link import Link, Patience, Terms
from kuberec_runtime.wire.messages import Fetch, Hello, Placed
from kuberec_runtime.wire.routing import I32, Route, dense_slice, group_rows, route, route_words
from kuberec_runtime.wire.segment import Arena, Memory, lease
from kuberec_runtime.wire.share import Share

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pulled:
    """Answer of a pull.

    Attributes:
        rows: float32, shape (n, width), by width, in the order of the keys asked for; perhaps in shared memory.
        dense: float32, shape (d,), the whole vector of dense weights; likewise.
    """

    rows: dict[int, F32]
    dense: F32


class _Room:
    """Arrays in shared memory, or in private memory if one of them does not fit there; `shared` says which."""

    def __init__(self, arena: Arena | None) -> None:
        self._arena = arena
        self.shared = arena is not None

    def array(self, dtype: type[np.generic], *shape: int) -> tuple[npt.NDArray[Any], int]:
        """An array, and the byte of the segment at which it begins."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        region = self._arena.take(size) if self._arena is not None and self.shared else None
        if region is None:
            self.shared = False
            return lines(dtype, *shape), 0
        return lease(region, dtype, *shape), region.place * LINE


class ShardPool:
    """Connections of one worker to all shards."""

    def __init__(self, links: Sequence[Link], memory: Memory | None = None) -> None:
        self._links = links
        self._memory = memory
        self._abandoned: list[list[Share]] = []
        self._pulling = threading.Lock()
        self._pushing = threading.Lock()
        self._request = 0
        self._dense = [0] * len(links)
        self._values = links[0].terms.values

    @classmethod
    def connect(
        cls,
        addresses: Sequence[tuple[str, int]],
        token: bytes,
        digest: str,
        worker: int,
        incarnation: int,
        patience: Patience | None = None,
        terms: Terms | None = None,
    ) -> "ShardPool":
        """Connects to every shard.

        Args:
            addresses: (host, port) of shard 0, 1, ...
            token: the attempt's secret.
            digest: of the feature plan this worker computes.
            worker: number of this worker, from 0.
            incarnation: greater than that of any earlier process or rollback of this worker; an attempt number in the
                high bits keeps it rising over attempts.
            patience: timeouts.
            terms: row type, shared memory, checksums.

        Raises:
            WireRefused: a shard will not serve this worker; the message says why.
            ShardLost: a shard cannot be reached.
        """
        links: list[Link] = []
        terms = terms or Terms()
        memory = _memory(terms)
        share = memory is not None
        try:
            for shard, (host, port) in enumerate(addresses):
                hello = Hello(shard, len(addresses), worker, incarnation, digest, token, terms.values, share)
                links.append(Link((host, port), hello, patience or Patience(), terms, memory))
        except BaseException:
            for link in links:
                link.close()
            if memory is not None:
                memory.close()
            raise
        return cls(links, memory)

    @property
    def shards(self) -> int:
        """Number of shards."""
        return len(self._links)

    @property
    def outstanding(self) -> int:
        """Largest number of pushes that a shard has not acknowledged, as far as answers were read."""
        return max(link.outstanding for link in self._links)

    @property
    def reconnects(self) -> int:
        """Connections mended so far."""
        return sum(link.reconnects for link in self._links)

    @property
    def ways(self) -> list[str]:
        """How rows travel now, by shard."""
        return [link.way for link in self._links]

    def pull(self, keys: Mapping[int, I64]) -> Pulled:
        """Current rows of `keys` (int64, shape (n,), unique, by width) and the dense weights.

        Raises:
            ShardLost: a shard does not answer.
            WireRefused: a shard refuses, e.g. as this worker's incarnation is stale.
        """
        with self._pulling:
            self._request += 1
            out, dense, shares = self._shares(keys)
            try:
                for link, share in zip(self._links, shares, strict=True):
                    link.ask(share)
                for link in self._links:
                    link.answered()
            except BaseException:
                self._abandoned.append(shares)
                raise
            self._dense = [share.dense.size for share in shares]
            if sum(self._dense) != dense.size:
                dense = np.concatenate([share.dense for share in shares])
            return Pulled(out, dense)

    def _shares(self, keys: Mapping[int, I64]) -> tuple[dict[int, F32], F32, list[Share]]:
        """Splits a pull; if all of it finds room in shared memory, it can be fetched."""
        shards = range(len(self._links))
        ours = self._memory
        memory = _Room(ours.arena if ours is not None and any(link.shares for link in self._links) else None)
        dense, dense_at = memory.array(np.float32, sum(self._dense))
        starts = [0, *accumulate(self._dense)]
        out: dict[int, F32] = {}
        routes: dict[int, Route] = {}
        blocks: list[list[Placed]] = [[] for _ in shards]
        for width, array in keys.items():
            out[width], rows_at = memory.array(np.float32, array.size, width)
            words, keys_at = memory.array(np.int64, route_words(array.size, len(shards)))
            way = routes[width] = route(array, len(shards), words)
            order_at = keys_at + 8 * way.keys.size
            for shard in shards:
                start, n = way.starts[shard], way.ends[shard] - way.starts[shard]
                if way.order is None:
                    placed = Placed(width, n, keys_at + 8 * start, 0, rows_at + 4 * width * start, n)
                else:
                    placed = Placed(width, n, keys_at + 8 * start, order_at + 4 * start, rows_at, array.size)
                blocks[shard].append(placed)
        shares = [
            Share(
                self._request,
                {width: way.keys[way.part(shard)] for width, way in routes.items()},
                {width: _places(way, shard, out[width]) for width, way in routes.items()},
                dense[starts[shard] : starts[shard + 1]],
                self._values,
                Fetch(self._request, dense_at + 4 * starts[shard], self._dense[shard], tuple(blocks[shard]))
                if memory.shared
                else None,
            )
            for shard in shards
        ]
        return out, dense, shares

    def push(
        self,
        sequence: int,
        keys: Mapping[int, I64],
        grads: Mapping[int, F32],
        dense_grad: F32,
        applied: Mapping[int, int],
        watermark: int = 0,
    ) -> None:
        """Sends one step's gradients to all shards; the arrays may be changed afterwards.

        Returns once they are sent, which is at once unless too many bytes are under way.

        Every shard gets the push, with its share of the rows (perhaps none) and of the dense gradient, so that all
        count the same samples.

        Args:
            sequence: greater than that of this incarnation's push before.
            keys: int64, shape (n,), unique, by width.
            grads: float32, shape (n, width), by width.
            dense_grad: float32, shape (d,), or empty for no dense step.
            applied: samples of the step, by partition.
            watermark: newest event time of the samples, ms.

        Raises:
            ShardLost: a shard cannot be reached any more.
            WireRefused: a shard refuses, e.g. as this worker's incarnation is stale.
        """
        shards = len(self._links)
        if set(keys) != set(grads):
            raise ValueError(f"keys have widths {sorted(keys)}, gradients {sorted(grads)}")
        routes: dict[int, Route] = {}
        for width, array in keys.items():
            if grads[width].shape != (array.size, width) or grads[width].dtype != np.float32:
                raise ValueError(
                    f"gradients of width {width} must be float32 of shape {(array.size, width)}, "
                    f"got {grads[width].dtype} {grads[width].shape}"
                )
            routes[width] = route(array, shards)
        dense = np.asarray(dense_grad, np.float32).reshape(-1)
        with self._pushing:
            for link in self._links:
                mine = dense[dense_slice(dense.size, link.shard, shards)]
                parts = {width: way.part(link.shard) for width, way in routes.items()}
                wanted = {width: way.keys[parts[width]] for width, way in routes.items()}
                counts = {width: array.size for width, array in wanted.items()}
                region = link.outbox(messages.push_size(counts, len(applied), mine.size, self._values))
                places = messages.write_push(region.bytes, sequence, watermark, wanted, applied, mine, self._values)
                for width, way in routes.items():
                    self._fill(places[width], grads[width], way, parts[width])
                link.push(sequence, region)

    def _fill(self, place: Values, grads: F32, way: Route, part: slice) -> None:
        """Gathers a shard's gradients to where they travel from."""
        if way.order is None:
            encode(grads[part], self._values, place)
        elif self._values is RowType.FLOAT32:
            group_rows(grads, way.order[part], place)
        else:
            encode(group_rows(grads, way.order[part]), self._values, place)

    def wait(self, outstanding: int) -> None:
        """Returns once every shard has acknowledged all but `outstanding` pushes (bounded staleness).

        Raises:
            ShardLost: a shard does not answer.
            WireRefused: a shard refuses.
        """
        for link in self._links:
            link.wait(outstanding)

    def mark(self, epoch: int) -> None:
        """Writes MARK(epoch) behind all that was pushed; the shards read on only once the epoch is taken or aborted."""
        with self._pushing:
            for link in self._links:
                link.mark(epoch)

    def settle(self) -> None:
        """Returns once every push is applied and every marked epoch is closed."""
        for link in self._links:
            link.settle()

    def close(self) -> None:
        """Hangs up. Call `settle` first, or what is not acknowledged may be lost."""
        for link in self._links:
            link.close()
        if self._memory is not None:
            self._memory.close()
            self._memory = None
        self._abandoned.clear()


def _places(way: Route, shard: int, out: F32) -> tuple[I32 | None, F32]:
    part = way.part(shard)
    return (None, out[part]) if way.order is None else (way.order[part], out)


def _memory(terms: Terms) -> Memory | None:
    """Memory to share, if it is asked for and there is any."""
    if not terms.share:
        return None
    try:
        return Memory(terms.segment)
    except OSError as error:
        log.info("this worker has no memory to share: %s", error.strerror or error)
        return None
