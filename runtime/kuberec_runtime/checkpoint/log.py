"""The commit log: the creation of a COMMIT record is what commits an epoch, and what fences a stale attempt.

`log/<sequence>.json` are create-only slots, each START(attempt) or COMMIT(epoch, manifest). To append, a writer

1. reads every slot below k and judges on them: no newer START, the newest START is its own, the epoch is not committed;
2. claims slot k by a create-only put; if a rival sits in k, it reads the rival's record and judges again;
3. reads the slot back after *every* put: the nonce says whose it is (a lost reply looks like "exists already").

So every record in the log was judged on all records before it: a commit of attempt n after START(n + 1) cannot exist,
and the epoch that `start` returns cannot change under the attempt that was started. Slots are never deleted: a delayed
writer could recreate one. `log/HEAD.json` is only a hint where to start reading, verified against the slot it names.
"""

import json
import logging
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from kuberec_runtime.checkpoint.errors import (
    AlreadyCommitted,
    CorruptLog,
    Fenced,
    ObjectExists,
    ObjectMissing,
    StoreError,
)
from kuberec_runtime.checkpoint.store import Store
from kuberec_runtime.crashpoints import crash_here

logger = logging.getLogger(__name__)

HEAD = "log/HEAD.json"
CONFLICT_TRIES = 20
CONFLICT_PAUSE_SECONDS = 0.05


class Kind(StrEnum):
    """The two records."""

    START = "start"
    COMMIT = "commit"


@dataclass(frozen=True)
class Record:
    """One slot's content. `epoch` and `manifest` belong to COMMIT (-1 and "" in START)."""

    kind: Kind
    attempt: int
    writer: str
    nonce: str
    epoch: int = -1
    manifest: str = ""


@dataclass(frozen=True)
class Committed:
    """A committed epoch: its slot, the attempt that wrote it and its manifest's key."""

    sequence: int
    epoch: int
    attempt: int
    manifest: str


@dataclass(frozen=True)
class Judged:
    """What the slots 0..next-1 say: the next free slot, who owns the log, the last commit."""

    next: int = 0
    attempt: int = -1
    owner: str = ""
    last: Committed | None = None
    nonce: str = ""

    def after(self, record: Record) -> "Judged":
        """Returns the state after one more slot."""
        if record.kind is Kind.START:
            return replace(self, next=self.next + 1, attempt=record.attempt, owner=record.writer, nonce=record.nonce)
        last = Committed(self.next, record.epoch, record.attempt, record.manifest)
        return replace(self, next=self.next + 1, last=last, nonce=record.nonce)


def slot(sequence: int) -> str:
    """Returns the key of a slot."""
    return f"log/{sequence:020d}.json"


