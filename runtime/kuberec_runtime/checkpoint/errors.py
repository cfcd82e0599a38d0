"""What can go wrong with a checkpoint, by what the reader has to do about it."""
# ruff: noqa: N818 - `Fenced` and `CorruptFile` say what happened; "Error" would add nothing


class CheckpointError(Exception):
    """Base of every error of this package."""


class StoreError(CheckpointError):
    """The object store refused or failed; the text names the object's URI and how to mend it."""


class ObjectMissing(StoreError):
    """There is no object under this key."""


class ObjectExists(StoreError):
    """A create-only put found an object under this key."""


class Fenced(CheckpointError):
    """This attempt no longer owns the commit log: a newer attempt (or a twin of this one) does. Stop at once."""


class AlreadyCommitted(CheckpointError):
    """The epoch, or a later one, is already in the log."""


class CorruptLog(CheckpointError):
    """A slot of the commit log holds something that is not a record."""


class CorruptFile(CheckpointError):
    """A file is not what its manifest says: size, checksum or content differ.

    Attributes:
        key: the file's key in the store, for `find_restorable(..., broken=...)`.
    """

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


class NothingToRestore(CheckpointError):
    """The log holds commits, but none of their manifests can be restored."""
