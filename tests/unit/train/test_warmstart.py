"""A warm start takes what fits by name, and says of everything else why not."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from kuberec_api import RecModel, RecTraining
from kuberec_api.meta import LocalRef
from kuberec_api.training import WarmStart
from kuberec_runtime.checkpoint import (
    CommitLog,
    Link,
    LinkKind,
    Manifest,
    Store,
    TableRef,
    WeightRef,
    open_store,
    write_dense,
    write_manifest,
    write_removed,
    write_rows,
)
from kuberec_runtime.table.buckets import ID_BITS
from kuberec_runtime.table.dense import DenseState
from kuberec_runtime.train.exitcode import classify
from kuberec_runtime.train.job import Job
from kuberec_runtime.train.rowstate import OptimizerMismatchError, reference
from kuberec_runtime.train.warmstart import (
    WarmStartError,
    choose,
    open_source,
    readable,
    summary,
    take,
    take_dense,
    warm_rows,
)

EXAMPLE = Path(__file__).parents[3] / "examples" / "feed.yaml"
SHAPES = (("a", (2, 2)), ("b", (3,)))
NEW_SHAPES = (("b", (3,)), ("c", (1,)), ("a", (2, 2)))


def job(**changes: Any) -> Job:
    """The example's, with features and embeddings changed by name."""
    bodies = {body["kind"]: body for body in yaml.safe_load_all(EXAMPLE.read_text())}
    spec = bodies["RecModel"]["spec"]
    for feature in spec["features"]["list"]:
        feature.update(changes.get(feature["name"], {}))
    if "embeddings" in changes:
        spec["embeddings"] = changes["embeddings"]
    if "added" in changes:
        spec["features"]["list"].append(changes["added"])
        spec["network"]["groups"]["deep"].append(changes["added"]["name"])
    if "removed" in changes:
        gone = changes["removed"]
        spec["features"]["list"] = [f for f in spec["features"]["list"] if f["name"] != gone]
        spec["network"]["groups"] = {
            g: [n for n in names if n != gone] for g, names in spec["network"]["groups"].items()
        }
    return Job(RecModel.model_validate(bodies["RecModel"]), RecTraining.model_validate(bodies["RecTraining"]), 1)


def key(of: Job, table: str, *ids: int) -> np.ndarray:
    return (np.int64(of.layout.tables[table].ordinal) << ID_BITS) | np.array(ids, np.int64)


@pytest.fixture
def source(tmp_path: Path) -> tuple[Store, Job]:
    """A checkpoint of the example: rows of `cate`, one of them removed again, and of `gender`; dense weights."""
    of = job()
    store = open_store(f"file://{tmp_path}/old")
    width, stride = of.layout.tables["cate"].width, of.layout.tables["cate"].width + 3
    plain = of.layout.tables["gender"].width
    rows = np.arange(2 * stride, dtype=np.float32).reshape(2, stride)
    files = [
        write_rows(store, "data/1", width, key(of, "cate", 5, 9), rows, shard=0, buckets=(0, 255)),
        write_rows(
            store, "data/1", plain, key(of, "gender", 3), np.ones((1, plain + 3), np.float32), shard=0, buckets=(0, 255)
        ),
    ]
    gone = write_removed(store, "data/2", width, key(of, "cate", 9), shard=0, buckets=(0, 255))
    dense = np.arange(7, dtype=np.float32)
    manifest = Manifest(
        epoch=2,
        attempt=1,
        digest=of.plan.digest,
        chain=(
            Link(epoch=1, kind=LinkKind.FULL, files=tuple(files)),
            Link(epoch=2, kind=LinkKind.DELTA, files=(gone,)),
        ),
        dense=write_dense(store, "data/2", {"weights": dense, "m": dense + 10, "v": dense + 20}, {"step": "8"}),
        tables=tuple(
            TableRef(name=t.name, ordinal=t.ordinal, dim=t.dim, linear=t.linear) for t in of.layout.tables.values()
        ),
        weights=tuple(WeightRef(name=name, shape=shape) for name, shape in SHAPES),
        row_optimizer=reference(of.model.spec.embeddings.defaults.optimizer),
        plan=of.plan.canonical,
    )
    log = CommitLog(store, 1)
    log.start()
    log.commit(2, write_manifest(store, manifest))
    return store, of


def chosen(source: tuple[Store, Job], new: Job) -> Any:
    return choose(source[0], new, NEW_SHAPES)


def test_of_the_same_model_every_table_is_taken(source: tuple[Store, Job]) -> None:
    taken, _ = chosen(source, job())
    assert {t.verdict for t in taken.tables} == {"Taken"}
    assert (taken.weights_taken, taken.weights_initialised) == (("b", "a"), ("c",))
    assert "2 of 3 dense weights; nothing left out" in summary(taken)


