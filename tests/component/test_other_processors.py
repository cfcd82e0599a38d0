"""Features are the same bits on the plainest processor: no AVX, no fused multiply-add, no vector code in NumPy.

The golden log was recorded on a processor with AVX-512; random features are compared with the oracle.
"""

import os
import subprocess
import sys

import numpy as np

TESTS = [f"tests/unit/featuregen/test_{name}.py" for name in ("replay", "cached_ranking", "hash", "equality")]
PROGRAM = """
import sys, numpy, pytest
from numba.core.registry import cpu_target
assert cpu_target.target_context.codegen()._get_host_cpu_name() == "generic"
assert not numpy.show_config(mode="dicts")["SIMD Extensions"].get("found")
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", "-p", "no:xdist", *sys.argv[1:]]))
"""


def test_the_plainest_processor_computes_the_recorded_bits() -> None:
    found = np.show_config(mode="dicts")["SIMD Extensions"].get("found", [])
    plain = {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": "", "NPY_DISABLE_CPU_FEATURES": " ".join(found)}
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, *TESTS],
        env=os.environ | plain | {"FEATUREGEN_EXAMPLES": "400"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    assert " passed" in run.stdout and "skipped" not in run.stdout
