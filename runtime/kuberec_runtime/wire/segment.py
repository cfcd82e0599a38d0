"""Memory that a worker and all shards of the same machine map, so that rows are written once, where they are wanted.

The worker makes it (memfd: no name, no file in /dev/shm, gone with the last process that maps it, kill -9 included),
seals its size, so that nobody can shrink it under the other's feet, and hands it over a Unix socket. That socket has an
abstract name, which exists only within one network namespace: whoever reaches it is on this machine and in this pod
or host network, and everyone else uses TCP without asking. The name is derived from the token, so that nobody else can
take it first.

The worker alone decides what lies where: it places its requests and, for each pull, names where every row goes. A
shard keeps no state in the segment; it checks every place against the size and copies what it checks before it does.
It maps a segment only if touching it can neither fail nor take more than its limit: sealed, of ordinary pages.
"""

import errno
import fcntl
import hashlib
import hmac
import mmap
import os
import socket
import threading
from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from kuberec_runtime.wire.errors import FrameError
from kuberec_runtime.wire.frames import LINE, Body

SEGMENT_BYTES = 256 << 20
"""Address space of a segment; only what was used is memory."""
_GROW = 1 << 20
_POPULATE_WRITE = 23


def door_name(token: bytes, address: tuple[str, int]) -> bytes:
    """Abstract name of the Unix socket of the shard that listens at `address`."""
    place = f"{address[0]}:{address[1]}".encode()
    return b"\0kuberec-" + hmac.new(token, place, hashlib.sha256).hexdigest()[:40].encode()


def knock(token: bytes, address: tuple[str, int], timeout_s: float) -> socket.socket:
    """Connects to the Unix socket of the shard at `address`; raises OSError if it is not within reach."""
    if not hasattr(socket, "AF_UNIX") or not hasattr(os, "memfd_create"):
        raise OSError(errno.ENOSYS, "shared memory needs Linux")
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(timeout_s)
        sock.connect(door_name(token, address))
        return sock
    except BaseException:
        sock.close()
        raise


class Segment:
    """A mapping of shared memory: `bytes` is uint8, shape (size,). Unmapped when the last array on it is gone."""

    def __init__(self, fd: int, size: int) -> None:
        self._map = mmap.mmap(fd, size)
        self.size = size
        self.bytes: Body = np.frombuffer(self._map, np.uint8)

    def part(self, place: int, length: int) -> Body:
        """`length` bytes from line `place` on; raises FrameError, see `span`."""
        return self.span(place * LINE, length)

    def span(self, start: int, length: int) -> Body:
        """`length` bytes from byte `start` on.

        Raises:
            FrameError: they reach beyond the segment.
        """
        if start + length > self.size:
            raise FrameError(f"{length} bytes from {start} on reach beyond the {self.size} shared ones")
        return self.bytes[start : start + length]

    def back(self, start: int, stop: int) -> None:
        """Makes memory of address space, both multiples of a page.

        Raises:
            OSError: there is none left; touching it would have killed the process.
        """
        try:
            self._map.madvise(_POPULATE_WRITE, start, stop - start)
        except OSError as error:
            if error.errno != errno.EINVAL:  # a kernel before 5.14: pages come when touched
                raise


