"""The compiled program depends on every source that its kernels take something from."""

import ast
from pathlib import Path

from featuregen import kernels
from featuregen.kernels.sources import SOURCES

FOLDER = Path(kernels.__file__).parent


def test_the_cache_is_keyed_by_every_module_that_kernels_take_something_from() -> None:
    imported = set()
    for path in FOLDER.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("featuregen"):
                inside = node.module.removeprefix("featuregen").removeprefix(".").replace(".", "/")
                if (FOLDER.parent / inside).is_dir():  # from a package: of the module that is named
                    inside = f"{inside}/{node.names[0].name}".removeprefix("/")
                imported.add(FOLDER.parent / f"{inside}.py")
    assert {FOLDER / "memory.py", FOLDER / "layout.py", FOLDER.parent / "expression.py"} <= imported
    assert imported <= set(SOURCES)
