"""The compiled program depends on every source that its kernels take something from."""

import ast
from pathlib import Path

from featuregen import kernels


def test_the_cache_is_keyed_by_every_module_that_kernels_take_something_from() -> None:
    sources = [path.read_text() for path in Path(kernels.__file__).parent.glob("kernels*.py")]
    imported = {
        node.module.removeprefix("featuregen").removeprefix(".") or node.names[0].name
        for source in sources
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("featuregen")
    }
    assert {"kernels_memory", "layout", "expression"} <= imported
    assert imported <= set(kernels._SOURCES)
