"""The one seam to object storage: create, read, list and delete objects under a URI.

Only *create-only* puts carry meaning (the commit log stands on them), because that is the one conditional write that
S3, GCS, Azure, local directories and memory all have. Everything else is a plain put of a name that nobody else uses.

Facts that shaped this file: `obstore` never fsyncs a local directory, so local writes go through `_LocalWriter` (write,
fsync, link, fsync of the folder: an object is whole and durable or absent); it is not fork-safe, so a store refuses to
work in a forked child.
"""

import builtins
import os
import re
import secrets
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, NotFoundError, PermissionDeniedError, UnauthenticatedError
from obstore.store import LocalStore, MemoryStore

from kuberec_runtime.checkpoint.errors import ObjectExists, ObjectMissing, StoreError
from kuberec_runtime.crashpoints import crash_here
from kuberec_runtime.objects import REMOTE_SCHEMES, open_remote

if TYPE_CHECKING:
    from obstore.store import ObjectStore

Buffer = bytes | bytearray | memoryview

CHUNK_BYTES = 8 << 20
ABANDONED_SECONDS = 3600.0
_MEMORY: dict[str, MemoryStore] = {}


@dataclass(frozen=True)
class Listed:
    """One object of a listing: key relative to the store's URI, and size in bytes."""

    key: str
    size: int


