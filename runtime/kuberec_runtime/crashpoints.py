"""Named places where a test may kill this process: the proof that a crash at any step loses and repeats nothing.

`KUBEREC_CRASH_AT=<point>` makes the first pass over `crash_here("<point>")` a SIGKILL, `<point>@<n>` the n-th pass
(counted from 1), and `<point>,<point>@<n>` names several. With `KUBEREC_CRASH_ONCE=<folder>` each of them kills one
process only, the one that can create the file `<folder>/<point>@<n>`: so who takes its place lives on. Without the
variable a crash point costs one dictionary lookup and does nothing. SIGKILL and not an exception, because no `finally`,
`atexit` or flush may run: that is what a lost node looks like from outside.
"""

import os
import signal
from pathlib import Path

VARIABLE = "KUBEREC_CRASH_AT"
ONCE = "KUBEREC_CRASH_ONCE"

_passes: dict[str, int] = {}


def crash_here(point: str) -> None:
    """Kills this process with SIGKILL if `KUBEREC_CRASH_AT` names this point (and this pass over it)."""
    wanted = os.environ.get(VARIABLE)
    if not wanted:
        return
    for one in wanted.split(","):
        name, _, nth = one.partition("@")
        if name == point:
            _passes[one] = _passes.get(one, 0) + 1
            if _passes[one] == int(nth or 1) and _first(one):
                os.kill(os.getpid(), signal.SIGKILL)


def _first(point: str) -> bool:
    folder = os.environ.get(ONCE)
    if not folder:
        return True
    try:
        (Path(folder) / point).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True
