"""The operator's part of a RecTraining's status, as a value that plans change step by step and write once."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from kuberec_api import RecTraining
from kuberec_api.meta import ConditionStatus, timestamp
from kuberec_api.training import Restart, TrainingState
from kuberec_operator import events
from kuberec_operator.plan.decision import ChildRef, Decision, Manifest, Note, Verdict, conditions

RUNNING, SUCCEEDED, FAILED = "Running", "Succeeded", "Failed"
SUSPENDED, SUSPENDING, DEGRADED = "Suspended", "Suspending", "Degraded"
_ALWAYS = {
    RUNNING: Verdict(RUNNING, False, events.NOT_FINISHED),
    SUCCEEDED: Verdict(SUCCEEDED, False, events.NOT_FINISHED),
    FAILED: Verdict(FAILED, False, events.NOT_FINISHED),
    SUSPENDED: Verdict(SUSPENDED, False, events.NOT_SUSPENDED),
    SUSPENDING: Verdict(SUSPENDING, False, events.NOT_SUSPENDED),
}
KEPT_RESTARTS = 10


@dataclass(frozen=True)
class Draft:
    """See the module. `verdicts` holds the operator's conditions by type; the driver's are not among them."""

    training: RecTraining
    now: datetime
    state: TrainingState | None
    attempt: int
    input_hash: str | None
    failures: int
    restarts: tuple[Restart, ...]
    verdicts: Mapping[str, Verdict] = field(default_factory=dict)
    notes: tuple[Note, ...] = ()

    @classmethod
    def of(cls, training: RecTraining, now: datetime) -> "Draft":
        """Starts from what the status says."""
        status = training.status
        held = {
            c.type: Verdict(c.type, c.status is ConditionStatus.TRUE, c.reason, c.message)
            for c in status.conditions
            if c.type in _ALWAYS
        }
        return cls(
            training=training,
            now=now,
            state=status.state,
            attempt=status.attempt,
            input_hash=status.input_hash,
            failures=status.failures,
            restarts=tuple(status.restarts),
            verdicts={**_ALWAYS, **held},
        )

    def to(self, state: TrainingState, **changes: Any) -> "Draft":
        """Moves to a state; other fields may change with it."""
        return replace(self, state=state, **changes)

    def say(self, kind: str, true: bool, reason: str, message: str = "") -> "Draft":
        """Sets one condition."""
        return replace(self, verdicts={**self.verdicts, kind: Verdict(kind, true, reason, message)})

    def note(self, reason: str, message: str, warning: bool = False) -> "Draft":
        """Adds an event."""
        return replace(self, notes=(*self.notes, Note(reason, message, warning)))

    def lost(self, role: str, reason: str, message: str) -> "Draft":
        """Adds an entry to the restarts."""
        entry = Restart(
            time=timestamp(self.now),
            attempt=self.attempt,
            role=role,
            reason=reason,
            message=message[:1024],
        )
        return replace(self, restarts=(*self.restarts, entry)[-KEPT_RESTARTS:])

    def decide(
        self,
        apply: tuple[Manifest, ...] = (),
        delete: tuple[ChildRef, ...] = (),
        requeue_after_s: float | None = None,
    ) -> Decision:
        """Ends the draft."""
        generation = self.training.metadata.generation
        alive = self.state in (TrainingState.STARTING, TrainingState.RUNNING, TrainingState.SUSPENDING)
        status: dict[str, Any] = {
            "conditions": conditions(self.training.status.conditions, self.verdicts.values(), generation, self.now),
            "observedGeneration": generation,
            "attempt": self.attempt,
            "failures": self.failures,
            "workers": self.training.spec.workers.replicas if alive else 0,
            "restarts": [r.model_dump(mode="json", by_alias=True) for r in self.restarts],
        }
        if self.state is not None:
            status["state"] = self.state.value
        if self.input_hash is not None:
            status["inputHash"] = self.input_hash
        return Decision(status, apply, delete, self.notes, requeue_after_s)
