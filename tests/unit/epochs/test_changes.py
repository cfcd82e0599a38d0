"""What `checkpoints diff` says about two epochs."""

import json

import numpy as np
import pytest
from obstore.store import MemoryStore
from typer.testing import CliRunner

from kuberec_runtime.checkpoint import CommitLog, Store, open_store
from kuberec_runtime.cli.checkpoints import app
from kuberec_runtime.epochs.changes import compare
from kuberec_runtime.epochs.groups import portions, rows_by_width
from kuberec_runtime.table.buckets import split_key
from tests.unit.epochs.epochs import CATE, USER, commit, row


@pytest.fixture
def store() -> Store:
    return Store("memory://changes", MemoryStore())


@pytest.fixture
def log(store: Store) -> CommitLog:
    log = CommitLog(store, 1)
    log.start()
    return log


FIRST = {(CATE, i): row(1.0) for i in range(6)} | {(USER, i): row(2.0) for i in range(4)}
THEN = {(CATE, 0): row(1.0), (CATE, 1): row(1.5), (CATE, 9): row(3.0), (USER, 3): row(5.0)}


@pytest.mark.parametrize("shards", [(1, 1), (2, 2), (2, 1), (1, 2)])
def test_a_delta_adds_and_changes_rows_by_table(store: Store, log: CommitLog, shards: tuple[int, int]) -> None:
    before = commit(store, log, 1, FIRST, shards=shards[0])
    after = commit(store, log, 2, THEN, before.chain, shards=shards[1])
    cate, user = compare(store, before, after).tables
    assert (cate.name, cate.before, cate.added, cate.changed, cate.removed, cate.after) == ("cate", 6, 1, 1, 0, 7)
    assert (user.name, user.before, user.added, user.changed, user.removed, user.after) == ("user", 4, 0, 1, 0, 4)
    assert cate.mean_move == pytest.approx(1.0)  # four weights moved by 0.5
    assert user.mean_move == pytest.approx(6.0)


def test_a_full_link_in_between_is_compared_row_by_row_and_rows_can_be_missing(store: Store, log: CommitLog) -> None:
    before = commit(store, log, 1, FIRST)
    everything = {**FIRST, **THEN}
    del everything[USER, 0]
    after = commit(store, log, 2, everything, before.chain, full=True, shards=2)
    cate, user = compare(store, before, after).tables
    assert (cate.added, cate.changed, cate.removed) == (1, 1, 0)
    assert (user.added, user.changed, user.removed, user.after) == (0, 1, 1, 3)


def test_counters_alone_make_a_row_changed_although_it_did_not_move(store: Store, log: CommitLog) -> None:
    before = commit(store, log, 1, FIRST)
    after = commit(store, log, 2, {(CATE, 0): row(1.0, frequency=2)}, before.chain)
    cate = compare(store, before, after).tables[0]
    assert (cate.changed, cate.mean_move) == (1, 0.0)


def test_over_several_links_the_newest_row_counts_once(store: Store, log: CommitLog) -> None:
    before = commit(store, log, 1, FIRST)
    between = commit(store, log, 2, {(CATE, 0): row(7.0), (CATE, 7): row(1.0)}, before.chain)
    after = commit(store, log, 3, {(CATE, 0): row(1.0)}, between.chain)  # back to where it was
    cate = compare(store, before, after).tables[0]
    assert (cate.added, cate.changed) == (1, 0)


def test_a_tombstone_removes_what_was_there_unless_it_came_back(store: Store, log: CommitLog) -> None:
    before = commit(store, log, 1, {(CATE, i): row(1.0) for i in range(5)})
    between = commit(store, log, 2, {}, before.chain, removed=((CATE, 0), (CATE, 1), (CATE, 9)))
    after = commit(store, log, 3, {(CATE, 1): row(2.0)}, between.chain, removed=((CATE, 2),))
    assert after.chain[-1].words == 7 + 2
    cate = compare(store, before, after).tables[0]
    assert (cate.before, cate.added, cate.changed, cate.removed, cate.after) == (5, 0, 1, 2, 3)
    rows = rows_by_width(store, after, range(256))[4]
    assert split_key(rows.keys)[1].tolist() == [1, 3, 4]
    assert rows.raw[:, 0].tolist() == [2.0, 1.0, 1.0]
    cate = compare(store, after, commit(store, log, 4, {(CATE, 1): row(2.0)}, full=True)).tables[0]
    assert (cate.removed, cate.after) == (2, 1)


