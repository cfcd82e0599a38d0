"""All shards as a worker sees them: one pull, one push, one mark; split by bucket on the way out, merged on the way in.

A pool belongs to one incarnation of a worker. Pulls may come from one thread and pushes from another; two pulls do not
run at once (two threads that both fill sockets and do not read could wait for each other).
"""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from kuberec_api.training import RowType
from kuberec_runtime.table.buckets import I64
from kuberec_runtime.table.initial import F32
from kuberec_runtime.wire import messages
from kuberec_runtime.wire.errors import FrameError
from kuberec_runtime.wire.halves import Values, decode, encode
from kuberec_runtime.wire.link import Link, Patience, Terms
from kuberec_runtime.wire.messages import Hello
from kuberec_runtime.wire.routing import Route, dense_slice, group_rows, merge_rows, route


@dataclass(frozen=True)
class Pulled:
    """Answer of a pull.

    Attributes:
        rows: float32, shape (n, width), by width, in the order of the keys asked for.
        dense: float32, shape (d,), the whole vector of dense weights.
    """

    rows: dict[int, F32]
    dense: F32


class ShardPool:
    """Connections of one worker to all shards."""

    def __init__(self, links: Sequence[Link]) -> None:
        self._links = links
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
        try:
            for shard, (host, port) in enumerate(addresses):
                hello = Hello(shard, len(addresses), worker, incarnation, digest, token, terms.values, terms.share)
                links.append(Link((host, port), hello, patience or Patience(), terms))
        except BaseException:
            for link in links:
                link.close()
            raise
        return cls(links)

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
        shards = len(self._links)
        with self._pulling:
            self._request += 1
            routes = {width: route(array, shards) for width, array in keys.items()}
            out = {width: np.empty((array.size, width), np.float32) for width, array in keys.items()}
            dense: list[F32] = [np.empty(0, np.float32)] * shards

            def deliver(shard: int, rows: dict[int, Values], part: F32) -> None:
                for width, way in routes.items():
                    got, order = rows.get(width), way.order[way.part(shard)]
                    if got is None or got.shape != (order.size, width):
                        raise FrameError(f"shard {shard} answered other rows than were asked for")
                    merge_rows(decode(got, self._values), order, out[width])
                dense[shard] = part.copy()
                self._dense[shard] = part.size

            for link in self._links:
                wanted = {width: way.keys[way.part(link.shard)] for width, way in routes.items()}
                link.ask(self._request, wanted, self._dense[link.shard], partial(deliver, link.shard))
            for link in self._links:
                link.answered()
            return Pulled(out, dense[0] if shards == 1 else np.concatenate(dense))

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
                    self._fill(places[width], grads[width], way.order[parts[width]])
                link.push(sequence, region)

    def _fill(self, place: Values, grads: F32, order: I64) -> None:
        """Gathers a shard's gradients to where they travel from."""
        if self._values is RowType.FLOAT32:
            group_rows(grads, order, place)
        else:
            encode(group_rows(grads, order), self._values, place)

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
