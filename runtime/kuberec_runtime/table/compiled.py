"""How kernels are compiled: without the GIL, and once per machine instead of once per process.

A shard compiles a dozen kernels, which takes 5 to 10 seconds of one core; a cache on disk makes a replacement ready in
under one. numba's own cache looks only at the file of the function it stores and would keep stale code when an inlined
function of another file changes; this one is stamped with the digest of the whole package. It lives in
`$NUMBA_CACHE_DIR`, else `$XDG_CACHE_HOME/kuberec/kernels`, else `~/.cache/kuberec/kernels`; where none can be written,
kernels are compiled in memory.
"""

import hashlib
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numba as nb
from numba.core import caching


@cache
def _package_digest() -> bytes:
    digest = hashlib.sha256(nb.__version__.encode())
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.digest()


def _folder() -> Path:
    if given := os.environ.get("NUMBA_CACHE_DIR"):
        return Path(given)
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "kuberec" / "kernels"


class _Locator(caching._CacheLocator):  # type: ignore[misc]
    """Place and freshness of one function's cache file."""

    def __init__(self, function: Any, file: str) -> None:
        own = hashlib.sha256(_package_digest() + Path(file).read_bytes()).hexdigest()
        self._stamp = own
        self._path = str(_folder() / own[:16])
        self._line = function.__code__.co_firstlineno

    def get_cache_path(self) -> str:
        return self._path

    def get_source_stamp(self) -> str:
        return self._stamp

    def get_disambiguator(self) -> str:
        return str(self._line)

    @classmethod
    def from_function(cls, function: Any, file: str) -> "_Locator | None":
        try:
            locator = cls(function, file)
            locator.ensure_cache_path()
            return locator
        except (OSError, RuntimeError):  # RuntimeError: the user has no home
            return None


class _Files(caching.CompileResultCacheImpl):  # type: ignore[misc]
    _locator_classes = (_Locator,)


class _Cache(caching.FunctionCache):  # type: ignore[misc]
    _impl_class = _Files


def kernel(function: Callable[..., Any]) -> Any:
    """Compiles a function on first use, without the GIL and bounds checks, through the cache if there is one."""
    compiled = nb.njit(nogil=True, boundscheck=False)(function)
    try:
        compiled._cache = _Cache(function)
    except (RuntimeError, OSError, AttributeError):
        pass  # compiled in every process: slower to start, nothing else
    return compiled
