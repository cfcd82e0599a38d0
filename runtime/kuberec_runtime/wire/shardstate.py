"""What a shard knows, without sockets: tables, dense slice, who pushed what, and the barrier at which a cut is taken.

Invariants, which together make a cut exact:
1. *Order*: a session hands in one request at a time, in the order of its connection. A worker has at most one session;
   a newer one waits until the older has applied the push or placed the rows at hand, and the older then does no more.
2. *Once*: a push is applied if and only if its sequence is greater than the last applied one of the worker's
   incarnation, and rows, dense weights, sample counts and that last sequence change under the worker's lock. So a
   resent push is dropped whole, whatever was lost: the request, the answer, or the connection in between.
3. *Barrier*: a session that marked epoch E hands in nothing until E is closed. The cut is taken while every worker's
   current incarnation has marked and none is applying: it holds all that was pushed before the marks, nothing else,
   and the memory of (2) as of that moment.
4. *Closed epochs never reopen*: an epoch is closed by being taken or aborted. Its later marks return at once.
5. *Whole or broken*: a push that fails halfway (no memory for a new row) breaks the shard: nothing more is pulled,
   pushed or cut, as the same push sent again would count twice. The attempt goes on from its last commit.
6. *Nothing is forgotten*: dirty marks are cleared only by a take that succeeded; a take that fails midway, and
   `redirty` after a failed write, set them again. Rows set twice in two cuts are harmless, as a cut holds values.
7. *In step* (Sync mode): see `rounds`. A push returns when its step is applied, so a mark behind it marks that step.

Locks, always taken in this order: the rounds', a worker's lock, the barrier's, a table's or the dense weights'.
"""

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field

import numpy as np

from kuberec_runtime.crashpoints import crash_here
from kuberec_runtime.table import DenseState, DenseWeights, Rows, Table, shard_of
from kuberec_runtime.table.buckets import I64, foreign_key
from kuberec_runtime.table.initial import F32
from kuberec_runtime.table.table import Consumer
from kuberec_runtime.wire.errors import CutAborted, CutTimeout, FrameError, StaleEpoch, WireRefused
from kuberec_runtime.wire.messages import Push
from kuberec_runtime.wire.rounds import Rounds
from kuberec_runtime.wire.routing import dense_slice
from kuberec_runtime.wire.session import Session, Superseded
from kuberec_runtime.wire.shardconfig import Cut, DedupeMark, ShardConfig

__all__ = ["Cut", "DedupeMark", "Session", "ShardConfig", "ShardState", "Superseded"]


@dataclass
class _Worker:
    lock: threading.Lock = field(default_factory=threading.Lock)
    session: Session | None = None
    incarnation: int = -1
    sequence: int = -1
    watermark: int = 0


