"""The manifest: everything one committed epoch is made of, by name, size and checksum.

A manifest's key ends in the first 16 digits of its own sha256, so a cut or altered manifest is found out without
anything else having to vouch for it; the files vouch for themselves through the manifest.
"""

import hashlib
import secrets
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from kuberec_runtime.checkpoint.errors import CorruptFile
from kuberec_runtime.checkpoint.store import Store
from kuberec_runtime.crashpoints import crash_here

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class ManifestModel(BaseModel):
    """Base: camelCase in JSON, immutable; unknown fields are ignored, a change of meaning raises `format`."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True)


class FileRef(ManifestModel):
    """A file of the checkpoint.

    `width`, `rows`, `stride` describe row files: weights per row, number of rows, float32 per row with optimizer state
    and counters. `buckets` is the inclusive range of virtual buckets that may occur in it. Dense files leave them 0.
    `removed` is the number of keys of a file of tombstones, `counted` that of the buckets of a file of counts, which is
    how often keys without a row were pushed; neither has rows.
    """

    key: str
    size: int
    sha256: Sha256
    width: int = 0
    rows: int = 0
    stride: int = 0
    removed: int = 0
    counted: int = 0
    buckets: tuple[int, int] = (0, 255)


class LinkKind(StrEnum):
    """A full link holds every row, a delta the rows touched since the link before it."""

    FULL = "full"
    DELTA = "delta"


class Link(ManifestModel):
    """One cut's files of rows, and of tombstones: keys that have no row any more."""

    epoch: int
    kind: LinkKind
    files: tuple[FileRef, ...] = ()

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    @property
    def words(self) -> int:
        """Float32 words of all rows and removed keys: what a link weighs, without the files' fixed overhead."""
        return sum(file.rows * file.stride + 2 * file.removed for file in self.files)


class PartitionOffset(ManifestModel):
    """Where one partition stands: `next` is the next message to read, of which `skip` samples are applied already.

    `start` is where the training began, `end` where it will stop (None: never).
    """

    topic: str
    partition: int
    start: int
    next: int
    skip: int = 0
    end: int | None = None


class TableRef(ManifestModel):
    """An embedding table: keys are `ordinal << 48 | id`, weights `[linear weight | embedding]` if `linear`."""

    name: str
    ordinal: int
    dim: int
    linear: bool = False

    @property
    def width(self) -> int:
        """Weights of a row."""
        return self.dim + self.linear


class WeightRef(ManifestModel):
    """A dense weight's name and shape; `weights` of the dense file is all of them, flat, in this order."""

    name: str
    shape: tuple[int, ...]


class RowOptimizerRef(ManifestModel):
    """What the optimizer state of every row belongs to: the optimizer's kind, and the rate that it was learnt at."""

    kind: str
    learning_rate: float


class WarmTable(ManifestModel):
    """What a warm start did with a table: `verdict` is Taken, Initialised or Dropped; `becomes` is its new ordinal."""

    name: str
    verdict: str
    reason: str = ""
    ordinal: int = -1
    becomes: int = -1


class WarmTaken(ManifestModel):
    """The epoch of another training that this one began with, and what it took of it."""

    uri: str
    manifest: str
    epoch: int
    attempt: int
    tables: tuple[WarmTable, ...] = ()
    weights_taken: tuple[str, ...] = ()
    weights_initialised: tuple[str, ...] = ()


class Manifest(ManifestModel):
    """One committed epoch.

    `tables`, `weights`, `row_optimizer` and `interval_ms` (0: unknown) let a reader without the model name what the
    files hold and judge how fresh a commit is; epochs that were written before they existed leave them empty. `note`
    says why an epoch was committed by hand; a training's own epochs have none. `warm_start` is in every epoch of a
    training that began with another's rows. `format` is 2 if there are tombstones or counts: a release which does not
    know them refuses the epoch instead of bringing removed rows back.
    """

    format: Literal[1, 2] = 1
    epoch: int
    attempt: int
    digest: str
    spec_hash: str = ""
    created_at: str = Field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="milliseconds"))
    chain: tuple[Link, ...] = ()
    dense: FileRef | None = None
    offsets: tuple[PartitionOffset, ...] = ()
    samples_by_partition: dict[int, int] = Field(default_factory=dict)
    skipped_by_partition: dict[int, int] = Field(default_factory=dict)
    watermark_ms: int = 0
    shards: int = 0
    tables: tuple[TableRef, ...] = ()
    weights: tuple[WeightRef, ...] = ()
    row_optimizer: RowOptimizerRef | None = None
    interval_ms: int = 0
    libraries: dict[str, str] = Field(default_factory=dict)
    metrics: dict[str, float | None] = Field(default_factory=dict)
    monitors: Any = None
    published: str | None = None
    note: str = ""
    warm_start: WarmTaken | None = None
    rng: Any = None
    plan: Any = None

    @property
    def samples(self) -> int:
        """Samples applied up to this epoch."""
        return sum(self.samples_by_partition.values())

    @property
    def files(self) -> tuple[FileRef, ...]:
        """Every file that a restore reads."""
        rows = tuple(file for link in self.chain for file in link.files)
        return rows if self.dense is None else (*rows, self.dense)


def data_prefix(epoch: int, attempt: int) -> str:
    """Returns a new folder for an epoch's files; the random part keeps a retry away from what a crash left there."""
    return f"data/{epoch}-{attempt}-{secrets.token_hex(4)}"


def write_manifest(store: Store, manifest: Manifest) -> str:
    """Writes a manifest durably and returns its key; committing the key is up to the commit log.

    Raises:
        StoreError: it could not be written.
    """
    newer = any(file.removed or file.counted for link in manifest.chain for file in link.files)
    written = manifest.model_copy(update={"format": 2 if newer else 1})
    body = written.model_dump_json(by_alias=True, indent=1).encode()
    key = f"manifests/{manifest.epoch}-{manifest.attempt}-{hashlib.sha256(body).hexdigest()[:16]}.json"
    crash_here("checkpoint.before-manifest")
    store.put(key, body)
    crash_here("checkpoint.manifest-written")
    return key


def read_manifest(store: Store, key: str) -> Manifest:
    """Reads a manifest and checks it against the checksum in its name.

    Raises:
        ObjectMissing: it is not there.
        CorruptFile: it is cut, altered, or of a format that this version does not read.
        StoreError: it could not be read.
    """
    body = bytes(store.get(key))
    named = key.removesuffix(".json").rpartition("-")[2]
    found = hashlib.sha256(body).hexdigest()[:16]
    if found != named:
        raise CorruptFile(key, f"{store.uri}/{key}: its content has checksum {found}, its name says {named}")
    try:
        return Manifest.model_validate_json(body)
    except ValidationError as error:
        raise CorruptFile(key, f"{store.uri}/{key}: not a manifest that this version reads: {error}") from error
