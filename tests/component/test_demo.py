"""`make demo` as a user runs it: its last line, its exit code, and nothing left behind."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FIELDS = {
    "samples",
    "samples_per_s",
    "auc",
    "oracle_auc",
    "published_version",
    "rank_candidates",
    "rank_p50_ms",
    "rank_p99_ms",
    "freshness_s",
}


@pytest.fixture
def folder():
    """A short path: Ray's sockets lie below TMPDIR, and a socket's path has at most 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="kd-", ignore_cleanup_errors=True) as path:
        yield Path(path)


def start_demo(folder, **environment):
    return subprocess.Popen(
        [sys.executable, "-m", "kuberec_devcluster.demo"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": "devcluster", "TMPDIR": str(folder), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def processes_of(folder):
    """Ids of processes whose command line names the demo's folder."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and str(folder) in (entry / "cmdline").read_text():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


@pytest.mark.timeout(600)
def test_the_demo_learns_serves_and_measures(folder):
    demo = start_demo(folder)
    out, err = demo.communicate(timeout=580)
    assert demo.returncode == 0, err
    result = json.loads(out.splitlines()[-1])
    assert set(result) == FIELDS
    assert result["samples"] == 300_000
    assert abs(result["oracle_auc"] - result["auc"]) < 0.02
    assert result["rank_candidates"] == 500
    assert 0 < result["rank_p50_ms"] <= result["rank_p99_ms"]
    assert 0 < result["freshness_s"] < 30
    assert result["published_version"].startswith("1.")
    assert list(folder.glob("kuberec-demo-*")) == []
    assert processes_of(folder) == []


@pytest.mark.timeout(240)
def test_ctrl_c_stops_everything(folder):
    demo = start_demo(folder)
    deadline = time.monotonic() + 120
    while not any(folder.glob("kuberec-demo-*/training.log")):
        assert demo.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    demo.send_signal(signal.SIGINT)
    _, err = demo.communicate(timeout=100)
    assert demo.returncode == 130, err
    assert processes_of(folder) == []
    assert list(folder.glob("kuberec-demo-*")) == []
