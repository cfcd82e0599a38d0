import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from obstore.store import MemoryStore

from kuberec_runtime.checkpoint import (
    CommitLog,
    CorruptFile,
    Link,
    LinkKind,
    Manifest,
    NothingToRestore,
    ObjectMissing,
    PartitionOffset,
    Store,
    StoreError,
    extend,
    find_restorable,
    load_rows,
    next_kind,
    open_store,
    read_dense,
    read_manifest,
    read_rows,
    restore,
    retain,
    write_dense,
    write_manifest,
    write_rows,
)
from kuberec_runtime.checkpoint.retention import deletable

DIGEST = "d" * 64


@pytest.fixture
def store():
    return Store("memory://files", MemoryStore())


def rows_of(keys, value, stride=12):
    keys = np.asarray(keys, np.int64)
    raw = np.full((len(keys), stride), value, np.float32)
    raw[:, -1:].view(np.uint32)[:] = 0x7FA00001  # a signalling NaN's bits: counters must survive
    return keys, raw


def bucket_of(keys):
    return (keys % 256).astype(np.uint8)


def commit(store, log, epoch, previous=(), value=1.0, keys=range(10), full_every=10, **fields):
    kind = next_kind(previous, full_every)
    prefix = f"data/{epoch}-{log._attempt}-abcd{epoch:04x}"
    reference = write_rows(store, prefix, 8, *rows_of(keys, value))
    dense = write_dense(store, prefix, {"weights": np.full(5, value, np.float32)})
    chain = extend(previous, Link(epoch=epoch, kind=kind, files=(reference,)))
    manifest = Manifest(epoch=epoch, attempt=log._attempt, digest=DIGEST, chain=chain, dense=dense, **fields)
    log.commit(epoch, write_manifest(store, manifest))
    return manifest


def corrupt(store, key):
    body = bytearray(store.get(key))
    body[len(body) // 2] ^= 1
    store.put(key, bytes(body))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(-(2**63), 2**63 - 1), unique=True, max_size=50), st.integers(1, 40))
def test_rows_come_back_bit_for_bit(keys, stride):
    store = Store("memory://bits", MemoryStore())
    keys = np.array(keys, np.int64)
    raw = np.random.default_rng(0).integers(0, 2**32, (len(keys), stride), np.uint32).view(np.float32)
    found_keys, found_raw = read_rows(store, write_rows(store, "data/1-1-aa", 4, keys, raw))
    assert np.array_equal(found_keys, keys)
    assert np.array_equal(found_raw.view(np.uint32), raw.view(np.uint32))


def test_rows_of_several_batches_come_back_in_order(store, monkeypatch):
    monkeypatch.setattr("kuberec_runtime.checkpoint.rows.BATCH_ROWS", 7)
    keys, raw = rows_of(range(50), 2.0)
    raw[:, 0] = keys
    found_keys, found_raw = read_rows(store, write_rows(store, "data/1-1-aa", 8, keys, raw))
    assert np.array_equal(found_keys, keys)
    assert np.array_equal(found_raw[:, 0], keys)


