"""RecTraining: how many processes train, how they keep pace, where epochs and publications go; its status."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, model_validator

from featuregen.spec import Duration, Name, SpecModel
from kuberec_api.meta import (
    API_VERSION,
    Condition,
    Credentials,
    LocalRef,
    ObjectMeta,
    Resources,
    SecretKeyRef,
    StatusModel,
)
from kuberec_api.source import Source


class ParameterServers(SpecModel):
    """The shards."""

    replicas: Annotated[int, Field(ge=1, le=64)] = 1
    resources: Resources = Resources()


class Workers(SpecModel):
    """The workers; `batch_size` is samples per step of one worker."""

    replicas: Annotated[int, Field(ge=1, le=256)] = 1
    batch_size: Annotated[int, Field(ge=1, le=65536)] = 2048
    resources: Resources = Resources()


class RowType(StrEnum):
    """Data type of rows on their way: published to the tier, or between workers and shards."""

    FLOAT32 = "Float32"
    BFLOAT16 = "BFloat16"
    FLOAT16 = "Float16"


class Transport(StrEnum):
    """`Auto`: through shared memory between processes of one pod or machine, through TCP elsewhere. `Socket`: TCP."""

    AUTO = "Auto"
    SOCKET = "Socket"


class Wire(SpecModel):
    """How rows and gradients travel between workers and shards.

    `dtype`: two bytes a value halve the traffic and round every pulled row and pushed gradient; tables stay Float32.
    `checksums`: a CRC-32 on every message; a damaged one is sent again.
    """

    dtype: RowType = RowType.FLOAT32
    transport: Transport = Transport.AUTO
    checksums: bool = False


class SynchronizationMode(StrEnum):
    """How workers keep pace: each by itself, or step by step, reproducible bit for bit on a source that ends."""

    ASYNC = "Async"
    SYNC = "Sync"


class Synchronization(SpecModel):
    """How workers keep pace with each other.

    `Async`: a worker waits for none; `maxStaleness` bounds how far it runs ahead of its unacknowledged pushes. `Sync`:
    every worker takes part in every step, shards apply a step's pushes in the order of the workers, and the next step
    sees all of it; `maxStaleness` says nothing then.
    """

    mode: SynchronizationMode = SynchronizationMode.ASYNC
    max_staleness: Annotated[int, Field(ge=1, le=16)] = 2
    wire: Wire = Wire()


class DenseOptimizerKind(StrEnum):
    """Optimizers of dense weights."""

    ADAM = "Adam"
    SGD = "SGD"


class DenseOptimizer(SpecModel):
    """Optimizer of dense weights."""

    kind: DenseOptimizerKind = DenseOptimizerKind.ADAM
    learning_rate: Annotated[float, Field(gt=0)] = 0.001


class Checkpoint(SpecModel):
    """Where epochs are committed (`s3://`, `gs://`, `az://` or `file:///`), how often, and how many are kept."""

    uri: Annotated[str, Field(min_length=1, max_length=1024)]
    interval: Duration = "60s"
    keep: Annotated[int, Field(ge=1, le=100)] = 5
    credentials: Credentials | None = None


class WarmStart(SpecModel):
    """Another training's checkpoint: what fits this model by name is taken before the first sample; offsets are not.

    `trainingRef` is a training of the same namespace, whose `checkpoint.uri` is read with its credentials if it has
    some; `uri` is any checkpoint, read with `checkpoint.credentials`. Exactly one of them. A table is taken if its dim
    and its ids mean the same, a dense weight if its name and shape do. Read once, at the first start; a training that
    has committed an epoch with rows goes on from its own.
    """

    uri: Annotated[str, Field(min_length=1, max_length=1024)] | None = None
    training_ref: LocalRef | None = None

    @model_validator(mode="after")
    def _one_place(self) -> "WarmStart":
        if (self.uri is None) == (self.training_ref is None):
            raise ValueError("set exactly one of uri, trainingRef")
        return self


class RedisTier(SpecModel):
    """A Redis, Valkey or Redis-compatible server; the password comes from a Secret, never from the URL."""

    url: Annotated[str, Field(min_length=1, max_length=1024, pattern=r"^rediss?://[^@]+$")]
    password_from: SecretKeyRef | None = None


class Publish(SpecModel):
    """Publication of learnt rows and dense weights."""

    redis: RedisTier
    interval: Duration = "5s"
    dtype: RowType = RowType.BFLOAT16
    keep: Annotated[int, Field(ge=1, le=100)] = 3


class MonitorMetric(StrEnum):
    """Metrics a monitor can watch."""

    POSITIVE_RATIO = "PositiveRatio"
    AUC = "AUC"


class Range(SpecModel):
    """A closed range; at least one end."""

    min: float | None = None
    max: float | None = None


class Monitor(SpecModel):
    """A live check over the last `window` samples; out of range holds publications back."""

    name: Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[a-z]([-a-z0-9]*[a-z0-9])?$")]
    metric: MonitorMetric
    task: Name | None = None
    window: Annotated[int, Field(ge=100, le=10_000_000)] = 50_000
    range: Range


class FailurePolicy(SpecModel):
    """How many attempts may be lost before the training is Failed."""

    backoff_limit: Annotated[int, Field(ge=0, le=100)] = 6


class RecTrainingSpec(SpecModel):
    """Spec of a RecTraining."""

    model_ref: LocalRef
    source: Source
    parameter_servers: ParameterServers = ParameterServers()
    workers: Workers = Workers()
    synchronization: Synchronization = Synchronization()
    optimizer: DenseOptimizer = DenseOptimizer()
    checkpoint: Checkpoint
    warm_start: WarmStart | None = None
    publish: Publish | None = None
    monitors: Annotated[list[Monitor], Field(max_length=32)] = Field(default_factory=list)
    failure_policy: FailurePolicy = FailurePolicy()
    suspend: bool = False


class TrainingState(StrEnum):
    """One word for `kubectl get`."""

    PENDING = "Pending"
    STARTING = "Starting"
    RUNNING = "Running"
    RESTARTING = "Restarting"
    SUSPENDING = "Suspending"
    SUSPENDED = "Suspended"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


class Progress(StatusModel):
    """Live figures, written by the driver. `samples` counts applied samples; `auc` is progressive."""

    step: int = 0
    samples: int = 0
    samples_per_second: float = 0.0
    lag: int | None = None
    loss: float | None = None
    auc: float | None = None
    skipped_records: int = 0
    updated_at: str | None = None


class Offset(StatusModel):
    """Next offset to read of one partition, as committed."""

    worker: int = 0
    topic: str
    partition: int
    offset: int


class CheckpointStatus(StatusModel):
    """The last committed epoch. `samples` counts samples applied up to it since the training first started."""

    epoch: int
    attempt: int
    uri: str
    committed_at: str
    samples: int = 0
    offsets: list[Offset] = Field(default_factory=list)


class PublicationStatus(StatusModel):
    """The last publication: `version` is `<attempt>.<epoch>`."""

    version: str
    rows: int = 0
    published_at: str


class HeldMemory(StatusModel):
    """Rows and what they take: bytes of rows with keys and marks, bytes of the index.

    `ratio` is bytes held for each byte of a row's values and key.
    """

    rows: int
    row_bytes: int
    index_bytes: int
    bytes_per_row: float | None = None
    ratio: float | None = None


class WidthMemory(HeldMemory):
    """All rows of one width: an embedding's dim, and one more if its table has a linear weight."""

    width: int


