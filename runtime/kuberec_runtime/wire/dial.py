"""How a worker reaches a shard: through its Unix socket and shared memory where it can, through TCP everywhere else.

Both ways begin with the same HELLO. What the nearer way lacks (another pod, no memory, an old kernel) is no error: the
connection then works without it, and the reason is logged.
"""

import socket
import struct
from dataclasses import dataclass

from kuberec_runtime.wire import messages
from kuberec_runtime.wire.channel import Channel
from kuberec_runtime.wire.errors import FrameError, WireRefused
from kuberec_runtime.wire.frames import Kind, tune
from kuberec_runtime.wire.messages import Hello
from kuberec_runtime.wire.segment import Memory, hand_over, knock

_WELCOME_LIMIT = 1 << 16


@dataclass(frozen=True)
class Dialled:
    """A connection after its handshake; `reason` says why it shares no memory, if it does not."""

    channel: Channel
    reason: str = ""


def dial(
    address: tuple[str, int],
    hello: Hello,
    timeout_s: float,
    answer_s: float,
    checked: bool,
    memory: Memory | None = None,
) -> Dialled:
    """Connects and shakes hands.

    Args:
        address: (host, port) of the shard's listener.
        hello: who connects; `share` asks the shard to map `memory`.
        timeout_s: for the handshake.
        answer_s: receive timeout afterwards.
        checked: whether every frame carries a checksum.
        memory: what the worker shares.

    Raises:
        OSError: no connection, or it broke.
        FrameDamaged: bits changed on the way.
        FrameError: the answer makes no sense.
        WireRefused: the shard will not serve this worker.
    """
    reason = "not asked for"
    sock: socket.socket | None = None
    if hello.share:
        try:
            sock = knock(hello.token, address, timeout_s)
        except OSError as error:
            reason = f"no way to its memory from here ({error.strerror or error})"
    if sock is None:
        sock = socket.create_connection(address, timeout_s)
    channel = Channel(sock, checked)
    try:
        tune(sock)
        channel.send(Kind.HELLO, messages.pack_hello(hello))
        if _welcome(channel, hello) and memory is not None:
            hand_over(sock, memory.fd)
            if _welcome(channel, hello):
                channel.arena = memory.arena
            else:
                reason = "the shard can not map the worker's memory"
        elif sock.family == socket.AF_UNIX:
            reason = "the shard maps no memory"
        # A receive timeout of the kernel, not of Python: a blocking socket needs one call per read instead of two.
        sock.settimeout(None)
        whole, rest = divmod(answer_s, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", int(whole), int(rest * 1e6)))
        return Dialled(channel, reason)
    except BaseException:
        channel.close()
        raise


def _welcome(channel: Channel, hello: Hello) -> int:
    """What the shard's next WELCOME says."""
    answer = channel.receive(_WELCOME_LIMIT)
    if answer.kind is Kind.REFUSED:
        raise WireRefused(f"shard {hello.shard}: {messages.parse_reason(answer.body)}")
    if answer.kind is not Kind.WELCOME:
        raise FrameError(f"the answer to HELLO is {answer.kind.name}")
    return messages.parse_number(answer.body, "WELCOME")
