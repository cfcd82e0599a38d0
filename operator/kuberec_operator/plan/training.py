"""Decides what a RecTraining needs next. Pure: no clock, no I/O, every case returns a Decision.

Invariant: an attempt's children are created only by a plan that read its number back from status, so a crash between
"write status" and "create children" repeats work but never forks it. The number is the attempt's fencing token.

Counting: `failures` counts attempts lost in a row. An attempt that committed an epoch made progress, so its loss
counts as the first again; a training that runs for months may lose its head more than `backoffLimit` times.
"""

from datetime import datetime

from kuberec_api import RecTraining
from kuberec_api.training import Outcome, TrainingState
from kuberec_operator import events
from kuberec_operator.plan import warmstart
from kuberec_operator.plan.decision import ChildRef, Decision, Manifest, missing, parse_time
from kuberec_operator.plan.draft import DEGRADED, FAILED, RUNNING, SUCCEEDED, SUSPENDED, SUSPENDING, Draft
from kuberec_operator.plan.input import input_hash, unmet_reference
from kuberec_operator.plan.observed import JobView, TrainingWorld
from kuberec_operator.render.attempt import render_attempt
from kuberec_operator.settings import RuntimeSettings

REFERENCE_RETRY_S = 30.0
POLL_S = 5.0
# Pods of a lost attempt may hang (a dead node); the fencing token makes an overlap harmless, so waiting has an end.
GRACE_S = 60.0
SUSPEND_LIMIT_S = 180.0
BACKOFF_FIRST_S, BACKOFF_MOST_S = 10.0, 300.0

_ALIVE = (TrainingState.STARTING, TrainingState.RUNNING, TrainingState.SUSPENDING)
_OVER = (TrainingState.SUCCEEDED, TrainingState.FAILED)


def plan(training: RecTraining, world: TrainingWorld, now: datetime, runtime: RuntimeSettings) -> Decision:
    """Returns what to do next; see the module."""
    if training.metadata.deletion_timestamp:
        return Decision()  # owner references take everything along; the driver sees the deletion and stops
    draft, state = Draft.of(training, now), training.status.state
    if not world.kuberay and state not in _OVER:
        message = "the API server knows no RayJob (ray.io/v1): install KubeRay, https://docs.ray.io/en/latest/cluster/kubernetes"
        draft = draft.to(state or TrainingState.PENDING).say(DEGRADED, True, events.KUBERAY_MISSING, message)
        if not any(c.reason == events.KUBERAY_MISSING for c in training.status.conditions):
            draft = draft.note(events.KUBERAY_MISSING, message, warning=True)
        return draft.decide(requeue_after_s=REFERENCE_RETRY_S)
    if state in _OVER:
        return _over(draft, world)
    if training.spec.suspend:
        return _suspend(draft, world)
    if state is TrainingState.RESTARTING:
        return _restart(draft, world)
    if state in _ALIVE:
        return _alive(draft, world, runtime)
    if problem := unmet_reference(training, world):
        waiting = draft.to(TrainingState.PENDING).say(RUNNING, False, problem.reason, problem.message)
        if draft.verdicts[RUNNING] != waiting.verdicts[RUNNING] and not problem.soon:
            waiting = waiting.note(problem.reason, problem.message, warning=True)
        return waiting.decide(requeue_after_s=REFERENCE_RETRY_S)
    return _announce(draft, world)


def backoff_s(failures: int) -> float:
    """Returns seconds to wait after the n-th loss in a row: none, then 10 s doubling up to 300 s."""
    return 0.0 if failures <= 1 else min(BACKOFF_FIRST_S * 2.0 ** (failures - 2), BACKOFF_MOST_S)


