"""What one publication consists of, and the names its parts have in Redis. Pure: no I/O.

Everything a reader needs of a version lies in ONE value, `<ns>/dense/<version>` (safetensors with the description in
its metadata), so that a version is read completely or not at all. `<ns>/meta` repeats the description for people.
The namespace's name depends on all that decides what a row's bytes mean: plan digest, widths, row type.
"""

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from kuberec_api.training import RowType
from kuberec_runtime.publish.errors import TierCorrupt

MAX_DELTA_IDS = 1 << 18
_DESCRIPTION = "kuberec"


class Version(NamedTuple):
    """`<attempt>.<epoch>`; ordered."""

    attempt: int
    epoch: int

    def __str__(self) -> str:
        return f"{self.attempt}.{self.epoch}"

    @classmethod
    def parse(cls, text: str) -> "Version":
        """Parses `3.42`.

        Raises:
            ValueError: if it is not a version.
        """
        attempt, dot, epoch = text.partition(".")
        if not (dot and attempt.isdecimal() and epoch.isdecimal()):
            raise ValueError(f"'{text}' is not a version: write <attempt>.<epoch>, e.g. 3.42")
        return cls(int(attempt), int(epoch))


@dataclass(frozen=True)
class TableMeta:
    """One table of a namespace: `width` floats a row; column 0 is the linear weight if `linear`."""

    ordinal: int
    width: int
    linear: bool = False
    rows: int | None = None


@dataclass(frozen=True)
class Description:
    """What a version is: enough for a reader to refuse it. Times are milliseconds since the epoch.

    `watermark` is the newest event time that was learnt, 0 if unknown.
    """

    version: Version
    digest: str
    hash: str
    dtype: RowType
    tables: dict[str, TableMeta]
    tasks: tuple[str, ...] = ()
    trained_at: int = 0
    watermark: int = 0

    def to_json(self) -> str:
        """The value of `<ns>/meta`."""
        tables = {}
        for name, table in self.tables.items():
            tables[name] = {"ordinal": table.ordinal, "width": table.width, "linear": table.linear}
            if table.rows is not None:
                tables[name]["rows"] = table.rows
        return json.dumps(
            {
                "version": str(self.version),
                "digest": self.digest,
                "hash": self.hash,
                "dtype": self.dtype.value,
                "tables": tables,
                "tasks": list(self.tasks),
                "trainedAt": self.trained_at,
                "watermark": self.watermark,
            },
            sort_keys=True,
        )

    @classmethod
    def from_json(cls, text: str | bytes) -> "Description":
        """Parses `to_json`'s form.

        Raises:
            TierCorrupt: if it is not that.
        """
        try:
            raw: dict[str, Any] = json.loads(text)
            tables = {
                n: TableMeta(int(t["ordinal"]), int(t["width"]), bool(t["linear"]), t.get("rows"))
                for n, t in raw["tables"].items()
            }
            return cls(
                Version.parse(raw["version"]),
                raw["digest"],
                raw["hash"],
                RowType(raw["dtype"]),
                tables,
                tuple(raw["tasks"]),
                int(raw["trainedAt"]),
                int(raw["watermark"]),
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise TierCorrupt(f"the description of a version does not parse: {error!r}") from None


@dataclass(frozen=True)
class Publication:
    """A version to commit: its description, dense weights by name, and the changed ids of each table.

    `changed=None` says that any row may have changed (the first publication of an attempt).
    """

    namespace: str
    description: Description
    dense: Mapping[str, NDArray[np.float32]]
    changed: Mapping[str, NDArray[np.int64]] | None = field(default=None)


@dataclass(frozen=True)
class Current:
    """What `current` names."""

    namespace: str
    version: Version


@dataclass(frozen=True)
class Delta:
    """One entry of the delta stream. `changed` is None if any row may have changed; `previous` is the entry before."""

    id: str
    version: Version
    previous: str
    changed: dict[str, NDArray[np.int64]] | None


@dataclass(frozen=True)
class Dense:
    """A complete version: its description and dense weights by name."""

    description: Description
    weights: dict[str, NDArray[np.float32]]


def row_namespace(kube_namespace: str, training: str, digest: str, widths: Mapping[str, int], dtype: RowType) -> str:
    """Returns `kr:<namespace>/<training>/<digest8>-<crc of widths and row type>`."""
    layout = json.dumps([dtype.value, sorted(widths.items())])
    return f"kr:{kube_namespace}/{training}/{digest[:8]}-{zlib.crc32(layout.encode()):08x}"


def row_prefix(namespace: str, table: str) -> bytes:
    """Key of a row without its 8-byte id."""
    return f"{namespace}/t/{table}/".encode()


def pack_dense(publication: Publication) -> bytes:
    """The value of `<ns>/dense/<version>`."""
    weights = {n: np.ascontiguousarray(w, np.float32) for n, w in publication.dense.items()}
    return safetensors.numpy.save(weights, {_DESCRIPTION: publication.description.to_json()})


def unpack_dense(data: bytes) -> Dense:
    """Reads `pack_dense`'s form.

    Raises:
        TierCorrupt: if it is not that.
    """
    try:
        size = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + size])
        description = Description.from_json(header["__metadata__"][_DESCRIPTION])
        return Dense(description, safetensors.numpy.load(data))
    except TierCorrupt:
        raise
    except Exception as error:  # safetensors has no base class for its errors
        raise TierCorrupt(f"dense weights do not parse: {error!r}") from None


def pack_changed(changed: Mapping[str, NDArray[np.int64]] | None) -> dict[str, bytes]:
    """Fields of a delta entry: `t:<table>` = packed ids, or `all` when unknown or more than `MAX_DELTA_IDS`."""
    if changed is None or sum(ids.size for ids in changed.values()) > MAX_DELTA_IDS:
        return {"all": b"1"}
    return {f"t:{table}": np.ascontiguousarray(ids, "<i8").tobytes() for table, ids in changed.items() if ids.size}


def unpack_delta(entry_id: bytes, fields: Mapping[bytes, bytes]) -> Delta:
    """Reads one entry of the delta stream.

    Raises:
        TierCorrupt: if it is not one.
    """
    try:
        version = Version.parse(fields[b"version"].decode())
        previous = fields.get(b"previous", b"").decode()
        changed = None
        if b"all" not in fields:
            changed = {n[2:].decode(): np.frombuffer(v, "<i8") for n, v in fields.items() if n.startswith(b"t:")}
        return Delta(entry_id.decode(), version, previous, changed)
    except (KeyError, ValueError) as error:
        raise TierCorrupt(f"entry {entry_id!r} of the delta stream does not parse: {error!r}") from None
