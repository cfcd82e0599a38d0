"""Which files the machine code of kernels depends on: whoever compiles kernels that call these lists them too."""

from pathlib import Path

_HERE = Path(__file__).parent
SOURCES = [
    *(_HERE.parent / f"{name}.py" for name in ("compiled", "expression", "hash64")),
    *sorted(_HERE.glob("*.py")),
]
