"""Named places where a test may kill this process: the proof that a crash at any step loses and repeats nothing.

`KUBEREC_CRASH_AT=<point>` makes the first pass over `crash_here("<point>")` a SIGKILL, `<point>@<n>` the n-th pass
(counted from 1). Without the variable a crash point costs one dictionary lookup and does nothing. SIGKILL and not an
exception, because no `finally`, `atexit` or flush may run: that is what a lost node looks like from outside.
"""

import os
import signal

VARIABLE = "KUBEREC_CRASH_AT"

_passes: dict[str, int] = {}


def crash_here(point: str) -> None:
    """Kills this process with SIGKILL if `KUBEREC_CRASH_AT` names this point (and this pass over it)."""
    wanted = os.environ.get(VARIABLE)
    if not wanted:
        return
    name, _, nth = wanted.partition("@")
    if name != point:
        return
    _passes[point] = _passes.get(point, 0) + 1
    if _passes[point] == int(nth or 1):
        os.kill(os.getpid(), signal.SIGKILL)
