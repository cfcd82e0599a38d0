"""What one attempt is about: the resolved resources that the operator (or the local runner) hands to the driver."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, ValidationError

from featuregen.compiler import Plan, compile_plan
from featuregen.schema import sample_schema
from kuberec_api import RecModel, RecTraining
from kuberec_api.layout import Layout, build_layout
from kuberec_api.training import SynchronizationMode


class InvalidInputError(ValueError):
    """The input file does not hold what the driver needs."""


class TrainingInput(BaseModel):
    """The file that `python -m kuberec_runtime.train --input` reads."""

    model_config = ConfigDict(extra="forbid")

    model: RecModel
    training: RecTraining
    attempt: int

    @classmethod
    def read(cls, path: Path) -> "TrainingInput":
        """Reads and validates the file.

        Raises:
            InvalidInputError: it is not there or not valid.
        """
        try:
            return cls.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            raise InvalidInputError(f"{path}: {error}") from error


@dataclass(frozen=True)
class Job:
    """An attempt's input and what follows from it."""

    model: RecModel
    training: RecTraining
    attempt: int

    @classmethod
    def of(cls, given: TrainingInput) -> "Job":
        """Builds the job of an input."""
        return cls(given.model, given.training, given.attempt)

    def check(self) -> None:
        """Looks at what neither resource alone can say.

        Raises:
            InvalidInputError: model and training do not go together.
        """
        if self.synchronous and self.model.spec.embeddings.defaults.eviction is not None:
            raise InvalidInputError(
                "synchronization.mode Sync and embeddings.defaults.eviction do not go together: when a sweep removes a "
                "row depends on time, and Sync promises the same bits\n  remove eviction, or set mode: Async"
            )

    @cached_property
    def plan(self) -> Plan:
        """The compiled feature plan."""
        return compile_plan(self.model.spec.features)

    @cached_property
    def layout(self) -> Layout:
        """Where the plan's outputs lie in the network's input."""
        return build_layout(self.model.spec, self.plan)

    @cached_property
    def schema(self) -> pa.Schema:
        """The flat schema of a sample, labels included."""
        return sample_schema(self.plan, [task.label for task in self.model.spec.tasks])

    @property
    def synchronous(self) -> bool:
        """Whether workers go step by step together."""
        return self.training.spec.synchronization.mode is SynchronizationMode.SYNC

    @property
    def label_column(self) -> str:
        """Column of the label."""
        return f"label.{self.model.spec.tasks[0].label}"

    @property
    def namespace(self) -> str:
        """Kubernetes namespace, part of every key in Redis."""
        return self.training.metadata.namespace

    @property
    def name(self) -> str:
        """Name of the RecTraining."""
        return self.training.metadata.name
