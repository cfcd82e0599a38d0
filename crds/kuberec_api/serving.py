"""RecServing: replicas that follow a training's publications and rank candidates."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from featuregen.spec import Duration, SpecModel
from kuberec_api.meta import API_VERSION, Condition, KafkaTopic, LocalRef, ObjectMeta, Resources, StatusModel


class VersionPolicy(StrEnum):
    """Latest follows every publication; Pinned stays at `version`."""

    LATEST = "Latest"
    PINNED = "Pinned"


class ServedVersion(SpecModel):
    """Which publication to serve."""

    policy: VersionPolicy = VersionPolicy.LATEST
    version: Annotated[str, Field(max_length=32, pattern=r"^[0-9]+\.[0-9]+$")] | None = None


class Cache(SpecModel):
    """The replica's hot-id row cache: at most `rows` rows over all tables."""

    rows: Annotated[int, Field(ge=0, le=100_000_000)] = 1_000_000


class Timeouts(SpecModel):
    """`redis` bounds one fetch of rows (then default rows are served and counted); `request` bounds a whole request."""

    redis: Duration = "50ms"
    request: Duration = "1s"


class RequestLog(SpecModel):
    """A topic that gets a snapshot of requests, for `kuberec replay`; written beside requests, never in their way.

    `sample` is a share of users, not of requests, so that a user's history is complete or absent.
    """

    kafka: KafkaTopic
    sample: Annotated[float, Field(gt=0, le=1)] = 1.0


class RecServingSpec(SpecModel):
    """Spec of a RecServing."""

    training_ref: LocalRef
    version: ServedVersion = ServedVersion()
    replicas: Annotated[int, Field(ge=0, le=64)] = 1
    resources: Resources = Resources()
    cache: Cache = Cache()
    timeouts: Timeouts = Timeouts()
    max_candidates: Annotated[int, Field(ge=1, le=100_000)] = 5000
    request_log: RequestLog | None = None


class RecServingStatus(StatusModel):
    """Status of a RecServing; `freshness` is text such as `1.4s`: now minus the newest event time learnt."""

    conditions: list[Condition] = Field(default_factory=list)
    observed_generation: int = 0
    ready_replicas: int | None = None
    replicas: int | None = None
    version: str | None = None
    freshness: str | None = None
    url: str | None = None


class RecServing(SpecModel):
    """Ranks candidates with the newest publication of a training."""

    api_version: Literal["kuberec.dev/v1alpha1"] = API_VERSION
    kind: Literal["RecServing"] = "RecServing"
    metadata: ObjectMeta
    spec: RecServingSpec
    status: RecServingStatus = RecServingStatus()