class ShardState:
    """Tables, dense weights, dedupe marks and the barrier of one shard. Every method may be called from any thread."""

    def __init__(self, config: ShardConfig) -> None:
        self.config = config
        self.tables = self._new_tables()
        part = dense_slice(config.dense_size, config.index, config.shards)
        self.dense = DenseWeights(part.stop - part.start, config.dense_optimizer)
        self._workers = [_Worker() for _ in range(config.workers)]
        self._rounds = Rounds(config.workers)
        self._barrier = threading.Condition()
        self._marks: dict[int, dict[int, Session]] = {}
        self._closed_epoch = -1
        self._taken: set[int] = set()
        self._applied: dict[int, int] = {}
        self._count = threading.Lock()
        self._over = False
        self._broken: str | None = None
        self.pushes = self.duplicates = self.cuts = self.aborted = 0
        foreign_key(np.zeros(1, np.int64), 0, 1)  # compiled before the shard says it is ready

    def _new_tables(self) -> dict[int, Table]:
        c = self.config
        return {
            width: Table(width, c.optimizer, c.initializer, c.seed, published=c.published, min_count=c.min_count)
            for width in c.widths
        }

    # -- sessions -------------------------------------------------------------------------------------------------

    def enter(self, worker: int, incarnation: int, hang_up: Callable[[], None] = lambda: None) -> Session:
        """Opens a worker's session and closes its older one; waits for a push or fetch of that to end.

        Marks of an epoch that is still open end with the session that made them: a worker that reconnects marks again,
        after what it sends again; a new incarnation was never asked to.

        Raises:
            WireRefused: no such worker, or a newer incarnation was here.
            Superseded: the shard is closing: refused, a worker would not come again and find that it is lost.
        """
        if not 0 <= worker < self.config.workers:
            raise WireRefused(f"shard {self.config.index} knows workers 0 to {self.config.workers - 1}, not {worker}")
        slot = self._workers[worker]
        with self._rounds.lock, slot.lock, self._barrier:
            if self._over:
                raise Superseded
            if incarnation < slot.incarnation:
                raise WireRefused(
                    f"incarnation {incarnation} of worker {worker} is stale: {slot.incarnation} has taken its place"
                )
            if slot.session is not None:
                slot.session.close()
                self._rounds.withdraw(slot.session)
            if incarnation > slot.incarnation:
                slot.incarnation, slot.sequence = incarnation, -1
                self._rounds.rejoin(worker)
            others = {e: {w: s for w, s in marked.items() if w != worker} for e, marked in self._marks.items()}
            self._marks = {epoch: marked for epoch, marked in others.items() if marked}
            slot.session = Session(worker, incarnation, hang_up, slot.lock)
            self._rounds.lock.notify_all()
            self._barrier.notify_all()
            return slot.session

    # -- requests -------------------------------------------------------------------------------------------------

    def pull_into(self, width: int, keys: I64, out: F32) -> None:
        """Weights of one width, float32 (n, width), into `out`; missing rows are created.

        Raises:
            FrameError: no table of that width, or a key that is negative or another shard's.
        """
        self._refuse_if_broken()
        self._check(width, keys)
        self.tables[width].pull(keys, out=out)

    def _refuse_if_broken(self) -> None:
        if self._broken is not None:
            raise WireRefused(self._broken)

    def push(self, session: Session, push: Push) -> bool:
        """Applies a push unless it was applied before; returns whether it was. In Sync mode its step is waited for.

        Nothing is applied unless all of it is acceptable.

        Raises:
            FrameError: a width, key or gradient that this shard cannot take.
            Superseded: the session is closed.
        """
        for width, keys in push.keys.items():
            self._check(width, keys)
        if push.dense.size not in (0, self.dense.size):
            raise FrameError(
                f"dense gradient has {push.dense.size} floats, shard {self.config.index} holds {self.dense.size}"
            )
        if self.config.synchronous:
            return self._push_in_step(session, push)
        now = int(time.time())
        return self._apply(session, push, min(push.watermark // 1000, now) or now)

    def _push_in_step(self, session: Session, push: Push) -> bool:
        """Parks a push until its step is complete; whoever completes it applies the pushes of all workers."""
        slot = self._workers[session.worker]
        with self._rounds.lock:
            if session.closed:
                raise Superseded
            if push.sequence <= slot.sequence:
                return self._apply(session, push, 0)
            self._refuse_if_broken()
            self._rounds.park(session, push)
            try:
                for owner, parked in self._rounds.complete():
                    # Event time, not the clock's: what a row remembers must not depend on when it was computed.
                    self._apply(owner, parked, parked.watermark // 1000)
            finally:
                self._rounds.lock.notify_all()
            self._rounds.lock.wait_for(
                lambda: session.closed or self._over or self._broken or slot.sequence >= push.sequence
            )
            if session.closed or self._over:
                self._rounds.withdraw(session)
                raise Superseded
            self._refuse_if_broken()
            return True

    def _apply(self, session: Session, push: Push, now: int) -> bool:
        slot = self._workers[session.worker]
        with slot.lock:
            if session.closed:
                raise Superseded
            if push.sequence <= slot.sequence:
                with self._count:
                    self.duplicates += 1
                return False
            self._refuse_if_broken()
            crash_here("shard.before-apply")
            try:
                for width, keys in push.keys.items():
                    self.tables[width].push(keys, push.grads[width], now=now)
                if push.dense.size:
                    self.dense.apply(push.dense)
            except BaseException as error:
                self._broken = f"shard {self.config.index} is broken, push {push.sequence} failed halfway: {error}"
                raise WireRefused(self._broken) from error
            with self._count:
                for partition, samples in push.applied.items():
                    self._applied[partition] = self._applied.get(partition, 0) + samples
                self.pushes += 1
            slot.sequence = push.sequence
            slot.watermark = max(slot.watermark, push.watermark)
            crash_here("shard.applied")
            return True

    def mark(self, session: Session, epoch: int) -> bool:
        """Stands at the barrier until the epoch is closed; returns whether its cut was taken.

        Raises:
            Superseded: the session was closed while it stood there.
        """
        with self._barrier:
            if not session.closed and epoch > self._closed_epoch:
                self._marks.setdefault(epoch, {})[session.worker] = session
                self._barrier.notify_all()
            self._barrier.wait_for(lambda: session.closed or self._over or epoch <= self._closed_epoch)
            if session.closed or self._over:
                raise Superseded
            return epoch in self._taken

    def _check(self, width: int, keys: I64) -> None:
        if width not in self.tables:
            raise FrameError(f"shard {self.config.index} has no rows of width {width}, only {sorted(self.tables)}")
        at = int(foreign_key(keys, self.config.index, self.config.shards))
        if at >= 0:
            raise FrameError(f"key {keys[at]} is negative or not of shard {self.config.index} of {self.config.shards}")

    # -- cuts -----------------------------------------------------------------------------------------------------

    def await_cut(self, epoch: int, consumer: Consumer, full: bool, timeout_s: float) -> Cut:
        """Waits for every worker's mark of `epoch`, copies what changed, and lets the workers go on.

        Args:
            epoch: greater than every epoch taken or aborted before.
            consumer: whose dirty marks are taken and cleared.
            full: copy all rows.
            timeout_s: how long to wait for marks, seconds.

        Raises:
            CutTimeout: a mark is missing; the epoch is aborted, the workers go on, dirty marks are kept.
            CutAborted: the epoch was aborted meanwhile.
            StaleEpoch: the epoch is closed already.
        """
        everyone = range(self.config.workers)
        with self._barrier:
            if epoch <= self._closed_epoch:
                raise StaleEpoch(f"epoch {epoch} is not newer than epoch {self._closed_epoch}, which is closed")
            self._barrier.wait_for(
                lambda: self._over or epoch <= self._closed_epoch or len(self._marks.get(epoch, ())) == len(everyone),
                timeout_s,
            )
            if self._over or epoch <= self._closed_epoch:
                raise CutAborted(f"epoch {epoch} was aborted while shard {self.config.index} waited for marks")
            marked = self._marks.get(epoch, {})
            missing = tuple(worker for worker in everyone if worker not in marked)
            if missing:
                self._close(epoch, taken=False)
                raise CutTimeout(epoch, missing, timeout_s)
            try:
                if self._broken is not None:
                    raise CutAborted(self._broken)
                cut = self._copy(epoch, consumer, full)
            except BaseException:
                self._close(epoch, taken=False)
                raise
            self._close(epoch, taken=True)
            return cut

    def _copy(self, epoch: int, consumer: Consumer, full: bool) -> Cut:
        began = time.perf_counter()
        rows: dict[int, Rows] = {}
        try:
            for width, table in self.tables.items():
                rows[width] = table.take_dirty(consumer, full)
            marks = [slot.watermark for slot in self._workers if slot.watermark]
            dedupe = {
                worker: DedupeMark(slot.incarnation, slot.sequence)
                for worker, slot in enumerate(self._workers)
                if slot.incarnation >= 0
            }
            dense = self.dense.snapshot()
        except BaseException:
            self.redirty(consumer, {width: taken.touched for width, taken in rows.items()})
            raise
        stall = time.perf_counter() - began
        return Cut(epoch, consumer, full, rows, dense, dict(self._applied), dedupe, min(marks, default=0), stall)

    def _close(self, epoch: int, *, taken: bool) -> None:
        self._closed_epoch = epoch
        self._marks = {open_: marked for open_, marked in self._marks.items() if open_ > epoch}
        if taken:
            self._taken.add(epoch)
            self.cuts += 1
        else:
            self.aborted += 1
        self._barrier.notify_all()

    def abort_cut(self, epoch: int) -> bool:
        """Closes an epoch without taking it and lets its workers go on; False if it was closed already."""
        with self._barrier:
            if epoch <= self._closed_epoch:
                return False
            self._close(epoch, taken=False)
            return True

    def redirty(self, consumer: Consumer, keys: Mapping[int, I64]) -> None:
        """The cut of these keys (by width) was taken but could not be written: the next one contains them again."""
        for width, array in keys.items():
            self.tables[width].redirty(consumer, array)

    def mark_all_dirty(self, consumer: Consumer) -> None:
        """Makes the consumer's next cut contain every row, e.g. after a restore, as nobody knows what was published."""
        for table in self.tables.values():
            table.mark_all_dirty(consumer)

    # -- life -----------------------------------------------------------------------------------------------------

    def restore(
        self,
        rows: Iterable[tuple[int, Rows]],
        dense: DenseState | None,
        applied: Mapping[int, int],
        dedupe: Mapping[int, DedupeMark] | None = None,
        epoch: int = -1,
    ) -> int:
        """Replaces everything by a checkpoint; sessions are closed, and their incarnations refused from now on.

        A worker that pushed to this shard before must come back with a higher incarnation: what it had under way was
        read from offsets that are rolled back, and must not be applied on top of what is read again.

        Args:
            rows: (width, rows) in the order of the chain (full first, then deltas: later rows win). Rows of other
                shards' buckets are passed over, so files of any former number of shards can be given as they are.
                Removed keys are removed, and published as removed.
            dense: this shard's slice, or None to keep zeros until `set_dense`.
            applied: samples by partition at the checkpoint.
            dedupe: last pushes in the checkpoint, for a shard that is replaced within an attempt while workers live on;
                None for a new attempt, whose sequences start again.
            epoch: of the checkpoint; later epochs must be greater.

        Returns:
            Rows restored to this shard, counting a row once per file that holds it.
        """
        c = self.config
        tables = self._new_tables()
        taken = 0
        for width, group in rows:
            if width not in tables:
                raise ValueError(f"checkpoint holds rows of width {width}, the model has {sorted(tables)}")
            keys, raw = np.ascontiguousarray(group.keys, np.int64), group.raw
            mine = shard_of(keys, c.shards) == c.index
            if not mine.all():
                keys, raw = keys[mine], raw[mine]
            if keys.size:
                tables[width].restore(keys, raw)
            if group.removed.size:
                gone = group.removed[shard_of(group.removed, c.shards) == c.index]
                tables[width].remove(gone, ("publication",))
            taken += keys.size
        with ExitStack() as everyone:
            # All at once, so that no worker comes back between the end of its session and the new tables.
            everyone.enter_context(self._rounds.lock)
            for slot in self._workers:
                everyone.enter_context(slot.lock)
            for slot in self._workers:
                if slot.session is not None:
                    slot.session.close()
                    slot.session = None
                    slot.incarnation += 1
                slot.sequence, slot.watermark = -1, 0
            for worker, mark in (dedupe or {}).items():
                if worker < len(self._workers) and mark.incarnation >= self._workers[worker].incarnation:
                    self._workers[worker].incarnation = mark.incarnation
                    self._workers[worker].sequence = mark.sequence
            self._rounds.reset((worker, slot.sequence) for worker, slot in enumerate(self._workers))
            everyone.enter_context(self._barrier)
            everyone.enter_context(self._count)
            self.tables = tables
            self._broken = None
            self._applied = dict(applied)
            self._marks.clear()
            self._closed_epoch = max(self._closed_epoch, epoch)
            if dense is not None:
                self.dense.restore(dense)
            self._barrier.notify_all()
        return taken

    def applied(self) -> dict[int, int]:
        """Samples applied so far, by partition."""
        with self._count:
            return dict(self._applied)

    def close(self) -> None:
        """Ends every session and every waiting cut."""
        with self._rounds.lock, self._barrier:
            self._over = True
            for slot in self._workers:
                if slot.session is not None:
                    slot.session.close()
            self._rounds.lock.notify_all()
            self._barrier.notify_all()