def _announce(draft: Draft, world: TrainingWorld) -> Decision:
    """Writes the next attempt's number, and nothing else."""
    status = draft.training.status
    fenced_by = (status.outcome.newest_attempt or 0) if status.outcome else 0
    number = max(status.attempt, fenced_by) + 1
    started = (
        draft.to(TrainingState.STARTING, attempt=number, input_hash=input_hash(draft.training, world.model))
        .say(RUNNING, False, events.ATTEMPT_ANNOUNCED, f"attempt {number}")
        .say(SUCCEEDED, False, events.NOT_FINISHED)
        .say(FAILED, False, events.NOT_FINISHED)
        .say(SUSPENDED, False, events.NOT_SUSPENDED)
        .say(SUSPENDING, False, events.NOT_SUSPENDED)
        .note(events.ATTEMPT_ANNOUNCED, f"attempt {number} starts")
    )
    return started.decide(requeue_after_s=0.0)


def _alive(draft: Draft, world: TrainingWorld, runtime: RuntimeSettings) -> Decision:
    training, job = draft.training, world.job
    if draft.state is TrainingState.SUSPENDING:  # resumed before the driver had stopped; its outcome will tell
        draft = draft.to(TrainingState.RUNNING).say(SUSPENDING, False, events.NOT_SUSPENDED)
    outcome = _outcome(training)
    if outcome is not None:
        return _ended(draft, world, outcome)
    if unmet_reference(training, world) is None and input_hash(training, world.model) != draft.input_hash:
        changed = draft.lost("spec", events.SPEC_CHANGED, "the model's or the training's spec changed")
        changed = changed.note(events.SPEC_CHANGED, f"attempt {draft.attempt} makes place for the new spec")
        return _leave(changed, world, events.SPEC_CHANGED, "the spec changed")
    if job is None:
        if draft.verdicts[RUNNING].reason == events.ATTEMPT_ANNOUNCED:
            return _create(draft, world, runtime)
        return _lost(draft, world, "rayjob", events.RAYJOB_DELETED, "somebody deleted the RayJob")
    if job.deleting:
        return _lost(draft, world, "rayjob", events.RAYJOB_DELETED, "somebody deletes the RayJob")
    if job.deployment_status == "ValidationFailed":
        return _fail(draft, world, events.RAYJOB_INVALID, job.message)
    if job.job_status == "SUCCEEDED":
        return _succeed(draft, "the driver ended with 0")
    if job.job_status in ("FAILED", "STOPPED") or job.deployment_status == "Failed":
        return _lost(draft, world, "driver", events.DRIVER_LOST, job.message or f"the Ray job is {job.job_status}")
    if world.head is not None and world.head.lost:
        why = world.head.message or ("it is being deleted" if world.head.deleting else world.head.phase)
        return _lost(draft, world, "head", events.HEAD_LOST, f"head pod {world.head.name}: {why}")
    if world.head is None and (job.job_status == "RUNNING" or draft.verdicts[RUNNING].true):
        return _lost(draft, world, "head", events.HEAD_LOST, "the head pod is gone")
    return _mirror(draft, world, job, runtime)


def _create(draft: Draft, world: TrainingWorld, runtime: RuntimeSettings) -> Decision:
    if problem := unmet_reference(draft.training, world):
        waiting = draft.say(RUNNING, False, events.ATTEMPT_ANNOUNCED, problem.message)
        return waiting.decide(requeue_after_s=REFERENCE_RETRY_S)
    # An input that exists is what this attempt runs, whatever its sources say by now; it is immutable.
    apply = (m for m in _children(draft, world, runtime) if m["kind"] != "ConfigMap" or not _exists(m, world))
    return draft.decide(apply=tuple(apply), requeue_after_s=POLL_S)


def _exists(manifest: Manifest, world: TrainingWorld) -> bool:
    return ChildRef(manifest["kind"], manifest["metadata"]["name"]) in world.children


def _children(draft: Draft, world: TrainingWorld, runtime: RuntimeSettings) -> tuple[Manifest, ...]:
    assert world.model is not None  # unmet_reference has seen to it
    warm = warmstart.source(draft.training, world.warm)
    wanted = render_attempt(world.model, draft.training, draft.attempt, draft.input_hash or "", runtime, warm)
    return missing(wanted, world.children)


