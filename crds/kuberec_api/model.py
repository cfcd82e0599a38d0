"""RecModel: features, embeddings, network and tasks; everything that must be equal in training and serving."""

from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from featuregen.spec import Duration, FeatureSpec, Name, SpecModel
from kuberec_api.meta import API_VERSION, Condition, ObjectMeta, Quantity, StatusModel, bytes_of

OptimizerFloat = Annotated[float, Field(gt=0)]


class SparseOptimizerKind(StrEnum):
    """Optimizers of embedding rows; each keeps its state inside the row."""

    ROWWISE_ADAGRAD = "RowwiseAdagrad"
    ADAGRAD = "Adagrad"
    ADAM = "Adam"
    FTRL = "FTRL"
    SGD = "SGD"


DecayRate = Annotated[float, Field(ge=0, lt=1)]
Penalty = Annotated[float, Field(ge=0, le=1e6)]


class SparseOptimizer(SpecModel):
    """Optimizer of embedding rows. docs/training.md has the formulas."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    kind: SparseOptimizerKind = SparseOptimizerKind.ROWWISE_ADAGRAD
    learning_rate: OptimizerFloat = 0.05
    """Adam wants a smaller one, such as 0.001."""
    epsilon: OptimizerFloat = 1e-8
    """Added to the root that divides; FTRL's beta. SGD has none and leaves it alone."""
    beta1: DecayRate | None = None
    """Adam: decay of the first moment, by default 0.9."""
    beta2: DecayRate | None = None
    """Adam: decay of the second moment, by default 0.999."""
    l1: Penalty | None = None
    """FTRL: L1 strength, by default 0; weights that it outweighs are exactly 0."""
    l2: Penalty | None = None
    """FTRL: L2 strength, by default 0."""

    @model_validator(mode="after")
    def _has_only_its_own(self) -> Self:
        """Refuses a field of another kind: it would be left alone without a word."""
        for field, kind in OPTIMIZER_FIELDS.items():
            if getattr(self, field) is not None and self.kind is not kind:
                raise ValueError(f"{self.kind.value} has no {field}: remove it, or set kind {kind.value}")
        return self

    @property
    def betas(self) -> tuple[float, float]:
        """Adam's decay rates (beta1, beta2)."""
        return 0.9 if self.beta1 is None else self.beta1, 0.999 if self.beta2 is None else self.beta2

    @property
    def penalties(self) -> tuple[float, float]:
        """FTRL's regularization strengths (l1, l2)."""
        return self.l1 or 0.0, self.l2 or 0.0


OPTIMIZER_FIELDS = {
    "beta1": SparseOptimizerKind.ADAM,
    "beta2": SparseOptimizerKind.ADAM,
    "l1": SparseOptimizerKind.FTRL,
    "l2": SparseOptimizerKind.FTRL,
}
"""The kind that a field belongs to."""


class InitializerKind(StrEnum):
    """Initial values of a row: a pure function of (seed, table, id)."""

    NORMAL = "Normal"
    UNIFORM = "Uniform"
    ZEROS = "Zeros"


class Initializer(SpecModel):
    """Initial values of a new row; `stddev` is the scale (half width for Uniform)."""

    kind: InitializerKind = InitializerKind.NORMAL
    stddev: Annotated[float, Field(ge=0)] = 0.01


LEAST_BYTES = "1Mi"
"""The smallest `maxBytes`: below it a shard's index alone would be over its share."""


class Eviction(SpecModel):
    """Which rows are given up. Time is event time, as learnt; docs/training.md says more."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    idle: Duration | None = None
    """Rows that were not pushed for longer than this go."""
    max_rows: Annotated[int, Field(ge=1000)] | None = None
    """Rows that all parameter servers may hold together; those that are worth least go."""
    max_bytes: Quantity | None = None
    """Bytes of rows, keys and index that all parameter servers may hold together, such as 64Gi; at least 1Mi."""
    half_life: Duration = "24h"
    """A row is worth the number of its pushes, halved for each such time since the last one."""

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        """Refuses an eviction that evicts nothing."""
        if self.idle is None and self.max_rows is None and self.max_bytes is None:
            raise ValueError("eviction needs idle, maxRows or maxBytes")
        return self

    @model_validator(mode="after")
    def _leaves_room(self) -> Self:
        """Refuses a budget of bytes, such as 0, in which no row could stay."""
        if self.max_bytes is not None and bytes_of(self.max_bytes) < bytes_of(LEAST_BYTES):
            raise ValueError(f"maxBytes {self.max_bytes}: give at least {LEAST_BYTES}, or leave it away for no limit")
        return self


class Admission(SpecModel):
    """When a key gets a row; docs/training.md says more."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    min_count: Annotated[int, Field(ge=2, le=255)]
    """The push that names a key so often gives it its row; before, it has its first value and learns nothing."""


class EmbeddingDefaults(SpecModel):
    """What every embedding table has unless its own entry says otherwise."""

    dim: Annotated[int, Field(ge=1, le=512)] = 16
    optimizer: SparseOptimizer = SparseOptimizer()
    initializer: Initializer = Initializer()
    eviction: Eviction | None = None
    admission: Admission | None = None


class EmbeddingTable(SpecModel):
    """Overrides for one table; tables are named after the feature that owns the encoder."""

    name: Name
    dim: Annotated[int, Field(ge=1, le=512)]


class Embeddings(SpecModel):
    """Embedding tables of the model."""

    defaults: EmbeddingDefaults = EmbeddingDefaults()
    tables: Annotated[list[EmbeddingTable], Field(max_length=1024)] = Field(default_factory=list)


class NetworkKind(StrEnum):
    """Networks that this release implements."""

    DEEP_FM = "DeepFM"
    WIDE_AND_DEEP = "WideAndDeep"
    MULTI_TOWER = "MultiTower"


class NetworkParams(SpecModel):
    """Sizes of the network."""

    hidden_units: Annotated[list[Annotated[int, Field(ge=1, le=8192)]], Field(min_length=1, max_length=16)] = Field(
        default_factory=lambda: [128, 64]
    )
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0


class Network(SpecModel):
    """The dense part. DeepFM and WideAndDeep read groups `wide` and `deep`; MultiTower builds a tower per group."""

    kind: NetworkKind
    groups: Annotated[
        dict[Name, Annotated[list[Name], Field(min_length=1, max_length=1024)]], Field(min_length=1, max_length=32)
    ]
    params: NetworkParams = NetworkParams()


class LossKind(StrEnum):
    """Losses that this release implements."""

    BINARY_CROSSENTROPY = "BinaryCrossEntropy"


class Task(SpecModel):
    """One target: its label field in the sample and its loss."""

    name: Name
    label: Name
    loss: LossKind = LossKind.BINARY_CROSSENTROPY


class RecModelSpec(SpecModel):
    """Spec of a RecModel."""

    features: FeatureSpec
    embeddings: Embeddings = Embeddings()
    network: Network
    tasks: Annotated[list[Task], Field(min_length=1, max_length=1)]
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0


class RecModelStatus(StatusModel):
    """Status of a RecModel; `digest` is the beginning of the plan digest."""

    conditions: list[Condition] = Field(default_factory=list)
    observed_generation: int = 0
    digest: str | None = None
    features: int | None = None
    tables: int | None = None
    parameters: int | None = None


class RecModel(SpecModel):
    """A recommendation model: one definition for training and serving."""

    api_version: Literal["kuberec.dev/v1alpha1"] = API_VERSION
    kind: Literal["RecModel"] = "RecModel"
    metadata: ObjectMeta
    spec: RecModelSpec
    status: RecModelStatus = RecModelStatus()
