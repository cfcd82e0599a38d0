"""What can go wrong on the wire, one type per answer that a caller can give."""


class WireError(RuntimeError):
    """Anything of the data plane; the message names the shard or the worker."""


class FrameError(WireError):
    """Bytes that are no frame of this protocol, or exceed a limit; the connection that sent them is closed."""


class FrameDamaged(FrameError):  # noqa: N818 - named for what happened
    """A checksum does not match: bits changed on the way. The connection is closed; a new one sends again."""


class WireRefused(WireError):  # noqa: N818 - named for what happened
    """The shard answered, and will not serve this peer: version, token, digest, topology or a stale incarnation.

    Trying again changes nothing.
    """


class ShardLost(WireError):  # noqa: N818 - named for what happened
    """A shard does not answer any more, in spite of reconnecting with backoff.

    Attributes:
        shard: number of the shard.
        address: (host, port) of its listener.
    """

    def __init__(self, shard: int, address: tuple[str, int], reason: str) -> None:
        super().__init__(f"shard {shard} at {address[0]}:{address[1]} is lost: {reason}")
        self.shard = shard
        self.address = address
        self.reason = reason

    def __reduce__(self) -> tuple[type["ShardLost"], tuple[int, tuple[str, int], str]]:
        """Survives the trip through a Ray call."""
        return type(self), (self.shard, self.address, self.reason)


class CutTimeout(WireError):  # noqa: N818 - named for what happened
    """Not every worker marked the epoch in time; the epoch is aborted and nothing was taken.

    Attributes:
        epoch: the aborted epoch.
        missing: workers whose mark did not come.
    """

    def __init__(self, epoch: int, missing: tuple[int, ...], waited: float) -> None:
        super().__init__(
            f"epoch {epoch} is aborted: no mark from worker(s) {', '.join(map(str, missing))} within {waited:g} s; "
            f"changed rows stay marked and belong to the next cut"
        )
        self.epoch = epoch
        self.missing = missing
        self.waited = waited

    def __reduce__(self) -> tuple[type["CutTimeout"], tuple[int, tuple[int, ...], float]]:
        """Survives the trip through a Ray call."""
        return type(self), (self.epoch, self.missing, self.waited)


class CutAborted(WireError):  # noqa: N818 - named for what happened
    """The epoch was aborted (`abort_cut`, a restore, or the end of the shard) while the cut waited for marks."""


class StaleEpoch(WireError):  # noqa: N818 - named for what happened
    """The epoch is not newer than one that was already taken or aborted; epochs only rise."""
