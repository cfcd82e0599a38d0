"""Compiling a program: once, as a whole, cached by its sources; and without a writable cache folder as well."""

from pathlib import Path
from typing import Any

import pytest
from numba.core.registry import cpu_target

from featuregen import compiled
from featuregen.compiled import compile_program
from featuregen.kernels_memory import jit


@jit
def _product(a: float, b: float) -> float:
    return a * b


@jit
def _product_and_sum(a: float, b: float, c: float) -> float:
    return _product(a, b) + c


def _program(stamp: int) -> Any:
    def run(a: float, b: float, c: float) -> float:
        return _product_and_sum(a, b, c) if stamp >= 0 else 0.0

    return run


def _njit_that_fails_with(message: str) -> Any:
    def njit(signature: str, cache: bool = False, **options: Any) -> Any:
        def compile(function: Any) -> Any:
            if cache:
                raise RuntimeError(message)
            return function

        return compile

    return njit


def test_a_product_is_rounded_before_it_is_added() -> None:
    run = compile_program(_program, "float64(float64, float64, float64)", [Path(__file__)])
    assert run(0.1, 10.0, -1.0) == 0.0  # a fused multiply-add gives 5.6e-17


def test_inner_kernels_are_no_machine_code_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    codegen = cpu_target.target_context.codegen()
    made: list[str] = []
    add_module = type(codegen)._add_module

    def count(self: Any, module: Any) -> Any:
        made.append(module.name)
        return add_module(self, module)

    def program(stamp: int) -> Any:
        @jit
        def inner(x: int) -> int:
            return x + 1

        def run(x: int) -> int:
            return inner(x) + inner(x + 1) if stamp >= 0 else 0

        return run

    monkeypatch.setattr(type(codegen), "_add_module", count)
    level = compiled.nb.config.OPT
    assert compile_program(program, "int64(int64)", [Path(__file__)])(5) == 13
    assert [name.rpartition(".")[2] for name in made] == ["run"]
    assert compiled.nb.config.OPT == level
    assert not {"_add_module", "set_env"} & set(vars(codegen))


def test_another_content_of_a_source_is_another_stamp(tmp_path: Path) -> None:
    stamps: list[int] = []

    def program(stamp: int) -> Any:
        stamps.append(stamp)
        return lambda x: x + stamp

    source = tmp_path / "kernel.py"
    for text in ("a", "b", "a"):
        source.write_text(text)
        compile_program(program, "int64(int64)", [source])
    assert stamps[0] == stamps[2] != stamps[1]


def test_without_a_writable_folder_the_program_is_compiled_without_a_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled.nb, "njit", _njit_that_fails_with("cannot cache function 'run': no locator available"))
    assert callable(compile_program(_program, "float64(float64, float64, float64)", [Path(__file__)]))


def test_a_failure_to_compile_is_not_taken_for_a_cache_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled.nb, "njit", _njit_that_fails_with("something else"))
    with pytest.raises(RuntimeError, match="something else"):
        compile_program(_program, "float64(float64, float64, float64)", [Path(__file__)])
