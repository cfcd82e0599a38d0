"""Compiling a program: once, as a whole, found again by its sources, and without a writable folder as well."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numba as nb
import pytest
from numba.core.registry import cpu_target

from featuregen import compiled
from featuregen.compiled import compile_on_use, compile_program, digest_of
from featuregen.kernels.memory import jit

SIGNATURE = "float64(float64, float64, float64)"


@jit
def _product(a: float, b: float) -> float:
    return a * b


@jit
def _product_and_sum(a: float, b: float, c: float) -> float:
    return _product(a, b) + c


def _run(a: float, b: float, c: float) -> float:
    return _product_and_sum(a, b, c)


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "own"))
    monkeypatch.delenv("KUBEREC_KERNELS", raising=False)
    return tmp_path / "own"


def _hits(program: Any) -> int:
    return int(sum(program.stats.cache_hits.values()))


def test_a_product_is_rounded_before_it_is_added() -> None:
    run = compile_program(_run, SIGNATURE, [Path(__file__)])
    assert run(0.1, 10.0, -1.0) == 0.0  # a fused multiply-add gives 5.6e-17


def test_inner_kernels_are_no_machine_code_of_their_own(cached: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    codegen = cpu_target.target_context.codegen()
    made: list[str] = []
    add_module = type(codegen)._add_module

    def count(self: Any, module: Any) -> Any:
        made.append(module.name)
        return add_module(self, module)

    @jit
    def inner(x: int) -> int:
        return x + 1

    def run(x: int) -> int:
        return inner(x) + inner(x + 1)

    monkeypatch.setattr(type(codegen), "_add_module", count)
    level = nb.config.OPT
    assert compile_program(run, "int64(int64)", [Path(__file__)])(5) == 13
    assert [name.rpartition(".")[2] for name in made] == ["run"]
    assert nb.config.OPT == level
    assert not {"_add_module", "set_env"} & set(vars(codegen))


def test_a_second_time_it_is_loaded(cached: Path) -> None:
    assert _hits(compile_program(_run, SIGNATURE, [Path(__file__)])) == 0
    again = compile_program(_run, SIGNATURE, [Path(__file__)])
    assert (_hits(again), again(2.0, 3.0, 1.0)) == (1, 7.0)


def test_a_change_of_any_source_compiles_anew(cached: Path, tmp_path: Path) -> None:
    source, hits = tmp_path / "kernel.py", []
    for text in ("a", "b", "a"):
        source.write_text(text)
        hits.append(_hits(compile_program(_run, SIGNATURE, [source])))
    assert hits == [0, 0, 1]


def test_the_digest_tells_files_apart_that_are_equal_when_joined(tmp_path: Path) -> None:
    for name, (first, second) in {"x": ("ab", "c"), "y": ("a", "bc")}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.py").write_text(first)
        (tmp_path / name / "2.py").write_text(second)
    assert len({digest_of([tmp_path / name / "1.py", tmp_path / name / "2.py"]) for name in "xy"}) == 2


def test_what_an_image_brings_is_loaded_and_left_alone(cached: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compile_program(_run, SIGNATURE, [Path(__file__)])
    monkeypatch.setenv("KUBEREC_KERNELS", str(cached))
    monkeypatch.setenv("NUMBA_CACHE_DIR", "/proc/nowhere")
    before = sorted(cached.rglob("*"))
    assert _hits(compile_program(_run, SIGNATURE, [Path(__file__)])) == 1
    assert sorted(cached.rglob("*")) == before


def test_without_a_writable_folder_it_is_compiled_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBEREC_KERNELS", raising=False)
    monkeypatch.setenv("NUMBA_CACHE_DIR", "/proc/nowhere")
    run = compile_program(_run, SIGNATURE, [Path(__file__)])
    assert (_hits(run), run(2.0, 3.0, 1.0)) == (0, 7.0)


def test_without_a_home_it_is_compiled_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME", "KUBEREC_KERNELS"):
        monkeypatch.delenv(name, raising=False)

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    assert compiled.folders() == (None, None)
    assert compile_program(_run, SIGNATURE, [Path(__file__)])(2.0, 3.0, 1.0) == 7.0


def test_a_kernel_that_is_compiled_on_use_is_loaded_by_another_process(cached: Path) -> None:
    def double(x: int) -> int:
        return 2 * x

    kernel = compile_on_use(double, digest_of([Path(__file__)]), nogil=True)
    assert (kernel(4), kernel(2.5)) == (8, 5.0)
    script = f"from tests.unit.featuregen.test_compiled import hits_of_product; print(hits_of_product({str(cached)!r}))"
    found = [
        subprocess.run(
            [sys.executable, "-c", script], env=os.environ, capture_output=True, text=True, check=True
        ).stdout
        for _ in range(2)
    ]
    assert [text.strip() for text in found] == ["0", "1"]


def hits_of_product(folder: str) -> int:
    """Compiles a kernel in a process of its own; the test above runs it twice."""
    os.environ["NUMBA_CACHE_DIR"] = folder
    kernel = compile_on_use(_times, digest_of([Path(__file__)]), nogil=True)
    assert kernel(3, 4) == 12
    return _hits(kernel)


def _times(a: int, b: int) -> int:
    return a * b