@pytest.mark.parametrize("harm", ["flip", "cut", "empty", "gone"])
def test_a_harmed_file_is_never_read_as_rows(store, harm):
    reference = write_rows(store, "data/1-1-aa", 8, *rows_of(range(100), 1.0))
    body = bytes(store.get(reference.key))
    if harm == "flip":
        corrupt(store, reference.key)
    elif harm == "gone":
        store.delete([reference.key])
    else:
        store.put(reference.key, body[: len(body) // 2] if harm == "cut" else b"")
    with pytest.raises((CorruptFile, ObjectMissing), match=r"memory://files/data/1-1-aa/rows-w8-s0\.arrow"):
        read_rows(store, reference)


def test_dense_weights_and_their_metadata_come_back(store):
    arrays = {"weights": np.arange(7, dtype=np.float32), "m": np.zeros(7, np.float32)}
    reference = write_dense(store, "data/1-1-aa", arrays, {"step": "42"})
    found, metadata = read_dense(store, reference)
    assert metadata == {"step": "42"}
    assert all(np.array_equal(found[name], arrays[name]) for name in arrays)
    corrupt(store, reference.key)
    with pytest.raises(CorruptFile):
        read_dense(store, reference)


def test_a_manifest_comes_back_and_an_altered_one_is_refused(store):
    offsets = (PartitionOffset(topic="t", partition=3, start=0, next=17, skip=2, end=None),)
    manifest = Manifest(epoch=4, attempt=2, digest=DIGEST, offsets=offsets, samples_by_partition={3: 17})
    key = write_manifest(store, manifest)
    assert key.startswith("manifests/4-2-")
    assert read_manifest(store, key) == manifest
    assert read_manifest(store, key).samples == 17
    store.put(key, bytes(store.get(key)).replace(b'"next": 17', b'"next": 18'))
    with pytest.raises(CorruptFile, match="its content has checksum"):
        read_manifest(store, key)


def test_the_newest_row_of_a_chain_wins_and_untouched_rows_stay(store):
    log = CommitLog(store, 1)
    log.start()
    first = commit(store, log, 1, value=1.0, keys=range(10))
    second = commit(store, log, 2, first.chain, value=2.0, keys=range(5))
    third = commit(store, log, 3, second.chain, value=3.0, keys=[2, 100])
    assert [link.kind for link in third.chain] == [LinkKind.FULL, LinkKind.DELTA, LinkKind.DELTA]
    plan, merged = restore(store)
    keys, raw = merged[8]
    assert plan.skipped == ()
    assert dict(zip(keys.tolist(), raw[:, 0].tolist(), strict=True)) == {
        0: 2, 1: 2, 2: 3, 3: 2, 4: 2, 5: 1, 6: 1, 7: 1, 8: 1, 9: 1, 100: 3,
    }  # fmt: skip


@pytest.mark.parametrize("shards", [1, 2, 3, 7])
def test_any_number_of_shards_restores_every_row_once(store, shards):
    log = CommitLog(store, 1)
    log.start()
    manifest = commit(store, log, 1, keys=range(1000))
    seen = []
    for shard in range(shards):
        buckets = [b for b in range(256) if b * shards // 256 == shard]
        mine = load_rows(store, manifest, bucket_of, range(buckets[0], buckets[-1] + 1))
        seen.extend(mine[8][0].tolist())
    assert sorted(seen) == list(range(1000))


def test_files_without_wanted_buckets_are_not_read(store):
    reference = write_rows(store, "data/1-1-aa", 8, *rows_of([1, 2, 3], 1.0), buckets=(0, 127))
    manifest = Manifest(epoch=1, attempt=1, digest=DIGEST, chain=(Link(epoch=1, kind="full", files=(reference,)),))
    store.delete([reference.key])
    assert load_rows(store, manifest, bucket_of, range(128, 256)) == {}


@pytest.mark.parametrize("harm", ["corrupt rows", "missing rows", "corrupt manifest", "missing manifest", "cut dense"])
def test_a_harmed_epoch_falls_back_to_the_one_before_and_says_so(store, harm, caplog):
    log = CommitLog(store, 1)
    log.start()
    commit(store, log, 1, value=1.0)
    last = commit(store, log, 2, value=2.0)
    key = log.last.manifest if "manifest" in harm else last.dense.key if "dense" in harm else last.chain[0].files[0].key
    if "corrupt" in harm:
        corrupt(store, key)
    elif "cut" in harm:
        store.put(key, bytes(store.get(key))[:-1])
    else:
        store.delete([key])
    plan, merged = restore(store)
    assert plan.manifest.epoch == 1
    assert merged[8][1][0, 0] == 1.0
    assert [entry.epoch for entry in plan.skipped] == [2]
    assert key in plan.skipped[0].reason
    assert "falling back" in caplog.text


def test_checksums_can_be_verified_before_anything_is_loaded(store):
    log = CommitLog(store, 1)
    log.start()
    commit(store, log, 1)
    last = commit(store, log, 2)
    corrupt(store, last.chain[0].files[0].key)
    assert find_restorable(store).manifest.epoch == 2
    assert find_restorable(store, checksums=True).manifest.epoch == 1
    assert find_restorable(store, broken=[last.chain[0].files[0].key]).manifest.epoch == 1


def test_nothing_committed_is_no_plan_and_nothing_left_is_an_error(store):
    assert find_restorable(store) is None
    assert restore(store) is None
    log = CommitLog(store, 1)
    log.start()
    manifest = commit(store, log, 1)
    store.delete([manifest.dense.key])
    with pytest.raises(NothingToRestore, match=r"none of 1 committed epochs can be restored\n  epoch 1: .*dense"):
        find_restorable(store)


def test_a_chain_starts_anew_when_it_is_long_heavy_or_broken():
    def link(kind, size):
        return Link.model_validate(
            {
                "epoch": 1,
                "kind": kind,
                "files": [{"key": "k", "size": 9, "sha256": "0" * 64, "rows": size, "stride": 2}],
            }
        )

    full, small, big = link("full", 100), link("delta", 10), link("delta", 60)
    assert next_kind([]) is LinkKind.FULL
    assert next_kind([full]) is LinkKind.DELTA
    assert next_kind([full, small], full_every=2) is LinkKind.FULL
    assert next_kind([full, big]) is LinkKind.FULL
    assert next_kind([full, small]) is LinkKind.DELTA
    assert next_kind([full, small], broken=True) is LinkKind.FULL
    assert extend([full, small], full) == (full,)
    with pytest.raises(ValueError, match="no full link to build on"):
        extend([], small)


def test_retention_keeps_what_kept_manifests_name_and_never_a_slot(store):
    log = CommitLog(store, 1)
    log.start()
    chain = ()
    for epoch in range(1, 9):
        chain = commit(store, log, epoch, chain, value=float(epoch), keys=[epoch], full_every=3).chain
    store.put("data/8-0-dead/rows-w8-s0.arrow", b"left by a killed attempt")
    store.put("data/9-2-beef/rows-w8-s0.arrow", b"being written by somebody")
    slots = [entry.key for entry in store.list("log")]
    sweep = retain(store, keep=2)
    left = {entry.key for entry in store.list("data")} | {entry.key for entry in store.list("manifests")}
    assert "data/8-0-dead/rows-w8-s0.arrow" in sweep.deleted
    assert "data/9-2-beef/rows-w8-s0.arrow" in left
    assert [entry.key for entry in store.list("log")] == slots
    assert sum(key.startswith("manifests/") for key in left) == 2
    assert restore(store)[0].manifest.epoch == 8
    store.delete([log.last.manifest])
    assert restore(store)[0].manifest.epoch == 7
    assert sweep.bytes > 0 and retain(store, keep=2).deleted == ()


@given(st.sets(st.tuples(st.integers(0, 20), st.integers(1, 3))), st.integers(0, 20), st.data())
def test_retention_never_chooses_kept_files_nor_those_of_later_epochs(names, last, data):
    keys = [f"data/{epoch}-{attempt}-ab/rows.arrow" for epoch, attempt in names]
    kept = frozenset(data.draw(st.sets(st.sampled_from(keys)))) if keys else frozenset()
    chosen = deletable([*keys, "log/00000000000000000001.json", "log/HEAD.json", "data/notes.txt"], kept, last)
    assert not kept & set(chosen)
    assert all(key.startswith("data/") and int(key.split("/")[1].split("-")[0]) <= last for key in chosen)


@pytest.mark.parametrize("uri", ["ckpt", "ftp://x/y", "s3://", "file://relative/path"])
def test_a_wrong_uri_is_refused_with_what_to_write(uri):
    with pytest.raises(StoreError, match="write "):
        open_store(uri)


def test_a_store_is_not_sent_to_another_process(store):
    import pickle

    with pytest.raises(StoreError, match="send the URI"):
        pickle.dumps(store)
