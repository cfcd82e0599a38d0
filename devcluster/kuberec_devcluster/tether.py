"""Replaces itself by a command that dies with the process that asked for it.

A test run that is killed must not leave brokers behind, and no clean-up code survives SIGKILL: only the kernel
can promise that. Run as a program because a `preexec_fn` is unsafe in a process with threads.

    python tether.py <pid of the parent> <command> [argument ...]

The kernel sends the signal when the *thread* that started the process ends, so start servers from a thread that
lives as long as they should.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    parent, command = int(sys.argv[1]), sys.argv[2:]
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:  # it ended before we asked the kernel
        sys.exit(f"parent {parent} is gone, not starting {command[0]}")
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
