"""Ctrl-C that cannot get lost.

A handler's exception that comes while a callback of C code or a finalizer runs is printed and dropped, so whoever only
raises may go on as if nothing had been asked. The flag stays.
"""

import signal
from types import FrameType


class Interrupts:
    """SIGINT and SIGTERM of this process, from `install` on."""

    def __init__(self) -> None:
        self._asked = False

    def install(self) -> None:
        """Raises KeyboardInterrupt at either signal, wherever the main thread is. Call it from there."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._note)

    def check(self) -> None:
        """Raises KeyboardInterrupt if there was one."""
        if self._asked:
            raise KeyboardInterrupt

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        self._asked = True
        raise KeyboardInterrupt
