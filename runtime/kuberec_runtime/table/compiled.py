"""How the runtime's kernels are compiled: on first use, without the GIL, and kept on disk as the features' are."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from featuregen.compiled import compile_on_use, digest_of

_TABLE = sorted(Path(__file__).parent.glob("*.py"))


@cache
def _digest(file: str) -> str:
    return digest_of([*_TABLE, Path(file)])


def kernel(function: Callable[..., Any]) -> Any:
    """Compiles a function on first use, without the GIL and bounds checks, through the cache.

    Its machine code depends on its own file and on this package: kernels elsewhere inline this package's only.
    """
    return compile_on_use(function, _digest(function.__code__.co_filename), nogil=True, boundscheck=False)