def _mirror(draft: Draft, world: TrainingWorld, job: JobView, runtime: RuntimeSettings) -> Decision:
    mended: tuple[Manifest, ...] = ()
    if world.model is not None and input_hash(draft.training, world.model) == draft.input_hash:
        # What an attempt runs never changes, and an upgraded operator must not touch it; its rights are restored.
        mended = tuple(m for m in _children(draft, world, runtime) if m["kind"] not in ("RayJob", "ConfigMap"))
    if job.job_status == "RUNNING":
        was = draft.verdicts[RUNNING].true
        draft = draft.to(TrainingState.RUNNING).say(RUNNING, True, events.ATTEMPT_RUNNING, f"attempt {draft.attempt}")
        if not was:
            draft = draft.note(events.ATTEMPT_RUNNING, f"attempt {draft.attempt} runs")
        return draft.decide(apply=mended)
    message = world.waiting or job.message or f"attempt {draft.attempt}: {job.deployment_status or 'new'}"
    draft = draft.to(TrainingState.STARTING).say(RUNNING, False, events.ATTEMPT_STARTING, message)
    return draft.decide(apply=mended, requeue_after_s=POLL_S)


def _ended(draft: Draft, world: TrainingWorld, outcome: Outcome) -> Decision:
    """The driver said how it ended, right before it exited."""
    if outcome.exit_code == 0 and outcome.reason != events.SUSPENDED:
        return _succeed(draft, outcome.message or "every record up to the end was applied")
    if outcome.exit_code == 0:
        resumed = draft.lost("driver", events.SUSPENDED, "resumed while it was suspending")
        return _leave(resumed, world, events.NOT_SUSPENDED, "resumed")
    if outcome.permanent and outcome.newest_attempt is None:
        return _fail(draft, world, outcome.reason, outcome.message)
    return _lost(draft, world, "driver", outcome.reason, outcome.message)


def _succeed(draft: Draft, message: str) -> Decision:
    done = (
        draft.to(TrainingState.SUCCEEDED, failures=0)
        .say(RUNNING, False, events.COMPLETED)
        .say(SUCCEEDED, True, events.COMPLETED, message)
        .note(events.COMPLETED, message)
    )
    return done.decide()


def _fail(draft: Draft, world: TrainingWorld, reason: str, message: str) -> Decision:
    failed = (
        draft.to(TrainingState.FAILED)
        .say(RUNNING, False, reason, message)
        .say(FAILED, True, reason, message)
        .say(SUSPENDING, False, events.NOT_SUSPENDED)
        .note(reason, message, warning=True)
    )
    return failed.decide(delete=_remains(world))


def _lost(draft: Draft, world: TrainingWorld, role: str, reason: str, message: str) -> Decision:
    status = draft.training.status
    progressed = status.checkpoint is not None and status.checkpoint.attempt == status.attempt
    failures = 1 if progressed else status.failures + 1
    draft = draft.lost(role, reason, message).to(draft.state or TrainingState.RESTARTING, failures=failures)
    limit = draft.training.spec.failure_policy.backoff_limit
    if failures > limit:
        told = f"{failures} attempts in a row were lost (backoffLimit {limit}); the last one: {reason}: {message}"
        return _fail(draft, world, events.BACKOFF_LIMIT_EXCEEDED, told)
    draft = draft.note(reason, f"attempt {draft.attempt} is lost: {message}", warning=True)
    return _leave(draft, world, reason, message)


def _leave(draft: Draft, world: TrainingWorld, reason: str, message: str) -> Decision:
    left = draft.to(TrainingState.RESTARTING).say(RUNNING, False, reason, message)
    return left.decide(delete=_remains(world), requeue_after_s=1.0)


