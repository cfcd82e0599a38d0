import json

import numpy as np
import pytest
from typer.testing import CliRunner

from kuberec_runtime.checkpoint import (
    CommitLog,
    Link,
    LinkKind,
    Manifest,
    PartitionOffset,
    RowOptimizerRef,
    extend,
    open_store,
    retain,
    write_dense,
    write_manifest,
    write_rows,
)
from kuberec_runtime.cli.checkpoints import app


def commit(store, log, epoch, chain):
    prefix = f"data/{epoch}-1-ab{epoch:02x}"
    rows = write_rows(store, prefix, 8, np.arange(3, dtype=np.int64), np.zeros((3, 12), np.float32))
    kind = LinkKind.DELTA if chain else LinkKind.FULL
    manifest = Manifest(
        epoch=epoch,
        attempt=1,
        digest="d" * 64,
        chain=extend(chain, Link(epoch=epoch, kind=kind, files=(rows,))),
        dense=write_dense(store, prefix, {"weights": np.zeros(3, np.float32)}),
        offsets=(PartitionOffset(topic="feed", partition=2, start=5, next=1005, end=9000),),
        samples_by_partition={2: 1000},
        published=f"1.{epoch}",
        metrics={"auc": 0.71},
        row_optimizer=RowOptimizerRef(kind="FTRL", learning_rate=0.05),
    )
    log.commit(epoch, write_manifest(store, manifest))
    return manifest


@pytest.fixture
def uri(request):
    uri = f"memory://{request.node.name}"
    store = open_store(uri)
    log = CommitLog(store, 1)
    log.start()
    chain = ()
    for epoch in range(1, 7):
        chain = commit(store, log, epoch, chain).chain
    return uri


def invoke(*arguments):
    return CliRunner().invoke(app, list(arguments))


def test_ls_lists_epochs_newest_first(uri):
    result = invoke("ls", uri)
    assert result.exit_code == 0
    lines = [line.split() for line in result.output.splitlines()[2:]]
    assert [line[0] for line in lines] == ["6", "5", "4", "3", "2", "1"]
    assert "full + 5 deltas" in result.output
    listed = json.loads(invoke("ls", uri, "--json").output)
    assert listed[0]["samples"] == 1000 and listed[0]["published"] == "1.6" and listed[-1]["chain"] == ["full"]


def test_ls_leaves_out_what_retention_deleted_but_shows_what_is_missing(uri):
    store = open_store(uri)
    retain(store, keep=3)
    assert [entry["epoch"] for entry in json.loads(invoke("ls", uri, "--json").output)] == [6, 5, 4]
    listed = json.loads(invoke("ls", uri, "--json").output)
    store.delete([listed[1]["manifest"]])
    listed = json.loads(invoke("ls", uri, "--json").output)
    assert [entry["epoch"] for entry in listed] == [6, 5, 4]
    assert "no such object" in listed[1]["problem"]


def test_show_names_files_and_offsets(uri):
    result = invoke("show", uri, "--epoch", "2")
    assert result.exit_code == 0, result.output
    assert "data/2-1-ab02/rows-w8-s0.arrow" in result.output
    assert "1005" in result.output
    assert "FTRL, learning rate 0.05" in result.output
    assert json.loads(invoke("show", uri, "--json").output)["offsets"][0]["next"] == 1005


def test_show_of_an_unknown_epoch_fails(uri):
    result = invoke("show", uri, "--epoch", "77")
    assert result.exit_code == 1
    assert "epoch 77 is not committed" in result.output


def test_verify_finds_a_corrupt_file(uri):
    assert invoke("verify", uri).exit_code == 0
    store = open_store(uri)
    key = "data/3-1-ab03/rows-w8-s0.arrow"
    body = bytearray(store.get(key))
    body[-1] ^= 1
    store.put(key, bytes(body))
    result = invoke("verify", uri)
    assert result.exit_code == 1
    assert key in result.output


def test_a_wrong_uri_is_an_error_not_a_traceback():
    result = invoke("ls", "nowhere")
    assert result.exit_code == 1
    assert "write s3://" in result.output


def test_an_empty_checkpoint_says_so():
    assert "nothing is committed" in invoke("ls", "memory://empty").output
