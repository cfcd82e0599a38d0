"""The compiled program: without a writable cache folder it still compiles, and other failures are not hidden."""

import ast
from typing import Any

import pytest

from featuregen import kernels


def _njit_that_fails_with(message: str) -> Any:
    def njit(signature: str, cache: bool = False, **options: Any) -> Any:
        def compile(function: Any) -> Any:
            if cache:
                raise RuntimeError(message)
            return function

        return compile

    return njit


def test_without_a_writable_folder_the_program_is_compiled_without_a_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels.nb, "njit", _njit_that_fails_with("cannot cache function 'run': no locator available"))
    assert callable(kernels._compile())


def test_a_failure_to_compile_is_not_taken_for_a_cache_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels.nb, "njit", _njit_that_fails_with("something else"))
    with pytest.raises(RuntimeError, match="something else"):
        kernels._compile()


def test_the_cache_is_keyed_by_every_module_that_kernels_take_something_from() -> None:
    folder = kernels.Path(kernels.__file__).parent
    sources = [path.read_text() for path in folder.glob("kernels*.py")]
    imported = {
        f"{node.module.removeprefix('featuregen').removeprefix('.')}" or node.names[0].name
        for source in sources
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("featuregen")
    }
    assert "kernels_memory" in imported
    assert imported <= set(kernels._SOURCES)
