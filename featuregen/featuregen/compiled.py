"""How kernels become one compiled program: cached by all of their sources, and made machine code once, as a whole.

numba's cache on disk watches only the file of the function that is compiled; a stamp of every source in the function's
closure makes it see the others. And numba optimizes each inner kernel, and makes machine code of it with all that it
calls, before it does the same with the whole, although only the whole is ever called. Without that a program compiles
in three fifths of the time, and to the same bits.
"""

import hashlib
from collections.abc import Callable, Iterable
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numba as nb
from numba.core import event
from numba.core.registry import cpu_target


def compile_program(make: Callable[[int], Any], signature: str, sources: Iterable[Path]) -> Any:
    """Compiles a function for one signature now, so that no request ever pays for it, or loads it from the cache.

    Args:
        make: returns the function; it must use the stamp, e.g. return it.
        signature: the only one that it has.
        sources: files that the machine code depends on.

    Returns:
        The compiled function, which runs without the GIL. It is not cached if no folder for that is writable.
    """
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).digest()
    function = make(int.from_bytes(digest[:4], "little"))
    options = {"nogil": True, "boundscheck": False, "error_model": "numpy"}
    with _only_the_whole():
        try:
            return nb.njit(signature, cache=True, **options)(function)
        except RuntimeError as error:
            if "cannot cache" not in str(error):
                raise
            return nb.njit(signature, **options)(function)


class _Nesting(event.Listener):  # type: ignore[misc]  # numba has no types
    """Counts the compilations that are under way; inner ones are not optimized."""

    def __init__(self) -> None:
        self.depth, self._level = 0, nb.config.OPT

    @property
    def is_inner(self) -> bool:
        return self.depth > 1

    def on_start(self, event: Any) -> None:
        self.depth += 1
        nb.config.OPT = 0 if self.is_inner else self._level

    def on_end(self, event: Any) -> None:
        self.depth -= 1
        nb.config.OPT = 0 if self.is_inner else self._level


@contextmanager
def _only_the_whole() -> Any:
    """Keeps numba from making machine code of inner kernels: they stay LLVM code, which the whole is linked of.

    The two methods that are replaced are numba's own business. Where they are not what they were, all is compiled.
    """
    codegen, nesting = cpu_target.target_context.codegen(), _Nesting()
    with ExitStack() as stack:
        if all(callable(getattr(codegen, name, None)) for name in ("_add_module", "set_env")):
            stack.enter_context(event.install_listener("numba:compile", nesting))
            for name in ("_add_module", "set_env"):
                stack.callback(delattr, codegen, name)
                setattr(codegen, name, _unless(nesting, getattr(codegen, name)))
        yield


def _unless(nesting: _Nesting, method: Any) -> Any:
    def call(*arguments: Any) -> Any:
        return None if nesting.is_inner else method(*arguments)

    return call
