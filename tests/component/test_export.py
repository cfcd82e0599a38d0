"""`kuberec checkpoints export`: the files are enough to score without KubeRec, and all of them are there or none."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from safetensors.numpy import load_file
from typer.testing import CliRunner

from featuregen.compiler import compile_plan
from featuregen.engine import Engine, Features
from kuberec_api import RecModel
from kuberec_api.layout import Layout, build_layout
from kuberec_runtime.checkpoint import (
    CommitLog,
    Link,
    LinkKind,
    Manifest,
    TableRef,
    WeightRef,
    open_store,
    write_dense,
    write_manifest,
    write_rows,
)
from kuberec_runtime.cli.checkpoints import app
from kuberec_runtime.models.embed import assemble, plan_lookup

FEED = Path(__file__).parents[2] / "examples" / "feed.yaml"
NOW = 1_790_000_000_000
KEYS = [f"i{n}" for n in range(20)]
pytestmark = pytest.mark.timeout(300)


def feed() -> RecModel:
    return RecModel.model_validate(next(yaml.safe_load_all(FEED.read_text())))


def features_of(model: RecModel) -> Features:
    """One user, with clicks, and twenty items."""
    items = pa.record_batch(
        [
            pa.array([f"b{n % 3}" for n in range(20)]),
            pa.array([f"c{n % 7}" for n in range(20)]),
            pa.array(KEYS),
            pa.array([1.5 * n for n in range(20)], pa.float64()),
        ],
        ["item.brand", "item.cate", "item.item_id", "item.price"],
    )
    clicks = {
        "item": KEYS[:5],
        "action": ["click"] * 5,
        "ts": [NOW - (5 - n) * 600_000 for n in range(5)],
        "cate": [f"c{n}" for n in range(5)],
    }
    user = {"user_id": "u1", "age": 30, "gender": "f", "cate_pref": {"c1": 0.5}}
    return Engine(compile_plan(model.spec.features)).rank(user, items, {"hour": 12}, {"clicks": clicks}, NOW)


def row_values(keys: np.ndarray, width: int) -> np.ndarray:
    """Weights float32[n, width] that are a function of the key."""
    return np.sin(keys[:, None] * 0.37 + np.arange(1, width + 1)).astype(np.float32) * np.float32(0.2)


def commit(uri: str, layout: Layout, features: Features | None, dense: np.ndarray, digest: str) -> None:
    """Commits one epoch with the rows that `features` read, plus state and counters."""
    store = open_store(uri)
    log = CommitLog(store, 1)
    log.start()
    files = []
    for width, keys in plan_lookup(layout, features).keys.items() if features else ():
        raw = np.zeros((len(keys), width + 3), np.float32)
        raw[:, :width] = row_values(keys, width)
        files.append(write_rows(store, "data/7-1-ab", width, keys, raw))
    manifest = Manifest(
        epoch=7,
        attempt=1,
        digest=digest,
        chain=(Link(epoch=7, kind=LinkKind.FULL, files=tuple(files)),),
        dense=write_dense(store, "data/7-1-ab", {"weights": dense, "m": dense, "v": dense}, {"step": "3"}),
        tables=tuple(
            TableRef(name=t.name, ordinal=t.ordinal, dim=t.dim, linear=t.linear) for t in layout.tables.values()
        ),
        weights=(WeightRef(name="flat", shape=dense.shape),) if features is None else (),
    )
    log.commit(7, write_manifest(store, manifest))


def export(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["export", *arguments])
    return result.exit_code, " ".join(result.output.split())


def test_the_exported_network_and_rows_score_as_the_real_ones(tmp_path: Path) -> None:
    """The score is computed from the files alone: Parquet, layout.json and the Keras model."""
    import keras

    from kuberec_runtime.models.network import Network

    model = feed()
    plan = compile_plan(model.spec.features)
    layout = build_layout(model.spec, plan)
    network = Network(model.spec, layout)
    dense = np.random.default_rng(0).standard_normal(network.size).astype(np.float32) * np.float32(0.3)
    features = features_of(model)
    commit(f"file://{tmp_path}/checkpoint", layout, features, dense, plan.digest)
    network.set_dense(dense)
    lookup = plan_lookup(layout, features)
    expected = network.score(assemble(layout, features, lookup, {w: row_values(k, w) for w, k in lookup.keys.items()}))
    out = tmp_path / "out"
    code, said = export(f"file://{tmp_path}/checkpoint", "-o", str(out), "--model", str(FEED))
    assert code == 0, said

    described = json.loads((out / "layout.json").read_text())
    tables = {t["name"]: pq.read_table(out / t["file"]).to_pydict() for t in described["tables"]}
    rows = {name: dict(zip(t["id"], t["embedding"], strict=True)) for name, t in tables.items()}
    linear = {n: dict(zip(t["id"], t["linear"], strict=True)) for n, t in tables.items() if "linear" in t}
    loaded = keras.models.load_model(out / "network.keras")
    x = np.zeros((len(KEYS), loaded.input_shape[1]))
    for slot in described["slots"]:
        column = features.columns[slot["output"]]
        place = slice(slot["column"], slot["column"] + slot["width"])
        for r in range(len(KEYS)):
            if slot["table"] is None:
                values = column.values[r if len(column.values) > 1 else 0]
                x[r, place] = np.sign(values) * np.log1p(np.abs(values))
                continue
            one = r if len(column.offsets) > 2 else 0
            ids = column.ids[column.offsets[one] : column.offsets[one + 1]].tolist()
            share = 1 / max(len(ids), 1) if slot["pooling"] == "mean" else 1
            x[r, place] = sum((np.array(rows[slot["table"]][i]) for i in ids), np.zeros(slot["width"])) * share
            if slot["linearColumn"] is not None:
                x[r, slot["linearColumn"]] = sum(linear[slot["table"]][i] for i in ids) * share
    scores = 1 / (1 + np.exp(-np.asarray(loaded(x.astype(np.float32)))[:, 0]))
    np.testing.assert_allclose(scores, expected, rtol=1e-5, atol=1e-6)
    assert np.ptp(expected) > 0.01
    assert described["digest"] == plan.digest
    named = load_file(out / "dense.safetensors")
    np.testing.assert_array_equal(np.concatenate([named[n].reshape(-1) for n, _ in network.weights]), dense)


def test_without_a_model_rows_and_weights_are_named_by_the_epoch(tmp_path: Path) -> None:
    model = feed()
    plan = compile_plan(model.spec.features)
    layout = build_layout(model.spec, plan)
    commit(f"file://{tmp_path}/checkpoint", layout, None, np.arange(5, dtype=np.float32), plan.digest)
    out = tmp_path / "deep" / "out"
    code, said = export(f"file://{tmp_path}/checkpoint", "-o", str(out), "--with-state", "--epoch", "7")
    assert code == 0, said
    assert set(load_file(out / "dense.safetensors")) == {"flat", "m/flat", "v/flat"}
    assert pq.read_schema(out / "tables" / "cate.parquet").names == [
        "id", "linear", "embedding", "state", "frequency", "last_seen",
    ]  # fmt: skip
    assert not (out / "network.keras").exists()
    code, said = export(f"file://{tmp_path}/checkpoint", "-o", str(out))
    assert code == 1 and "exists already" in said


def test_another_model_is_refused_with_what_differs(tmp_path: Path) -> None:
    model = feed()
    layout = build_layout(model.spec, compile_plan(model.spec.features))
    commit(f"file://{tmp_path}/checkpoint", layout, None, np.zeros(5, np.float32), "e" * 64)
    code, said = export(f"file://{tmp_path}/checkpoint", "-o", str(tmp_path / "out"), "--model", str(FEED))
    assert code == 1
    assert "was trained with plan eeeeeeee, recmodel/feed has plan" in said


def test_an_export_that_fails_leaves_nothing(tmp_path: Path) -> None:
    uri = f"file://{tmp_path}/checkpoint"
    model = feed()
    plan = compile_plan(model.spec.features)
    commit(uri, build_layout(model.spec, plan), features_of(model), np.zeros(5, np.float32), plan.digest)
    (broken,) = (tmp_path / "checkpoint").rglob("rows-w8-*.arrow")
    broken.write_bytes(broken.read_bytes()[:-1])
    code, said = export(uri, "-o", str(tmp_path / "out"))
    assert code == 1 and "rows-w8-s0.arrow" in said
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint"}


def test_an_export_that_is_killed_before_its_end_is_not_there(tmp_path: Path) -> None:
    uri = f"file://{tmp_path}/checkpoint"
    model = feed()
    plan = compile_plan(model.spec.features)
    commit(uri, build_layout(model.spec, plan), features_of(model), np.zeros(5, np.float32), plan.digest)
    command = [sys.executable, "-m", "kuberec_runtime.cli", "checkpoints", "export", uri, "-o", str(tmp_path / "out")]
    killed = subprocess.run(command, env={**os.environ, "KUBEREC_CRASH_AT": "export.written"}, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "out").exists()
    again = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert again.returncode == 0, again.stderr
    assert again.stdout.startswith(f"{tmp_path}/out: epoch 7, ")
    assert "rows" in again.stderr, "progress goes to stderr"
