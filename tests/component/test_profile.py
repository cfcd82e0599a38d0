"""`kuberec run --profile` on a real Ray: a table of every stage, and a trace with a track for each thread."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from kuberec_runtime.train.profile import read_rows, trace_path
from tests.component.training import FEED, write_files

SAMPLES, BATCH = 4000, 100
pytestmark = pytest.mark.timeout(300)

STAGES = {
    ("worker", "reader"): {"poll", "features", "dedupe", "wait: room"},
    ("worker", "puller"): {"wait: batch", "wait: turn", "pull", "assemble"},
    ("worker", "loop"): {"wait: batch", "compute", "gradients", "push", "mark"},
    ("shard", "shard-peer"): {"pull", "push", "wait: cut"},
    ("shard", "epochs"): {"cut copy", "write"},
}


def test_a_run_shows_where_its_time_went(tmp_path: Path) -> None:
    write_files(tmp_path / "samples", SAMPLES)
    bodies = {body["kind"]: body for body in yaml.safe_load_all(FEED.read_text())}
    spec = bodies["RecTraining"]["spec"]
    del spec["publish"]
    spec["source"] = {"files": {"uri": f"file://{tmp_path}/samples"}}
    spec["checkpoint"] = {"uri": f"file://{tmp_path}/checkpoint", "interval": "1s"}
    spec["workers"]["batchSize"] = BATCH
    file = tmp_path / "feed.yaml"
    file.write_text(yaml.safe_dump_all([bodies["RecModel"], bodies["RecTraining"]]))
    command = [sys.executable, "-m", "kuberec_runtime.cli", "run", "-f", str(file), "--profile"]
    command += ["--folder", str(tmp_path / "run")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=250)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    folder = tmp_path / "run" / "profile"

    rows = read_rows(folder, 1)
    seen: dict[tuple[str, str], set[str]] = {}
    for row in rows:
        seen.setdefault((row.process, row.thread), set()).add(row.stage)
    assert {key: seen[key] & stages for key, stages in STAGES.items()} == STAGES
    count = {(row.process, row.stage): row.count for row in rows}
    assert count["worker", "compute"] == count["worker", "push"] == count["worker", "pull"] >= SAMPLES / BATCH
    assert count["shard", "push"] == count["shard", "pull"] == 2 * count["worker", "compute"]
    for stage in ("process", "compute", "cut copy", "share"):
        assert stage in ended.stdout
    assert str(trace_path(folder, 1)) in ended.stdout.replace("\n", "")

    with gzip.open(trace_path(folder, 1)) as packed:
        events = json.load(packed)["traceEvents"]
    processes = {e["pid"]: e["args"]["name"] for e in events if e["name"] == "process_name"}
    assert sorted(processes.values()) == ["shard 0", "shard 1", "worker 0", "worker 1"]
    tracks = {(e["pid"], e["tid"]): e["args"]["name"] for e in events if e["name"] == "thread_name"}
    spans = [e for e in events if e["ph"] == "X"]
    assert {(e["pid"], e["tid"]) for e in spans} == set(tracks)
    assert min(e["ts"] for e in spans) == 0 and all(e["dur"] >= 0 for e in spans)
    computed = [e for e in spans if e["name"] == "compute"]
    assert {tracks[e["pid"], e["tid"]] for e in computed} == {"loop"}
    assert len(computed) == count["worker", "compute"]