class _LocalWriter:
    """Durable writes into a directory: temporary file, fsync, link or rename, fsync of the folder.

    Temporary names end in `#<digits>`, which obstore's listings leave out.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def put(self, key: str, data: Buffer, create: bool) -> None:
        target = self.root / key
        self._make_folder(target.parent)
        temporary = target.with_name(f"{target.name}#{secrets.randbits(63)}")
        descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
        try:
            try:
                view = memoryview(data).cast("B")
                while view:
                    view = view[os.write(descriptor, view[:CHUNK_BYTES]) :]
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            crash_here("store.temporary-written")
            if create:
                os.link(temporary, target)
                crash_here("store.linked")
            else:
                os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
        self._sync_folder(target.parent)

    def _make_folder(self, folder: Path) -> None:
        missing = []
        while not folder.is_dir():
            missing.append(folder)
            folder = folder.parent
        for made in reversed(missing):
            made.mkdir(exist_ok=True)
            self._sync_folder(made.parent)

    @staticmethod
    def _sync_folder(folder: Path) -> None:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def sweep(self, older_than: float) -> list[str]:
        swept = []
        for folder, _, names in os.walk(self.root):
            for name in names:
                path = Path(folder) / name
                if name.rpartition("#")[2].isdigit() and "#" in name:
                    try:
                        if time.time() - path.stat().st_mtime >= older_than:
                            path.unlink()
                            swept.append(str(path.relative_to(self.root)))
                    except FileNotFoundError:
                        continue
        return swept


class Store:
    """Objects under one URI. Keys are relative paths with `/`. Use one per process: open it after spawning, never fork.

    Args:
        uri: what error messages name.
        objects: the obstore store behind it, with the URI's prefix applied.
        writer: durable local writes, only for `file://`.
    """

    def __init__(self, uri: str, objects: "ObjectStore", writer: _LocalWriter | None = None) -> None:
        self.uri = uri.rstrip("/")
        self._objects = objects
        self._writer = writer
        self._process = os.getpid()

    def __reduce__(self) -> Any:
        raise StoreError(
            f"{self.uri}: a Store cannot be sent to another process: send the URI and call open_store there"
        )

    def put(self, key: str, data: Buffer, *, create: bool = False) -> None:
        """Writes an object whole; on a local directory it is on the disk when this returns.

        Args:
            key: where.
            data: the bytes (any one-dimensional contiguous buffer of bytes).
            create: refuse to replace an object.

        Raises:
            ObjectExists: `create` and the key is taken. After a lost reply this may be one's own object.
            StoreError: anything else, with the URI.
        """
        self._check_process()
        try:
            if self._writer is not None:
                self._writer.put(key, data, create)
            elif create:
                obstore.put(self._objects, key, bytes(data), mode="create")
            else:
                obstore.put(self._objects, key, memoryview(data).cast("B"), chunk_size=CHUNK_BYTES)
        except (AlreadyExistsError, FileExistsError) as error:
            raise ObjectExists(f"{self.uri}/{key}: exists already") from error
        except (BaseError, OSError) as error:
            raise self._readable("write", key, error) from error

    def get(self, key: str) -> memoryview:
        """Reads a whole object.

        Raises:
            ObjectMissing: there is none.
            StoreError: anything else, with the URI.
        """
        self._check_process()
        try:
            return memoryview(obstore.get(self._objects, key).bytes())
        except (NotFoundError, FileNotFoundError) as error:
            raise ObjectMissing(f"{self.uri}/{key}: no such object") from error
        except (BaseError, OSError) as error:
            raise self._readable("read", key, error) from error

    def size(self, key: str) -> int:
        """Returns an object's size in bytes without reading it.

        Raises:
            ObjectMissing: there is none.
            StoreError: anything else, with the URI.
        """
        self._check_process()
        try:
            return int(obstore.head(self._objects, key)["size"])
        except (NotFoundError, FileNotFoundError) as error:
            raise ObjectMissing(f"{self.uri}/{key}: no such object") from error
        except (BaseError, OSError) as error:
            raise self._readable("look up", key, error) from error

    def list(self, prefix: str) -> Iterator[Listed]:
        """Lists the objects below a folder. For reports and retention only: state is read from the commit log.

        Raises:
            StoreError: with the URI.
        """
        self._check_process()
        try:
            for chunk in obstore.list(self._objects, prefix):
                for entry in chunk:
                    yield Listed(entry["path"], entry["size"])
        except (BaseError, OSError) as error:
            raise self._readable("list", prefix, error) from error

    def delete(self, keys: Iterable[str]) -> None:
        """Deletes objects; those that are gone already do not matter.

        Raises:
            StoreError: with the URI.
        """
        self._check_process()
        for key in keys:
            try:
                obstore.delete(self._objects, key)
            except (NotFoundError, FileNotFoundError):
                continue
            except (BaseError, OSError) as error:
                raise self._readable("delete", key, error) from error

    def sweep(self, older_than_seconds: float = ABANDONED_SECONDS) -> "builtins.list[str]":
        """Removes what killed local writers left behind; other stores leave nothing. Returns the names."""
        return [] if self._writer is None else self._writer.sweep(older_than_seconds)

    def _check_process(self) -> None:
        if os.getpid() != self._process:
            raise StoreError(
                f"{self.uri}: opened in process {self._process}, used in its fork {os.getpid()}: "
                "obstore is not fork-safe, start processes with the 'spawn' method and open the store there"
            )

    def _readable(self, verb: str, key: str, error: Exception) -> StoreError:
        reason = " ".join(str(error).split("Debug source:")[0].split())
        # An S3 error carries a whole XML page: its code and message say it all.
        if page := re.search(r"<Code>(.*?)</Code>.*?<Message>(.*?)</Message>", reason):
            reason = f"{page[1]}: {page[2]}"
        reason = reason[:500]
        hint = "check that the endpoint is reachable and that the bucket exists"
        if isinstance(error, PermissionDeniedError | UnauthenticatedError | PermissionError):
            hint = "the credentials may not do this: check the Secret that spec.checkpoint.credentials names"
        elif self._writer is not None:
            hint = "check that the directory exists, is writable and has room"
        return StoreError(f"{self.uri}/{key}: cannot {verb}: {reason}\n  {hint}")


def open_store(uri: str, env: Mapping[str, str] | None = None) -> Store:
    """Opens the store behind a URI.

    Args:
        uri: `s3://bucket/prefix`, `gs://...`, `az://...`, `file:///absolute/path` or `memory://name` (this process
            only).
        env: credentials and endpoint by their usual names (`AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`,
            `AWS_SESSION_TOKEN`, `AWS_REGION`, `AWS_ENDPOINT`, `GOOGLE_*`, `AZURE_*`); the process environment if None.

    Raises:
        StoreError: the URI is not one of these, or the configuration is refused.
    """
    env = os.environ if env is None else env
    parts = urlsplit(uri)
    if parts.scheme == "memory":
        return Store(uri, _MEMORY.setdefault(uri.rstrip("/"), MemoryStore()))
    if parts.scheme == "file":
        root = Path(unquote(parts.path))
        if parts.netloc or not root.is_absolute():
            raise StoreError(f"{uri}: a local store needs an absolute path: write file:///path")
        try:
            root.mkdir(parents=True, exist_ok=True)
            return Store(uri, LocalStore(root), _LocalWriter(root))
        except OSError as error:
            raise StoreError(f"{uri}: cannot create the directory: {error}") from error
    if parts.scheme not in REMOTE_SCHEMES or not parts.netloc:
        raise StoreError(f"{uri}: not a checkpoint URI: write s3://bucket/prefix, gs://, az:// or file:///path")
    try:
        return Store(uri, open_remote(uri, env))
    except BaseError as error:
        raise StoreError(f"{uri}: the store's configuration is refused: {error}") from error