def _restart(draft: Draft, world: TrainingWorld) -> Decision:
    last = draft.restarts[-1] if draft.restarts else None
    since = (draft.now - parse_time(last.time)).total_seconds() if last else GRACE_S
    remains = _remains(world)
    if (remains or world.jobs or world.pods) and since < GRACE_S:
        return draft.decide(delete=remains, requeue_after_s=2.0)
    if problem := unmet_reference(draft.training, world):
        waiting = draft.say(RUNNING, False, problem.reason, problem.message)
        return waiting.decide(delete=remains, requeue_after_s=REFERENCE_RETRY_S)
    if (wait := backoff_s(draft.failures) - since) > 0:
        return draft.decide(requeue_after_s=wait)
    return _announce(draft, world)


def _suspend(draft: Draft, world: TrainingWorld) -> Decision:
    job, outcome = world.job, _outcome(draft.training)
    if draft.state in _ALIVE and outcome is not None and (outcome.permanent or outcome.reason == events.COMPLETED):
        return _ended(draft, world, outcome)
    remains = _remains(world)
    if not remains and not world.jobs and not world.pods:
        told = "" if draft.verdicts[SUSPENDED].true else "resources are free; resuming goes on from the last epoch"
        done = (
            draft.to(TrainingState.SUSPENDED)
            .say(RUNNING, False, events.SUSPENDED)
            .say(SUSPENDING, False, events.SUSPENDED)
            .say(SUSPENDED, True, events.SUSPENDED)
        )
        return (done.note(events.SUSPENDED, told) if told else done).decide()
    asked = draft.verdicts[SUSPENDING].true
    since = _since(draft, SUSPENDING) if asked else 0.0
    draft = draft.to(TrainingState.SUSPENDING).say(SUSPENDING, True, events.SUSPEND_REQUESTED, "the last cut is taken")
    if not asked:
        draft = draft.note(events.SUSPEND_REQUESTED, f"attempt {draft.attempt} takes its last cut")
    working = job is not None and not job.deleting and job.job_status == "RUNNING" and outcome is None
    if working and (world.head is None or not world.head.lost):
        if since < SUSPEND_LIMIT_S:
            return draft.decide(requeue_after_s=POLL_S)
        draft = draft.note(events.SUSPEND_FORCED, f"no last cut within {SUSPEND_LIMIT_S:.0f} s", warning=True)
    return draft.say(RUNNING, False, events.SUSPEND_REQUESTED).decide(delete=remains, requeue_after_s=2.0)


def _over(draft: Draft, world: TrainingWorld) -> Decision:
    """Succeeded or Failed: rests until what it ran has changed."""
    training = draft.training
    same = world.model is None or input_hash(training, world.model) == draft.input_hash
    if training.spec.suspend or same or unmet_reference(training, world):
        return draft.decide()
    remains = _remains(world)
    again = draft.to(TrainingState.RESTARTING, failures=0).lost("spec", events.SPEC_CHANGED, "the spec changed")
    again = again.say(FAILED, False, events.SPEC_CHANGED).say(SUCCEEDED, False, events.SPEC_CHANGED)
    return again.note(events.SPEC_CHANGED, "a new attempt with the new spec").decide(
        delete=remains, requeue_after_s=0.0
    )


def _remains(world: TrainingWorld) -> tuple[ChildRef, ...]:
    """The RayJobs and ConfigMaps, of every attempt so far, that nobody deletes yet; ServiceAccount and Role stay."""
    jobs = tuple(ChildRef("RayJob", job.name) for job in world.jobs if not job.deleting)
    return (*jobs, *(ref for ref in world.children if ref.kind == "ConfigMap"))


def _outcome(training: RecTraining) -> Outcome | None:
    outcome = training.status.outcome
    return outcome if outcome is not None and outcome.attempt == training.status.attempt else None


def _since(draft: Draft, kind: str) -> float:
    condition = next((c for c in draft.training.status.conditions if c.type == kind), None)
    return (draft.now - parse_time(condition.last_transition_time)).total_seconds() if condition else 0.0
