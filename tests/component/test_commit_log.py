"""The commit log under races of two processes, on a directory and on a real S3."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from kuberec_devcluster.services import S3
from kuberec_runtime.checkpoint import (
    CommitLog,
    Link,
    LinkKind,
    Manifest,
    StoreError,
    data_prefix,
    open_store,
    restore,
    retain,
    write_dense,
    write_manifest,
    write_rows,
)
from kuberec_runtime.checkpoint.log import Kind, read_record

STEPS = Path(__file__).with_name("commit_steps.py")
RACES = {"directory": 60, "s3": 40}
JITTER_SECONDS = {"directory": 0.0015, "s3": 0.006}


@pytest.fixture(scope="module")
def s3():
    with S3() as server:
        yield server


@pytest.fixture(params=["directory", "s3"])
def place(request, tmp_path):
    """A checkpoint URI and the environment that reaches it."""
    if request.param == "directory":
        return request.param, f"file://{tmp_path}", {}
    server = request.getfixturevalue("s3")
    environment = {
        "AWS_ENDPOINT": server.endpoint,
        "AWS_ACCESS_KEY_ID": server.access_key,
        "AWS_SECRET_ACCESS_KEY": server.secret_key,
    }
    return request.param, f"s3://{server.bucket}/{request.node.name}", environment


class Racer:
    """One process of a race, led by words on its standard input."""

    def __init__(self, uri, environment, part, count, jitter):
        self.process = subprocess.Popen(
            [sys.executable, STEPS, "races", uri, part, str(count), str(jitter)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )

    def tell(self, word):
        self.process.stdin.write(word + "\n")
        self.process.stdin.flush()

    def hear(self):
        return self.process.stdout.readline().strip()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()


def records(store):
    found, sequence = [], 0
    while (record := read_record(store, sequence)) is not None:
        found.append(record)
        sequence += 1
    return found


def test_a_stale_attempt_never_commits_after_the_new_one_started(place):
    kind, uri, environment = place
    count, jitter = RACES[kind], JITTER_SECONDS[kind]
    with Racer(uri, environment, "stale", count, jitter) as stale, Racer(uri, environment, "new", count, jitter) as new:
        for number in range(count):
            assert stale.hear() == "ready"
            stale.tell("go")
            new.tell("go")
            first, resumed = stale.hear(), new.hear()
            stale.tell("again")
            new.tell("again")
            assert stale.hear() == "fenced"
            assert new.hear() == "committed"
            # Either the commit came before START(2), and the new attempt resumes from it, or it never happened.
            assert (first, resumed) in {("committed", "2"), ("fenced", "1")}
            owner = 0
            for record in records(open_store(f"{uri}/{number}", environment)):
                owner = record.attempt if record.kind is Kind.START else owner
                assert record.attempt == owner


def test_of_two_twins_exactly_one_commits_an_epoch(place):
    kind, uri, environment = place
    count = RACES[kind]
    with Racer(uri, environment, "a", count, 0) as first, Racer(uri, environment, "b", count, 0) as second:
        for number in range(count):
            store = open_store(f"{uri}/{number}", environment)
            CommitLog(store, 1, writer="twin").start()
            first.tell("go")
            second.tell("go")
            said = {"a": first.hear(), "b": second.hear()}
            assert sorted(said.values()) == ["already committed", "committed"]
            commits = [record for record in records(store) if record.kind is Kind.COMMIT]
            assert [said[record.manifest] for record in commits] == ["committed"]


def test_wrong_credentials_are_named_as_such(s3):
    environment = {"AWS_ENDPOINT": s3.endpoint, "AWS_ACCESS_KEY_ID": "kuberec", "AWS_SECRET_ACCESS_KEY": "wrong"}
    with pytest.raises(
        StoreError, match=rf"s3://{s3.bucket}/x/log/.*SignatureDoesNotMatch.*\n.*the credentials may not"
    ):
        CommitLog(open_store(f"s3://{s3.bucket}/x", environment), 1).start()


def test_a_missing_bucket_is_named(s3):
    environment = {
        "AWS_ENDPOINT": s3.endpoint,
        "AWS_ACCESS_KEY_ID": s3.access_key,
        "AWS_SECRET_ACCESS_KEY": s3.secret_key,
    }
    with pytest.raises(StoreError, match=r"s3://no-such-bucket/x/.*\n.*bucket exists"):
        CommitLog(open_store("s3://no-such-bucket/x", environment), 1).start()


def test_a_dead_endpoint_is_reported_within_its_retries(monkeypatch):
    from kuberec_runtime import objects

    monkeypatch.setattr(objects, "RETRY", {**objects.RETRY, "max_retries": 2})
    environment = {"AWS_ENDPOINT": "http://127.0.0.1:1", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    with pytest.raises(StoreError, match=r"s3://b/x/.*\n  check that the endpoint is reachable"):
        CommitLog(open_store("s3://b/x", environment), 1).start()


def test_epochs_on_s3_are_written_in_parts_restored_and_retained(s3):
    environment = {
        "AWS_ENDPOINT": s3.endpoint,
        "AWS_ACCESS_KEY_ID": s3.access_key,
        "AWS_SECRET_ACCESS_KEY": s3.secret_key,
    }
    store = open_store(f"s3://{s3.bucket}/deep/prefix", environment)
    log = CommitLog(store, 1)
    log.start()
    keys = np.arange(400_000, dtype=np.int64)
    raw = np.random.default_rng(0).random((len(keys), 12), np.float32)  # 22 MB: three parts
    for epoch in (1, 2, 3):
        prefix = data_prefix(epoch, 1)
        link = Link(epoch=epoch, kind=LinkKind.FULL, files=(write_rows(store, prefix, 8, keys, raw + epoch),))
        dense = write_dense(store, prefix, {"weights": np.full(10, epoch, np.float32)})
        manifest = Manifest(epoch=epoch, attempt=1, digest="d" * 64, chain=(link,), dense=dense)
        log.commit(epoch, write_manifest(store, manifest))
    swept = retain(store, keep=2)
    assert len(swept.deleted) == 3
    plan, rows = restore(store)
    assert plan.manifest.epoch == 3
    assert np.array_equal(rows[8][1], raw + 3)
    corrupt = next(entry for entry in store.list("data") if entry.key == plan.manifest.chain[0].files[0].key)
    store.put(corrupt.key, bytes(corrupt.size))
    plan, rows = restore(store)
    assert (plan.manifest.epoch, [skipped.epoch for skipped in plan.skipped]) == (2, [3])
    assert np.array_equal(rows[8][1], raw + 2)
