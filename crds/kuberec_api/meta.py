"""What all three kinds share: group, metadata, conditions, references. Times are RFC 3339 strings in UTC."""

import re
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from featuregen.spec import SpecModel

GROUP = "kuberec.dev"
VERSION = "v1alpha1"
API_VERSION: Literal["kuberec.dev/v1alpha1"] = "kuberec.dev/v1alpha1"

ResourceName = Annotated[str, Field(min_length=1, max_length=40, pattern=r"^[a-z]([-a-z0-9]*[a-z0-9])?$")]
Quantity = Annotated[str, Field(max_length=32, pattern=r"^[0-9]+(\.[0-9]+)?(m|Ki|Mi|Gi|Ti|k|M|G|T)?$")]

_SUFFIX = re.compile(r"[a-zA-Z]*$")
_FACTOR = {
    "": 1.0, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12,
    "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40,
}  # fmt: skip


def bytes_of(quantity: str) -> int:
    """Returns a quantity as a whole number: `64Gi` is 68719476736."""
    suffix = quantity[_SUFFIX.search(quantity).start() :]  # type: ignore[union-attr]
    return int(float(quantity.removesuffix(suffix)) * _FACTOR[suffix])


class StatusModel(BaseModel):
    """Base of status types: camelCase aliases; unknown fields are ignored, since a newer writer may have added some."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore")


class ObjectMeta(BaseModel):
    """The part of Kubernetes' ObjectMeta that KubeRec reads."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore")

    name: ResourceName
    namespace: str = "default"
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None


class LocalRef(SpecModel):
    """A reference to a resource of the same namespace."""

    name: ResourceName


class SecretRef(SpecModel):
    """A reference to a Secret of the same namespace, by its name; its values never appear in spec or status."""

    name: Annotated[str, Field(min_length=1, max_length=253)]


class SecretKeyRef(SecretRef):
    """One key of a Secret."""

    key: Annotated[str, Field(min_length=1, max_length=253)]


class Credentials(SpecModel):
    """Object-store credentials: a Secret with AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and optionally AWS_ENDPOINT."""

    secret_ref: SecretRef


class KafkaTopic(SpecModel):
    """A topic and the brokers (`host:port,...`) that know it."""

    bootstrap_servers: Annotated[str, Field(min_length=1, max_length=1024)]
    topic: Annotated[str, Field(min_length=1, max_length=249, pattern=r"^[a-zA-Z0-9._-]+$")]


class ConditionStatus(StrEnum):
    """metav1.ConditionStatus."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Condition(StatusModel):
    """metav1.Condition."""

    type: Annotated[str, Field(max_length=316)]
    status: ConditionStatus
    reason: Annotated[str, Field(max_length=1024)]
    message: Annotated[str, Field(max_length=32768)] = ""
    last_transition_time: str
    observed_generation: int = 0


class Resources(SpecModel):
    """Compute resources of one process: requests; memory and GPUs are limits too, idle CPU may be used."""

    cpu: Quantity = "1"
    memory: Quantity = "2Gi"
    gpus: Annotated[int, Field(ge=0, le=16)] = 0


def timestamp(moment: datetime) -> str:
    """Returns RFC 3339 in UTC with whole seconds, as Kubernetes writes it."""
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