def test_dense_weights_by_name_and_all_together(store: Store, log: CommitLog) -> None:
    before = commit(store, log, 1, FIRST, dense=1.0)
    after = commit(store, log, 2, {}, before.chain, dense=3.0)
    changes = compare(store, before, after)
    kernel, bias, whole = changes.weights
    assert (kernel.name, kernel.size) == ("deep_0/kernel", 6)
    assert (bias.before, bias.after) == (pytest.approx(np.sqrt(3)), pytest.approx(3 * np.sqrt(3)))
    assert whole.distance == pytest.approx(6.0)
    assert changes.steps == (1, 2)


def test_epochs_of_another_release_have_no_names_but_are_compared(store: Store, log: CommitLog) -> None:
    before = commit(store, log, 1, FIRST, tables=(), weights=())
    after = commit(store, log, 2, THEN, before.chain, tables=(), weights=())
    changes = compare(store, before, after)
    assert [t.name for t in changes.tables] == ["table 0", "table 2"]
    assert [w.name for w in changes.weights] == ["all"]


def test_portions_share_no_file_and_cover_all(store: Store, log: CommitLog) -> None:
    halves = commit(store, log, 1, FIRST, shards=2)
    whole = commit(store, log, 2, FIRST, shards=1, full=True)
    assert portions([halves]) == [range(128), range(128, 256)]
    assert portions([halves, whole]) == [range(256)]


def uri_with_epochs(name: str) -> str:
    uri = f"memory://{name}"
    store = open_store(uri)
    log = CommitLog(store, 1)
    log.start()
    first = commit(store, log, 1, FIRST, metrics={"auc": 0.6}, libraries={"numpy": "2.3"}, plan={"abi": 1})
    second = commit(store, log, 2, {}, first.chain, metrics={"auc": 0.65}, libraries={"numpy": "2.3"}, plan={"abi": 1})
    commit(
        store, log, 3, THEN, second.chain,
        metrics={"auc": 0.7, "loss": None}, libraries={"numpy": "2.4"}, digest="e" * 64, plan={"abi": 2},
    )  # fmt: skip
    return uri


def test_diff_compares_the_newest_two_by_default_and_others_if_asked() -> None:
    uri = uri_with_epochs("diff-json")
    found = json.loads(CliRunner().invoke(app, ["diff", uri, "--json"]).output)
    assert (found["from"]["epoch"], found["to"]["epoch"]) == (2, 3)
    assert found["partitions"] == [
        {"topic": "feed", "partition": 0, "from": [200, 0], "to": [300, 0], "samples": [200, 300]}
    ]
    assert found["metrics"] == {"auc": [0.65, 0.7], "loss": [None, None]}
    assert found["libraries"] == {"numpy": ["2.3", "2.4"]}
    assert found["plan"]["same"] is False and "kernel ABI: 1 -> 2" in found["plan"]["changes"][0]
    asked = json.loads(CliRunner().invoke(app, ["diff", uri, "--from", "1", "--to", "2", "--json"]).output)
    assert (asked["from"]["epoch"], asked["to"]["epoch"], asked["plan"]["same"]) == (1, 2, True)
    assert [t["changed"] for t in asked["tables"]] == [0, 0]


def test_diff_is_readable() -> None:
    result = CliRunner().invoke(app, ["diff", uri_with_epochs("diff-text")])
    assert result.exit_code == 0, result.output
    lines = [" ".join(line.split()) for line in result.output.splitlines()]
    assert "cate 6 7 1 1 0 1" in lines
    assert "samples 200 300 +100" in lines
    assert any(line.startswith("auc 0.65 0.7 +0.05") for line in lines)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--from", "9"], "epoch 9 is not committed"),
        (["--from", "3", "--to", "2"], "epoch 3 is not older than epoch 2: swap them"),
        (["--to", "1"], "there is no epoch before 1"),
    ],
)
def test_diff_of_what_is_not_there_says_what_there_is(arguments: list[str], says: str) -> None:
    result = CliRunner().invoke(app, ["diff", uri_with_epochs("diff-bad" + "".join(arguments)), *arguments])
    assert result.exit_code == 1
    assert says in " ".join(result.output.split())
