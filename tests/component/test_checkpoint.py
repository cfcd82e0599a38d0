"""Commits on a real directory, killed between every two steps; torn files; forks."""

import multiprocessing
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from kuberec_runtime import checkpoint
from kuberec_runtime.checkpoint import (
    StoreError,
    find_restorable,
    open_store,
    read_commits,
    read_dense,
    restore,
    retain,
)
from tests.component.commit_steps import KEYS, commit_epochs, expected_at

STEPS = Path(__file__).with_name("commit_steps.py")


def crash_points():
    """Every `crash_here("...")` of the package."""
    folder = Path(checkpoint.__file__).parent
    return sorted(
        {point for file in folder.glob("*.py") for point in re.findall(r'crash_here\("(.+)"\)', file.read_text())}
    )


def commit_in_a_process(uri, attempt, until, crash_at=""):
    command = [sys.executable, STEPS, "commit", uri, str(attempt), str(until)]
    return subprocess.run(command, env={**os.environ, "KUBEREC_CRASH_AT": crash_at}, timeout=180).returncode


def test_every_step_of_a_commit_has_a_crash_point():
    assert set(crash_points()) >= {
        "checkpoint.before-rows",
        "checkpoint.rows-written",
        "checkpoint.before-dense",
        "checkpoint.dense-written",
        "checkpoint.before-manifest",
        "checkpoint.manifest-written",
        "log.judged",
        "log.created",
        "log.hinted",
        "store.temporary-written",
        "store.linked",
    }


@pytest.mark.parametrize("pass_", [1, 3])
@pytest.mark.parametrize("point", crash_points())
def test_killed_anywhere_an_epoch_is_whole_or_was_never_there(point, pass_, tmp_path):
    uri = f"file://{tmp_path}"
    killed = commit_in_a_process(uri, 1, until=6, crash_at=f"{point}@{pass_}")
    assert killed == -signal.SIGKILL
    store = open_store(uri)
    found = restore(store)
    epoch = 0
    if found is not None:
        plan, rows = found
        epoch = plan.manifest.epoch
        assert plan.skipped == ()
        keys, raw = rows[8]
        assert np.array_equal(keys, np.arange(KEYS))
        assert np.array_equal(raw, np.repeat(expected_at(epoch)[:, None], 12, axis=1))
        assert np.all(read_dense(store, plan.manifest.dense)[0]["weights"] == epoch)
    commit_epochs(uri, 2, until=epoch + 3)
    assert restore(store)[0].manifest.epoch == epoch + 3
    assert [entry.epoch for entry in read_commits(store)] == list(range(epoch + 3, 0, -1))
    retain(store, keep=1)
    store.sweep(older_than_seconds=0)
    named = {file.key for file in find_restorable(store).manifest.files}
    on_disk = {str(path.relative_to(tmp_path)) for path in (tmp_path / "data").rglob("*") if path.is_file()}
    assert on_disk == named, "what the killed attempt left is gone, what is needed is not"


def test_files_cut_by_a_full_disk_or_altered_fall_back_loudly(tmp_path, caplog):
    uri = f"file://{tmp_path}"
    commit_epochs(uri, 1, until=5, keep=5)
    store = open_store(uri)
    newest = find_restorable(store).manifest
    cut = tmp_path / newest.dense.key
    cut.write_bytes(cut.read_bytes()[:-7])
    plan, rows = restore(store)
    assert plan.manifest.epoch == 4
    assert [skipped.epoch for skipped in plan.skipped] == [5]
    altered = tmp_path / plan.manifest.chain[-1].files[0].key
    body = bytearray(altered.read_bytes())
    body[len(body) // 2] ^= 0x10
    altered.write_bytes(body)
    plan, rows = restore(store)
    assert plan.manifest.epoch == 3
    assert {skipped.epoch for skipped in plan.skipped} == {5, 4}
    assert "epoch 4 cannot be restored, falling back" in caplog.text
    assert np.array_equal(rows[8][1][:, 0], expected_at(3))


def use_store(store, answers):
    try:
        store.put("x", b"y")
        answers.put("worked")
    except StoreError as error:
        answers.put(str(error))


def test_a_forked_child_is_refused_instead_of_hanging(tmp_path):
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    child = context.Process(target=use_store, args=(open_store(f"file://{tmp_path}"), answers))
    child.start()
    assert "obstore is not fork-safe" in answers.get(timeout=20)
    child.join(20)


def test_an_unwritable_directory_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match=rf"file://{tmp_path}/file/deeper: cannot create the directory"):
        open_store(f"file://{tmp_path}/file/deeper")
