"""How kernels are compiled: as one program, once for each machine, and kept on disk by what they are made of.

numba's own cache watches the file of the function that is compiled, and keeps stale code when a function that it
inlines changes in another file. Here a compiled kernel is found by the digest of all sources that it depends on. It is
looked for in this machine's folder, then in one that came with an image (`$KUBEREC_KERNELS`), so that a container
with a read-only file system starts warm; it is written to the first only: `$NUMBA_CACHE_DIR`, else
`$XDG_CACHE_HOME/kuberec/kernels`, else `~/.cache/kuberec/kernels`. Machine code for another processor is not found.
"""

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import llvmlite
import numba as nb
import numpy as np
from numba.core import caching, event
from numba.core.registry import cpu_target

_VERSIONS = f"{nb.__version__} {llvmlite.__version__} {np.__version__}"
_OPTIONS = {"nogil": True, "boundscheck": False, "error_model": "numpy"}


def digest_of(sources: Iterable[Path]) -> str:
    """Returns the digest of some files, their names, and the versions of what compiles them."""
    digest = hashlib.sha256(_VERSIONS.encode())
    for path in sources:
        content = path.read_bytes()
        digest.update(f"\0{path.name}\0{len(content)}\0".encode() + content)
    return digest.hexdigest()


def compile_program(function: Callable[..., Any], signature: str, sources: Iterable[Path]) -> Any:
    """Compiles a function for one signature now, so that no request ever pays for it, or loads it from the cache.

    numba optimizes each inner kernel, and makes machine code of it with all that it calls, before it does the same
    with the whole, although only the whole is ever called. Without that a program compiles in three fifths of the
    time, and to the same bits.

    Args:
        function: calls the inner kernels.
        signature: the only one that it has.
        sources: files that the machine code depends on.

    Returns:
        The compiled function, which runs without the GIL.
    """
    program = nb.njit(**_OPTIONS)(function)
    program._cache = _Layers(function, digest_of(sources))
    with _only_the_whole():
        program.compile(signature)
    program.disable_compile()
    return program


def compile_on_use(function: Callable[..., Any], digest: str, **options: Any) -> Any:
    """Compiles a function when it is first called with arguments of some types, or loads it from the cache.

    Args:
        function: the kernel.
        digest: of the files that the machine code depends on.
        options: numba's.
    """
    kernel = nb.njit(**options)(function)
    kernel._cache = _Layers(function, digest)
    return kernel


def folders() -> tuple[Path | None, Path | None]:
    """Returns this machine's folder of compiled kernels, and an image's; None where there is none."""
    baked = os.environ.get("KUBEREC_KERNELS")
    return _own_folder(), Path(baked) if baked else None


def _own_folder() -> Path | None:
    if given := os.environ.get("NUMBA_CACHE_DIR"):
        return Path(given)
    try:
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError:  # the user has no home
        return None
    return Path(home) / "kuberec" / "kernels"


class _Layers:
    """The cache of one function, as numba's dispatcher asks for it: what is not in the first folder may be in the next.

    A folder that cannot be read or written costs time and nothing else.
    """

    def __init__(self, function: Any, digest: str) -> None:
        own, baked = folders()
        self._caches = [_cache(function, digest, folder) for folder in (own, baked) if folder is not None]
        self._writes = own is not None
        self.cache_path = str(own)

    def load_overload(self, signature: Any, target_context: Any) -> Any:
        for cache in self._caches:
            try:
                found = cache.load_overload(signature, target_context)
            except OSError:
                continue
            if found is not None:
                return found
        return None

    def save_overload(self, signature: Any, data: Any) -> None:
        if not self._writes:
            return
        try:
            Path(self._caches[0].cache_path).mkdir(parents=True, exist_ok=True)
            self._caches[0].save_overload(signature, data)
        except OSError:
            pass  # compiled in every process


def _cache(function: Any, digest: str, folder: Path) -> Any:
    """Returns numba's cache of a function in one folder."""

    class Locator(caching._CacheLocator):  # type: ignore[misc]  # numba has no types
        def get_cache_path(self) -> str:
            return str(folder / digest[:16])

        def get_source_stamp(self) -> str:
            return digest

        def get_disambiguator(self) -> str:
            return str(function.__code__.co_firstlineno)

        @classmethod
        def from_function(cls, function: Any, file: str) -> Any:
            return cls()

    class Files(caching.CompileResultCacheImpl):  # type: ignore[misc]
        _locator_classes: Sequence[Any] = (Locator,)

    class Cache(caching.FunctionCache):  # type: ignore[misc]
        _impl_class = Files

    return Cache(function)


class _Nesting(event.Listener):  # type: ignore[misc]
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