class ShardMemory(HeldMemory):
    """All rows of one parameter server."""

    shard: int


class MemoryStatus(HeldMemory):
    """What the embedding tables take, over all, by row width and by parameter server; `held` is the sum in Mi."""

    held: str
    widths: list[WidthMemory] = Field(default_factory=list)
    shards: list[ShardMemory] = Field(default_factory=list)


class MonitorState(StrEnum):
    """Verdict of a monitor; `Warming` until its window is full."""

    WARMING = "Warming"
    IN_RANGE = "InRange"
    OUT_OF_RANGE = "OutOfRange"


class MonitorStatus(StatusModel):
    """Value and verdict of one monitor."""

    name: str
    value: float | None = None
    state: MonitorState = MonitorState.WARMING


class Outcome(StatusModel):
    """How an attempt ended, written by the driver right before it exits: the operator's source for reason and message.

    `newest_attempt` is set when the attempt found the commit log owned by a newer one: go on above it.
    """

    attempt: int
    reason: str
    message: str = ""
    permanent: bool = False
    exit_code: int = 0
    newest_attempt: int | None = None


class Restart(StatusModel):
    """One lost attempt."""

    time: str
    attempt: int
    role: str = "driver"
    reason: str
    message: str = ""


class RecTrainingStatus(StatusModel):
    """Status of a RecTraining.

    The operator owns conditions, observedGeneration, state, attempt, inputHash, failures, workers, restarts; the driver
    owns progress, memory, checkpoint, publication, monitors, outcome and its own conditions (`PublishingPaused`,
    `Degraded`). `inputHash` names the model and training spec that the attempt runs; `failures` counts attempts lost in
    a row, that is, without a committed epoch in between: backoffLimit and the backoff look at it.
    """

    conditions: list[Condition] = Field(default_factory=list)
    observed_generation: int = 0
    state: TrainingState | None = None
    attempt: int = 0
    input_hash: str | None = None
    failures: int = 0
    workers: int | None = None
    progress: Progress | None = None
    memory: MemoryStatus | None = None
    checkpoint: CheckpointStatus | None = None
    publication: PublicationStatus | None = None
    monitors: list[MonitorStatus] = Field(default_factory=list)
    outcome: Outcome | None = None
    restarts: list[Restart] = Field(default_factory=list)


class RecTraining(SpecModel):
    """One training of a RecModel from a source of samples."""

    api_version: Literal["kuberec.dev/v1alpha1"] = API_VERSION
    kind: Literal["RecTraining"] = "RecTraining"
    metadata: ObjectMeta
    spec: RecTrainingSpec
    status: RecTrainingStatus = RecTrainingStatus()
