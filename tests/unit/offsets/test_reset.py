"""A reset under the rules of the commit log, on a memory store; and what is shown of offsets."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from obstore.store import MemoryStore
from typer.testing import CliRunner

from kuberec_api.meta import timestamp
from kuberec_runtime.checkpoint import (
    CommitLog,
    Fenced,
    Manifest,
    PartitionOffset,
    Store,
    find_restorable,
    open_store,
    read_log,
    restore,
    retain,
)
from kuberec_runtime.cli.offsets import app
from kuberec_runtime.offsets import propose
from kuberec_runtime.offsets.reset import ResetRefused, append_epoch, last_epoch, sign_of_life
from kuberec_runtime.offsets.standing import standings
from kuberec_runtime.stream.ends import Ends
from tests.unit.epochs.epochs import CATE, commit, row

ROWS = {(CATE, i): row(1.0) for i in range(6)}
NOW = datetime(2026, 11, 24, 12, 0, 0, tzinfo=UTC)


@pytest.fixture
def store() -> Store:
    return Store("memory://reset", MemoryStore())


def trained(store: Store, **fields: object) -> tuple[CommitLog, Manifest]:
    log = CommitLog(store, 1)
    log.start()
    first = commit(store, log, 1, ROWS, **fields)
    return log, commit(store, log, 2, {(CATE, 0): row(9.0)}, first.chain, **fields)


def to_five(manifest: Manifest) -> tuple[PartitionOffset, ...]:
    return tuple(o.model_copy(update={"next": 5, "skip": 0}) for o in manifest.offsets)


def test_the_new_epoch_is_the_old_one_but_for_its_offsets(store: Store) -> None:
    _, newest = trained(store, metrics={"auc": 0.7}, published="1.2")
    files = {e.key for e in store.list("data")}
    done = append_epoch(store, 2, to_five, "offsets reset")
    plan, rows = restore(store)
    assert plan.manifest == done.after
    assert (done.after.epoch, done.after.attempt, done.committed.epoch) == (3, 2, 3)
    assert [o.next for o in done.after.offsets] == [5]
    differing = {"epoch", "attempt", "created_at", "offsets", "note"}
    assert done.after.model_dump(exclude=differing) == newest.model_dump(exclude=differing)
    assert {e.key for e in store.list("data")} == files, "rows and dense weights are named, not copied"
    assert len(rows[4][0]) == 6


def test_what_ran_can_neither_commit_nor_start_again(store: Store) -> None:
    log, _ = trained(store)
    done = append_epoch(store, 2, to_five, "")
    with pytest.raises(Fenced, match="attempt 2"):
        log.commit(3, "manifests/3-1-zombie.json")
    with pytest.raises(Fenced, match="start with 3 or higher"):
        CommitLog(store, 2).start()
    assert CommitLog(store, 3).start() == done.committed


def test_a_commit_that_came_in_between_is_built_upon(store: Store) -> None:
    log, shown = trained(store)
    commit(store, log, 3, {}, shown.chain)
    assert append_epoch(store, 2, to_five, "").before.epoch == 3


def test_a_number_that_somebody_took_is_fenced_and_changes_nothing(store: Store) -> None:
    _, newest = trained(store)
    CommitLog(store, 2).start()
    with pytest.raises(Fenced, match="start with 3 or higher"):
        append_epoch(store, 2, to_five, "")
    assert find_restorable(store).manifest == newest


def test_a_newer_attempt_before_the_commit_fences_the_reset(store: Store) -> None:
    _, newest = trained(store)

    def slow(manifest: Manifest) -> tuple[PartitionOffset, ...]:
        CommitLog(store, 3).start()
        return to_five(manifest)

    with pytest.raises(Fenced, match="attempt 3"):
        append_epoch(store, 2, slow, "")
    assert find_restorable(store).manifest == newest


def test_retention_keeps_the_files_that_only_the_reset_names(store: Store) -> None:
    trained(store)
    done = append_epoch(store, 2, to_five, "")
    retain(store, keep=1)
    assert find_restorable(store, checksums=True).manifest == done.after


def test_nothing_to_reset_is_refused(store: Store) -> None:
    with pytest.raises(ResetRefused, match=r"nothing is committed.*startFrom"):
        last_epoch(store)
    _, newest = trained(store)
    store.delete([newest.dense.key])
    with pytest.raises(ResetRefused, match="epoch 2 cannot be restored"):
        last_epoch(store)


def test_a_commit_younger_than_its_interval_is_a_sign_of_life() -> None:
    def manifest(age_s: float, interval_ms: int = 20_000, note: str = "") -> Manifest:
        created = timestamp(NOW - timedelta(seconds=age_s))
        return Manifest(epoch=7, attempt=1, digest="d", created_at=created, interval_ms=interval_ms, note=note)

    assert "epoch 7 was committed 12 s ago and the training commits every 20 s" in (
        sign_of_life(manifest(12), NOW) or ""
    )
    assert sign_of_life(manifest(29), NOW) is not None, "a cut takes a moment too"
    assert sign_of_life(manifest(31), NOW) is None
    assert sign_of_life(manifest(60, interval_ms=0), NOW) is not None, "unknown: the API's default of a minute"
    assert sign_of_life(manifest(-5), NOW) is not None, "clocks differ"
    assert sign_of_life(manifest(1, note="offsets reset to earliest"), NOW) is None


def test_standings_say_what_is_wrong() -> None:
    offsets = tuple(
        PartitionOffset(topic="t", partition=p, start=0, next=n) for p, n in ((0, 50), (1, 5), (2, 99), (4, 1))
    )
    ends = {0: Ends(10, 80), 1: Ends(10, 80), 2: Ends(0, 80), 3: Ends(7, 9)}
    found = {s.partition: (s.lag, s.note) for s in standings(offsets, ends)}
    assert found == {
        0: (30, ""),
        1: (70, "5 records expired before they were read"),
        2: (0, "behind the end: was the topic recreated?"),
        3: (2, "new, starts at the earliest record"),
        4: (None, "not in the topic any more"),
    }
    assert [(s.lag, s.note) for s in standings(offsets)] == [(None, "")] * 4


def test_show_prints_positions_and_whoever_started_since() -> None:
    uri = "memory://offsets-show"
    store = open_store(uri)
    trained(store)
    shown = CliRunner().invoke(app, ["show", uri])
    assert shown.exit_code == 0, shown.output
    assert "epoch 2 of attempt 1, 200 samples\n" in shown.output
    assert ["feed", "0", "200", "0", "-"] in [line.split() for line in shown.output.splitlines()]
    CommitLog(store, 2).start()
    assert "attempt 2 has started since" in CliRunner().invoke(app, ["show", uri]).output
    found = json.loads(CliRunner().invoke(app, ["show", uri, "--json"]).output)
    assert (found["epoch"], found["attempt"], found["newestAttempt"]) == (2, 1, 2)
    assert found["partitions"][0] | {"samples": 0} == {
        "topic": "feed", "partition": 0, "next": 200, "inMessage": 0, "end": None, "samples": 0,
        "earliest": None, "latest": None, "lag": None, "note": "",
    }  # fmt: skip


def test_reset_reads_its_words_before_it_asks_anybody() -> None:
    result = CliRunner().invoke(app, ["reset", "memory://none", "--to", "tomorrow", "--kafka", "nowhere:9092"])
    assert result.exit_code == 1
    assert "write earliest, latest" in " ".join(result.output.split())
    assert read_log(open_store("memory://none")).next == 0


def test_rows_of_files_are_not_moved(store: Store) -> None:
    trained(store, offsets=(PartitionOffset(topic="file:///day/a.parquet#0+2", partition=0, start=0, next=0, end=1),))
    with pytest.raises(ResetRefused, match=r"reads files.*\n?.*fresh checkpoint\.uri"):
        propose(store, "earliest", "none:1", NOW)
