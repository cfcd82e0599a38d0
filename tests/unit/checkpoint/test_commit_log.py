import json

import pytest
from obstore.store import MemoryStore

from kuberec_runtime.checkpoint import (
    AlreadyCommitted,
    CommitLog,
    CorruptLog,
    Fenced,
    ObjectExists,
    Store,
    StoreError,
    read_commits,
    read_log,
)
from kuberec_runtime.checkpoint.log import HEAD, read_record, slot


@pytest.fixture
def store():
    return Store("memory://log", MemoryStore())


def test_first_start_finds_nothing_committed(store):
    assert CommitLog(store, 1).start() is None


def test_a_new_attempt_starts_from_the_last_commit(store):
    first = CommitLog(store, 1)
    first.start()
    first.commit(1, "manifests/1-1-a.json")
    first.commit(2, "manifests/2-1-b.json")
    resumed = CommitLog(store, 2).start()
    assert (resumed.epoch, resumed.attempt, resumed.manifest) == (2, 1, "manifests/2-1-b.json")


def test_a_stale_attempt_is_fenced_and_told_which_attempt_owns_the_log(store):
    stale = CommitLog(store, 1)
    stale.start()
    CommitLog(store, 7).start()
    with pytest.raises(Fenced, match=r"memory://log: attempt 7 .* owns the log, this is attempt 1"):
        stale.commit(1, "m")
    with pytest.raises(Fenced):
        stale.check()
    assert read_log(store).last is None


def test_an_attempt_number_is_used_once(store):
    CommitLog(store, 3).start()
    with pytest.raises(Fenced, match="start with 4 or higher"):
        CommitLog(store, 3).start()
    with pytest.raises(Fenced):
        CommitLog(store, 2).start()


def test_a_twin_with_the_same_attempt_number_cannot_commit(store):
    CommitLog(store, 1).start()
    with pytest.raises(Fenced, match="attempt 1"):
        CommitLog(store, 1).commit(1, "m")


def test_an_epoch_is_committed_once(store):
    log = CommitLog(store, 1)
    log.start()
    log.commit(5, "a")
    for epoch in (4, 5):
        with pytest.raises(AlreadyCommitted, match="epoch 5 is"):
            log.commit(epoch, "b")


class Lossy(Store):
    """Loses the reply of every create-only put, after (or before) it landed."""

    def __init__(self, uri, objects, lands=True, error=StoreError):
        super().__init__(uri, objects)
        self.lands, self.error = lands, error

    def put(self, key, data, *, create=False):
        if not create:
            return super().put(key, data)
        if self.lands:
            super().put(key, data, create=True)
        raise self.error("reply lost")


@pytest.mark.parametrize("error", [StoreError, ObjectExists])
def test_a_lost_reply_of_a_record_that_landed_is_a_success(error):
    store = Lossy("memory://lossy", MemoryStore(), error=error)
    log = CommitLog(store, 1)
    assert log.start() is None
    assert log.commit(1, "m").epoch == 1
    assert read_log(store).next == 2


def test_a_put_that_failed_and_did_not_land_raises():
    store = Lossy("memory://down", MemoryStore(), lands=False)
    with pytest.raises(StoreError, match="reply lost"):
        CommitLog(store, 1).start()


def test_a_store_without_conditional_writes_is_named_and_not_tried_forever(monkeypatch):
    monkeypatch.setattr("kuberec_runtime.checkpoint.log.CONFLICT_PAUSE_SECONDS", 0)
    store = Lossy("memory://odd", MemoryStore(), lands=False, error=ObjectExists)
    with pytest.raises(StoreError, match="does this store support conditional writes"):
        CommitLog(store, 1).start()


def test_a_commit_that_landed_late_counts_when_it_is_tried_again():
    objects = MemoryStore()
    log = CommitLog(Store("memory://late", objects), 1)
    log.start()
    twin = CommitLog(Store("memory://late", objects), 1, writer=log._writer)
    twin.commit(1, "m")  # stands for this process's own put, thought lost, that landed later
    assert log.commit(1, "m").sequence == 1
    with pytest.raises(AlreadyCommitted):
        log.commit(1, "another")


def test_a_rival_between_judging_and_claiming_is_judged_again():
    objects = MemoryStore()
    plain = Store("memory://rival", objects)

    class Slow(Store):
        def put(self, key, data, *, create=False):
            if create and json.loads(data)["kind"] == "commit":
                CommitLog(plain, 2).start()
            super().put(key, data, create=create)

    stale = CommitLog(Slow("memory://rival", objects), 1)
    stale.start()
    with pytest.raises(Fenced, match="attempt 2"):
        stale.commit(1, "m")
    assert [read_record(plain, k).kind.value for k in range(2)] == ["start", "start"]


def test_the_head_hint_saves_reading_old_slots(store):
    log = CommitLog(store, 1)
    log.start()
    for epoch in range(1, 20):
        log.commit(epoch, f"m{epoch}")
    reads = []

    class Counting(Store):
        def get(self, key):
            reads.append(key)
            return super().get(key)

    state = read_log(Counting("memory://log", store._objects))
    assert (state.last.epoch, state.next) == (19, 20)
    assert len(reads) == 3  # the hint, the slot it names, the free slot


@pytest.mark.parametrize(
    "hint", [b"not json", b"{}", b'{"next":3,"attempt":9,"owner":"x","last":null,"nonce":"forged"}']
)
def test_a_wrong_head_hint_changes_nothing(store, hint):
    log = CommitLog(store, 1)
    log.start()
    log.commit(1, "m1")
    log.commit(2, "m2")
    expected = read_log(store)
    store.put(HEAD, hint)
    assert read_log(store) == expected


def test_an_old_head_hint_is_read_on_from(store):
    log = CommitLog(store, 1)
    log.start()
    log.commit(1, "m1")
    old = bytes(store.get(HEAD))
    log.commit(2, "m2")
    store.put(HEAD, old)
    assert read_log(store).last.epoch == 2


def test_a_broken_slot_is_named(store):
    CommitLog(store, 1).start()
    store.put(slot(1), b'{"kind": "com')
    with pytest.raises(CorruptLog, match=r"memory://log/log/0+1\.json: not a record"):
        CommitLog(store, 2).start()


def test_commits_are_read_newest_first(store):
    for attempt in (1, 2):
        log = CommitLog(store, attempt)
        last = log.start()
        first = 1 if last is None else last.epoch + 1
        for epoch in range(first, first + 2):
            log.commit(epoch, f"m{epoch}")
    assert [(c.epoch, c.attempt) for c in read_commits(store)] == [(4, 2), (3, 2), (2, 1), (1, 1)]
