"""A process that commits epochs one after the other, to be killed between two of its steps; and one half of a race."""

import os
import random
import sys
import time

import numpy as np

from kuberec_runtime.checkpoint import (
    AlreadyCommitted,
    CommitLog,
    Fenced,
    Link,
    LinkKind,
    Manifest,
    extend,
    find_restorable,
    next_kind,
    open_store,
    retain,
    write_dense,
    write_manifest,
    write_rows,
)
from kuberec_runtime.checkpoint.manifest import data_prefix

DIGEST = "d" * 64
KEYS = 500


def rows_at(epoch):
    """The rows that epoch `epoch` touches: all in epoch 1, a tenth later; the values say which epoch wrote them."""
    keys = np.arange(0, KEYS, 1 if epoch == 1 else 10, dtype=np.int64)
    return keys, np.full((len(keys), 12), epoch, np.float32)


def expected_at(epoch):
    """Value of every key's row after epoch `epoch`."""
    values = np.ones(KEYS, np.float32)
    values[::10] = epoch
    return values


def commit_epochs(uri, attempt, until, keep=2):
    """Starts an attempt, resumes from what is committed, and commits up to epoch `until`."""
    store = open_store(uri)
    log = CommitLog(store, attempt)
    last = log.start()
    plan = find_restorable(store)
    chain = plan.manifest.chain if plan else ()
    for epoch in range(1 if last is None else last.epoch + 1, until + 1):
        prefix = data_prefix(epoch, attempt)
        kind = next_kind(chain, full_every=3)
        keys, raw = rows_at(epoch)
        if kind is LinkKind.FULL and epoch > 1:
            keys = np.arange(KEYS, dtype=np.int64)
            raw = np.repeat(expected_at(epoch)[:, None], 12, axis=1)
        files = tuple(
            write_rows(store, prefix, 8, keys[keys % 2 == shard], raw[keys % 2 == shard], shard=shard)
            for shard in (0, 1)
        )
        chain = extend(chain, Link(epoch=epoch, kind=kind, files=files))
        manifest = Manifest(
            epoch=epoch,
            attempt=attempt,
            digest=DIGEST,
            chain=chain,
            dense=write_dense(store, prefix, {"weights": np.full(10, epoch, np.float32)}),
            samples_by_partition={0: epoch * 1000},
        )
        log.commit(epoch, write_manifest(store, manifest))
        retain(store, keep)


def outcome(action):
    try:
        action()
        return "committed"
    except Fenced:
        return "fenced"
    except AlreadyCommitted:
        return "already committed"


def race_stale(uri, jitter):
    """An attempt that is being replaced: commits epoch 1, then tries epochs 2 and 3 while START(2) comes."""
    store = open_store(uri)
    log = CommitLog(store, 1)
    log.start()
    log.commit(1, "m1")
    say("ready")
    wait("go")
    time.sleep(random.random() * jitter)
    say(outcome(lambda: log.commit(2, "stale")))
    wait("again")
    say(outcome(lambda: log.commit(3, "stale again")))


def race_new(uri, jitter):
    """The attempt that replaces it."""
    store = open_store(uri)
    wait("go")
    time.sleep(random.random() * jitter)
    log = CommitLog(store, 2)
    resumed = log.start()
    say(str(resumed.epoch))
    wait("again")
    say(outcome(lambda: log.commit(resumed.epoch + 1, "new")))


def race_twin(uri, name):
    """One of two processes with one attempt number and one identity (a duplicated process)."""
    log = CommitLog(open_store(uri), 1, writer="twin")
    wait("go")
    say(outcome(lambda: log.commit(1, name)))


def say(word):
    print(word, flush=True)


def wait(word):
    assert sys.stdin.readline().strip() == word


if __name__ == "__main__":
    random.seed(os.getpid())
    role, *arguments = sys.argv[1:]
    if role == "commit":
        commit_epochs(arguments[0], int(arguments[1]), int(arguments[2]))
    elif role == "races":
        uri, part, count, jitter = arguments[0], arguments[1], int(arguments[2]), float(arguments[3])
        for number in range(count):
            where = f"{uri}/{number}"
            if part == "stale":
                race_stale(where, jitter)
            elif part == "new":
                race_new(where, jitter)
            else:
                race_twin(where, part)
