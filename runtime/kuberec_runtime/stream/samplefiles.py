"""The edge to where files of samples lie: list, look up, open for random access. Local files are opened as such.

Credentials are the process's own (`AWS_...`), or, if any is set, those with the prefix `KUBEREC_SOURCE_`: samples and
checkpoints may lie in stores of different owners.
"""

import io
import os
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import obstore
import pyarrow as pa
from obstore.exceptions import BaseError, NotFoundError

from kuberec_api.environment import SOURCE_PREFIX
from kuberec_runtime.objects import REMOTE_SCHEMES, open_remote, under
from kuberec_runtime.stream.listing import Found, root_of
from kuberec_runtime.stream.source import FileChangedError, SourceError, SourceUnavailableError, Unit


def source_environment(env: Mapping[str, str]) -> dict[str, str]:
    """The environment in which files of samples are opened."""
    return under(SOURCE_PREFIX, env)


def list_files(folder: str) -> Iterator[Found]:
    """Lists what lies below a folder, or the one file that the URI names.

    Raises:
        SourceUnavailableError: the store does not answer, or refuses.
    """
    if _is_local(folder):
        path = _path(folder)
        for file in [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file()):
            yield _found(file)
        return
    root, prefix = root_of(folder), _key(folder)
    try:
        store = _store(root)
        if prefix and not prefix.endswith("/"):
            try:
                yield _remote(root, obstore.head(store, prefix))
                return
            except (NotFoundError, FileNotFoundError):
                pass
        for chunk in obstore.list(store, prefix or None):
            for entry in chunk:
                yield _remote(root, entry)
    except (BaseError, OSError) as error:
        raise _unavailable(folder, error) from error


def open_unit(unit: Unit) -> Any:
    """Opens a unit's file for Arrow's readers, after making sure that it is still the file that was listed.

    Raises:
        FileChangedError: it is gone, or another one.
        SourceUnavailableError: the store does not answer.
    """
    now = look_up(unit.uri)
    if now is None or (now.size, now.version) != (unit.size, unit.version):
        what = "is gone" if now is None else f"has changed ({unit.size} bytes then, {now.size} now)"
        raise FileChangedError(
            f"{unit.uri} {what} since the training listed it at its first start, and it is not read to its end; "
            "put the old file back, or start anew under another checkpoint.uri"
        )
    return open_file(now)


def look_up(uri: str) -> Found | None:
    """Returns a file as it is now, None if there is none."""
    if _is_local(uri):
        path = _path(uri)
        return _found(path) if path.is_file() else None
    try:
        return _remote(root_of(uri), obstore.head(_store(root_of(uri)), _key(uri)))
    except (NotFoundError, FileNotFoundError):
        return None
    except (BaseError, OSError) as error:
        raise _unavailable(uri, error) from error


def open_file(file: Found) -> Any:
    """Opens a file for random access, for Arrow's readers."""
    if _is_local(file.uri):
        return pa.OSFile(str(_path(file.uri)))
    return pa.PythonFile(_Remote(file), mode="r")


class _Remote(io.RawIOBase):
    """A remote file: each read is a request for just that range; Arrow's readers ask for large ones."""

    def __init__(self, file: Found) -> None:
        self._file, self._at = file, 0
        self._store = _store(root_of(file.uri))

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._file.size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        left = max(0, self._file.size - self._at)
        count = left if size is None or size < 0 else min(size, left)
        if count == 0:
            return b""
        try:
            data = bytes(obstore.get_range(self._store, _key(self._file.uri), start=self._at, length=count))
        except (BaseError, OSError) as error:
            raise _unavailable(self._file.uri, error) from error
        self._at += len(data)
        return data


@lru_cache(maxsize=16)
def _store(root: str) -> Any:
    return open_remote(root, source_environment(os.environ))


def _is_local(uri: str) -> bool:
    parts = urlsplit(uri)
    if parts.scheme == "file":
        return True
    if parts.scheme not in REMOTE_SCHEMES or not parts.netloc:
        raise SourceError(f"{uri}: not a URI of files: write s3://bucket/path, gs://, az:// or file:///path")
    return False


def _path(uri: str) -> Path:
    return Path(uri.removeprefix("file://"))


def _key(uri: str) -> str:
    return uri.removeprefix(root_of(uri)).lstrip("/")


def _found(path: Path) -> Found:
    state = path.stat()
    return Found(f"file://{path}", state.st_size, f"{state.st_mtime_ns:x}")


def _remote(root: str, entry: Mapping[str, Any]) -> Found:
    version = entry.get("e_tag") or str(entry["last_modified"])
    return Found(f"{root}/{entry['path']}", int(entry["size"]), version)


def _unavailable(uri: str, error: Exception) -> SourceUnavailableError:
    reason = " ".join(str(error).split("Debug source:")[0].split())[:400]
    return SourceUnavailableError(
        f"{uri}: {reason}; check the endpoint, the bucket and the Secret that source.files.credentials names"
    )