def test_what_does_not_fit_begins_anew_and_says_why(source: tuple[Store, Job]) -> None:
    added = {"name": "aaa", "op": "id", "in": ["item.cate"], "encode": {"hashBuckets": 50}}
    embeddings = {"defaults": {"dim": 8, "optimizer": {"kind": "RowwiseAdagrad", "learningRate": 0.05}}}
    new = job(brand={"encode": {"hashBuckets": 999}}, added=added, removed="hour", embeddings=embeddings)
    verdicts = {t.name: (t.verdict, t.reason) for t in chosen(source, new)[0].tables}
    assert verdicts["cate"] == ("Taken", "")
    assert verdicts["aaa"] == ("Initialised", "the source has no such table")
    assert verdicts["hour"] == ("Dropped", "this model has no such table")
    assert verdicts["user_id"] == ("Initialised", "dim 16 there, 8 here")
    assert verdicts["brand"][0] == "Initialised"
    assert '"buckets": 10007' in verdicts["brand"][1] and '"buckets": 999' in verdicts["brand"][1]


def test_rows_get_the_keys_that_they_have_here_and_removed_ones_stay_removed(source: tuple[Store, Job]) -> None:
    new = job(added={"name": "aaa", "op": "id", "in": ["item.cate"], "encode": {"hashBuckets": 50}})
    assert new.layout.tables["cate"].ordinal == source[1].layout.tables["cate"].ordinal + 1
    taken, manifest = chosen(source, new)
    found = list(warm_rows(source[0], manifest, taken))
    keys = [(rows.keys.tolist(), rows.removed.tolist()) for _, rows in found]
    cate, gender = key(new, "cate", 5, 9).tolist(), key(new, "gender", 3).tolist()
    assert keys == [(cate, []), (gender, []), ([], cate[1:])]
    assert found[0][1].raw[0, 0] == 0.0 and found[0][1].raw.shape[0] == 2


def test_dense_weights_are_taken_by_name_with_their_moments(source: tuple[Store, Job]) -> None:
    taken, manifest = chosen(source, job())
    fresh = DenseState(*(np.full(8, x, np.float32) for x in (-1.0, 0.0, 0.0)), step=0)
    state = take_dense(source[0], manifest, taken, fresh, NEW_SHAPES)
    assert state.weights.tolist() == [4, 5, 6, -1, 0, 1, 2, 3]
    assert state.m.tolist() == [14, 15, 16, 0, 10, 11, 12, 13]
    assert state.step == 8


def test_rows_of_another_optimizer_are_refused(source: tuple[Store, Job]) -> None:
    with pytest.raises(OptimizerMismatchError, match="trained with RowwiseAdagrad"):
        chosen(source, job(embeddings={"defaults": {"dim": 8, "optimizer": {"kind": "Adam", "learningRate": 0.001}}}))


def test_an_epoch_that_is_gone_is_named_with_its_owner(source: tuple[Store, Job]) -> None:
    taken, manifest = chosen(source, job())
    source[0].delete([manifest.chain[0].files[0].key])
    with (
        pytest.raises(WarmStartError, match="which this training begins with") as error,
        readable(taken),
    ):
        list(warm_rows(source[0], manifest, taken))
    assert classify(error.value).permanent


def test_a_place_without_a_commit_is_an_error_that_no_retry_mends(tmp_path: Path) -> None:
    store = open_store(f"file://{tmp_path}/nothing")
    with pytest.raises(WarmStartError, match="holds no committed epoch") as error:
        choose(store, job(), SHAPES)
    assert classify(error.value).permanent and classify(error.value).reason == "WarmStartFailed"


def test_a_reference_that_nobody_has_resolved_says_what_to_write() -> None:
    reference = WarmStart(training_ref=LocalRef(name="yesterday"))
    zeros = np.zeros(7, np.float32)
    with pytest.raises(WarmStartError, match=r"in a local run give warmStart\.uri") as error:
        take(reference, job(), DenseState(zeros, zeros, zeros, 0), SHAPES)
    assert classify(error.value).permanent


def test_credentials_of_the_other_checkpoint_are_not_mixed_with_our_own(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[tuple[str, dict[str, str]]] = []
    monkeypatch.setattr("kuberec_runtime.train.warmstart.open_store", lambda uri, env: opened.append((uri, env)))
    monkeypatch.setenv("AWS_ENDPOINT", "http://ours")
    open_source("s3://b/a")
    assert opened[0][1]["AWS_ENDPOINT"] == "http://ours"
    monkeypatch.setenv("KUBEREC_WARM_AWS_ACCESS_KEY_ID", "theirs")
    open_source("s3://b/a")
    assert opened[1] == ("s3://b/a", {"AWS_ACCESS_KEY_ID": "theirs"})
