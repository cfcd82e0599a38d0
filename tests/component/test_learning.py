"""Trainings learn: Async and Sync come near the oracle and each other, and the days before the last one help.

Every AUC is of samples that follow the last one learnt, and compared with another of the same samples.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.timeout(900)


def output_of(*command: str, **environment: str) -> list[str]:
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=850, env={**os.environ, **environment}
    )
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout.splitlines()


def test_async_learns_what_sync_learns_and_nearly_what_the_oracle_knows() -> None:
    figures = json.loads(output_of(sys.executable, "-m", "benchmarks.learning", "modes")[-1])
    assert abs(figures["lost"]) < 0.002, "Async with staleness 2 and Sync differ by more than 0.002"
    assert 0 < figures["below_oracle"] < 0.01


def test_day_after_day_beats_the_last_day_alone(tmp_path: Path) -> None:
    """`examples/incremental/run.sh` as it stands, with two days of 30,000 samples."""
    script = str(ROOT / "examples" / "incremental" / "run.sh")
    said = output_of("sh", script, str(tmp_path), "2", "30000", BIN=str(Path(sys.executable).parent))
    judged = {Path(uri).name: float(auc) for auc, uri in (line.split() for line in said[-3:])}
    assert set(judged) == {"continued", "warm-2", "alone"}
    for way in ("continued", "warm-2"):
        assert judged[way] > judged["alone"] + 0.01, judged