def read_record(store: Store, sequence: int) -> Record | None:
    """Reads a slot; None if it is free.

    Raises:
        CorruptLog: the slot holds something else than a record.
    """
    try:
        raw = bytes(store.get(slot(sequence)))
    except ObjectMissing:
        return None
    try:
        fields: dict[str, Any] = json.loads(raw)
        return Record(
            kind=Kind(fields["kind"]),
            attempt=int(fields["attempt"]),
            writer=str(fields["writer"]),
            nonce=str(fields["nonce"]),
            epoch=int(fields.get("epoch", -1)),
            manifest=str(fields.get("manifest", "")),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptLog(
            f"{store.uri}/{slot(sequence)}: not a record of the commit log ({error})\n"
            "  records are written whole, so something else wrote or cut this object; restore it from a backup, or "
            "start over under a new checkpoint URI"
        ) from error


def read_log(store: Store, since: Judged | None = None) -> Judged:
    """Reads the log to its end.

    Args:
        store: where it is.
        since: a state known to be true, to read on from; by default the verified HEAD hint, else slot 0.
    """
    state = _hinted(store) if since is None else since
    while (record := read_record(store, state.next)) is not None:
        state = state.after(record)
    return state


def read_commits(store: Store, before: int | None = None) -> Iterator[Committed]:
    """Yields commits newest first, reading backwards: restores need few of them.

    Args:
        store: where the log is.
        before: only slots below this sequence; by default the log's end.
    """
    sequence = read_log(store).next if before is None else before
    while sequence > 0:
        sequence -= 1
        record = read_record(store, sequence)
        if record is None:
            raise CorruptLog(
                f"{store.uri}/{slot(sequence)}: the slot is missing although a later one exists; slots are never "
                "deleted by KubeRec: restore it from a backup, or start over under a new checkpoint URI"
            )
        if record.kind is Kind.COMMIT:
            yield Committed(sequence, record.epoch, record.attempt, record.manifest)


def _hinted(store: Store) -> Judged:
    try:
        fields = json.loads(bytes(store.get(HEAD)))
        last = fields["last"]
        hint = Judged(
            next=int(fields["next"]),
            attempt=int(fields["attempt"]),
            owner=str(fields["owner"]),
            last=None if last is None else Committed(**last),
            nonce=str(fields["nonce"]),
        )
        record = read_record(store, hint.next - 1)
    except ObjectMissing:
        return Judged()
    except (ValueError, KeyError, TypeError):
        logger.warning("%s/%s is unreadable: reading the whole log", store.uri, HEAD)
        return Judged()
    if record is None or record.nonce != hint.nonce:
        logger.warning("%s/%s does not agree with its slot: reading the whole log", store.uri, HEAD)
        return Judged()
    return hint


class CommitLog:
    """One attempt's pen on the log.

    Args:
        store: the checkpoint's store.
        attempt: the fencing number, handed out by the operator (or the local runner), rising.
        writer: identity of this process; two processes with one attempt number are told apart by it.
    """

    def __init__(self, store: Store, attempt: int, writer: str | None = None) -> None:
        self._store = store
        self._attempt = attempt
        self._writer = writer or secrets.token_hex(16)
        self._state: Judged | None = None

    @property
    def last(self) -> Committed | None:
        """The last commit this process has seen."""
        return None if self._state is None else self._state.last

    def start(self) -> Committed | None:
        """Takes the log over for this attempt.

        Returns:
            The last committed epoch, which no older attempt can change from now on; None if there is none.

        Raises:
            Fenced: this attempt number, or a newer one, was started before.
        """
        self._append(Record(Kind.START, self._attempt, self._writer, ""), self._owns, self._judge_start)
        return self.last

    def commit(self, epoch: int, manifest_key: str) -> Committed:
        """Commits an epoch: everything its manifest names must be durable already.

        Raises:
            Fenced: a newer attempt owns the log; what this process still holds is worthless.
            AlreadyCommitted: the epoch or a later one is in the log.
        """

        def landed(state: Judged) -> bool:
            return (
                self._owns(state)
                and state.last is not None
                and (state.last.epoch, state.last.manifest)
                == (
                    epoch,
                    manifest_key,
                )
            )

        def judge(state: Judged) -> None:
            self._judge_owner(state)
            if state.last is not None and state.last.epoch >= epoch:
                raise AlreadyCommitted(
                    f"{self._store.uri}: epoch {epoch} cannot be committed, epoch {state.last.epoch} is "
                    f"(by attempt {state.last.attempt}, slot {state.last.sequence})"
                )

        self._append(Record(Kind.COMMIT, self._attempt, self._writer, "", epoch, manifest_key), landed, judge)
        assert self.last is not None
        return self.last

    def check(self) -> None:
        """Reads on and raises `Fenced` if this attempt no longer owns the log."""
        self._state = read_log(self._store, self._state)
        self._judge_owner(self._state)

    def _judge_start(self, state: Judged) -> None:
        if state.attempt >= self._attempt:
            raise Fenced(
                f"{self._store.uri}: attempt {self._attempt} cannot start, attempt {state.attempt} owns the log "
                f"(writer {state.owner[:8]}); an attempt number is used once: start with {state.attempt + 1} or higher"
            )

    def _owns(self, state: Judged) -> bool:
        return state.attempt == self._attempt and state.owner == self._writer

    def _judge_owner(self, state: Judged) -> None:
        if not self._owns(state):
            raise Fenced(
                f"{self._store.uri}: attempt {state.attempt} (writer {state.owner[:8] or 'none'}) owns the log, "
                f"this is attempt {self._attempt} (writer {self._writer[:8]}): it was replaced and must stop"
            )

    def _append(self, record: Record, landed: Callable[[Judged], bool], judge: Callable[[Judged], None]) -> None:
        """Appends a record; `landed` tells whether an earlier try of the same call, thought failed, did land."""
        record = replace(record, nonce=secrets.token_hex(16))
        body = json.dumps({**vars(record), "kind": record.kind.value}).encode()
        state = self._state = read_log(self._store, self._state)
        refusals = 0
        while not landed(state):
            judge(state)
            crash_here("log.judged")
            failure: StoreError | None = None
            try:
                self._store.put(slot(state.next), body, create=True)
                crash_here("log.created")
            except ObjectExists:
                pass  # a rival's record, or our own whose reply was lost: the nonce tells
            except StoreError as error:
                failure = error  # the request may have landed all the same: the slot tells
            found = read_record(self._store, state.next)
            if found is not None:
                state = self._state = state.after(found)
                if found.nonce == record.nonce:
                    break
                continue
            if failure is not None:
                raise failure
            # S3 answers 409 when conditional writes collide, and neither may have landed.
            refusals += 1
            if refusals >= CONFLICT_TRIES:
                raise StoreError(
                    f"{self._store.uri}/{slot(state.next)}: {refusals} create-only puts were refused although the "
                    "slot is free: does this store support conditional writes (If-None-Match)?"
                )
            time.sleep(CONFLICT_PAUSE_SECONDS * min(refusals, 10))
        self._leave_hint(state)

    def _leave_hint(self, state: Judged) -> None:
        fields = {**vars(state), "last": None if state.last is None else vars(state.last)}
        try:
            self._store.put(HEAD, json.dumps(fields).encode())
            crash_here("log.hinted")
        except StoreError as error:
            logger.warning("the record is in the log, only its hint is not: %s", error)