def create(size: int) -> tuple[int, Segment]:
    """Makes a segment; returns its descriptor, which the caller closes, and the mapping.

    Raises:
        OSError: no memory, descriptors, or no such thing on this system.
    """
    if not hasattr(os, "memfd_create"):
        raise OSError(errno.ENOSYS, "shared memory needs Linux")
    fd = os.memfd_create("kuberec-wire", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(fd, size)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
        return fd, Segment(fd, size)
    except BaseException:
        os.close(fd)
        raise


def hand_over(sock: socket.socket, fd: int) -> None:
    """Sends one byte and the descriptor; raises OSError."""
    socket.send_fds(sock, [b"\0"], [fd])


def take_over(sock: socket.socket, most: int) -> Segment:
    """Receives what `hand_over` sent and maps it.

    Args:
        sock: the Unix socket.
        most: largest size that is accepted, bytes.

    Raises:
        OSError: nothing came, it is no memory that can be relied on, or there is no room to map it.
    """
    _, fds, _, _ = socket.recv_fds(sock, 1, 1, socket.MSG_CMSG_CLOEXEC)
    try:
        if len(fds) != 1:
            raise OSError(errno.EBADF, "the worker's memory did not come")
        size = os.fstat(fds[0]).st_size
        if not 0 < size <= most:
            raise OSError(errno.EFBIG, f"the worker's memory has {size} bytes, at most {most} are mapped here")
        # Memory that is not sealed could shrink, and huge pages could run out: both would kill whoever touches it.
        sealed = fcntl.fcntl(fds[0], fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK
        if not sealed or os.fstatvfs(fds[0]).f_bsize != mmap.PAGESIZE:
            raise OSError(errno.EBADF, "the worker's memory is not sealed, or not of ordinary pages")
        return Segment(fds[0], size)
    finally:
        for fd in fds:
            os.close(fd)


@dataclass(frozen=True)
class Region:
    """Memory for one body: in a segment (`arena` set) from line `place` on, or private. Freed by `free`, once."""

    bytes: Body
    place: int = 0
    arena: "Arena | None" = None

    def free(self) -> None:
        """Gives it back; the arrays on it must not be used any more. Safe in a finalizer."""
        if self.arena is not None:
            self.arena.give(self)


class _Lease:
    """What an array of `lease` holds on to."""

    def __init__(self, region: Region, dtype: type[np.generic], shape: tuple[int, ...]) -> None:
        self._region = region
        place = region.bytes.__array_interface__["data"]
        self.__array_interface__ = {"version": 3, "shape": shape, "typestr": np.dtype(dtype).str, "data": place}

    def __del__(self) -> None:
        self._region.free()


def lease(region: Region, dtype: type[np.generic], *shape: int) -> npt.NDArray[Any]:
    """An array on a region that frees it when the array, and every view of it, is gone."""
    return np.asarray(_Lease(region, dtype, shape))


class Arena:
    """First fit from the low end, so that the same few megabytes are used again and stay in caches."""

    def __init__(self, segment: Segment) -> None:
        self.segment = segment
        self._guard = threading.Lock()
        self._taken: list[tuple[int, int]] = []
        # Without a lock: a finalizer may run in the midst of `take`, in the same thread.
        self._given: deque[int] = deque()
        self._backed = 0

    def take(self, size: int) -> Region | None:
        """Room for `size` bytes, or None if there is none now."""
        lines = -(-size // LINE) or 1
        with self._guard:
            self._collect()
            start, slot = 0, 0
            for first, last in self._taken:
                if first - start >= lines:
                    break
                start, slot = last, slot + 1
            end = (start + lines) * LINE
            if end > self.segment.size or not self._back(end):
                return None
            self._taken.insert(slot, (start, start + lines))
        return Region(self.segment.bytes[start * LINE : start * LINE + size], start, self)

    def _back(self, end: int) -> bool:
        if end > self._backed:
            upto = min(-(-end // _GROW) * _GROW, self.segment.size)
            try:
                self.segment.back(self._backed, upto)
            except OSError:
                return False
            self._backed = upto
        return True

    def give(self, region: Region) -> None:
        """Frees a region of this arena."""
        self._given.append(region.place)

    def _collect(self) -> None:
        while self._given:
            place = self._given.popleft()
            self._taken = [taken for taken in self._taken if taken[0] != place]

    @property
    def taken_bytes(self) -> int:
        """Bytes in use."""
        with self._guard:
            self._collect()
            return sum(last - first for first, last in self._taken) * LINE


class Memory:
    """What a worker shares with the shards of its machine: one segment, whose descriptor each connection hands over."""

    def __init__(self, size: int) -> None:
        """Makes it; raises OSError where that is not possible."""
        self.fd, segment = create(size)
        self.arena = Arena(segment)

    def close(self) -> None:
        """Gives the descriptor back; the segment goes with the last array on it."""
        fd, self.fd = self.fd, -1  # first, as a worker that ends and whoever ends it may both close its pool
        if fd >= 0:
            os.close(fd)
