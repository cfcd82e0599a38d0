"""What is left of a local attempt is dead when it has been stopped, not only told to be."""

import signal
import subprocess
import sys

from kuberec_runtime.local.supervisor import _kill_group, _lives

FAMILY = """
import os, signal, time
for _ in range(3):
    if os.fork() == 0:
        break
signal.signal(signal.SIGTERM, signal.SIG_IGN)
memory = bytearray(64 << 20)
os.write(1, b"ready\\n")
time.sleep(1000)
"""


def test_nothing_of_a_killed_group_lives_on() -> None:
    leader = subprocess.Popen([sys.executable, "-c", FAMILY], start_new_session=True, stdout=subprocess.PIPE)
    assert leader.stdout is not None
    for _ in range(4):
        assert leader.stdout.readline() == b"ready\n"
    leader.send_signal(signal.SIGKILL)
    leader.wait()
    assert _lives(leader.pid)
    _kill_group(leader.pid)
    assert not _lives(leader.pid)
    leader.stdout.close()
