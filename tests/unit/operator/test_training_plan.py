"""The decision table of a RecTraining: each test is one row."""

from dataclasses import replace
from typing import Any

import pytest

from kuberec_api import RecTraining
from kuberec_operator.plan.decision import ChildRef, Decision
from kuberec_operator.plan.input import input_hash
from kuberec_operator.plan.observed import HeadView, JobView, TrainingWorld
from kuberec_operator.plan.training import GRACE_S, SUSPEND_LIMIT_S, backoff_s, plan
from tests.unit.operator.resources import (
    NOW,
    RUNTIME,
    after,
    condition,
    example_model,
    example_training,
    later,
    respec,
)

MODEL = example_model()
JOB = JobView("feed-a1", 1, job_status="RUNNING", deployment_status="Running")
HEAD = HeadView("feed-a1-head", phase="Running")
IDLE = TrainingWorld(model=MODEL)
UP = TrainingWorld(model=MODEL, job=JOB, head=HEAD, jobs=(JOB,), pods=5)


def decide(training: RecTraining, world: TrainingWorld = IDLE, seconds: float = 0.0) -> Decision:
    return plan(training, world, later(seconds), RUNTIME)


def announced() -> RecTraining:
    training = example_training()
    return after(training, decide(training))


def running(**driver: Any) -> RecTraining:
    training = announced()
    return after(training, decide(training, UP), **driver)


def outcome(reason: str, code: int, permanent: bool = False, **more: Any) -> dict[str, Any]:
    told = {"attempt": 1, "reason": reason, "message": "said the driver", "permanent": permanent, "exitCode": code}
    return {"outcome": {**told, **more}}


def test_a_new_training_writes_its_attempt_number_and_creates_nothing() -> None:
    decision = decide(example_training())
    assert decision.status is not None
    assert (decision.status["attempt"], decision.status["state"], decision.apply) == (1, "Starting", ())


def test_children_are_created_once_the_number_was_read_back() -> None:
    decision = decide(announced())
    kinds = [m["kind"] for m in decision.apply]
    assert kinds == ["ServiceAccount", "Role", "RoleBinding", "ConfigMap", "RayJob"]
    assert {m["metadata"]["name"] for m in decision.apply} == {"feed-runtime", "feed-a1"}


def test_a_crash_between_two_children_creates_only_the_missing_ones() -> None:
    done = decide(announced()).apply[:3]
    held = {ChildRef(m["kind"], m["metadata"]["name"]): m["metadata"]["annotations"]["kuberec.dev/hash"] for m in done}
    decision = decide(announced(), replace(IDLE, children=held))
    assert [m["kind"] for m in decision.apply] == ["ConfigMap", "RayJob"]


def test_a_running_job_makes_the_training_running() -> None:
    decision = decide(announced(), UP)
    assert decision.status is not None
    assert decision.status["state"] == "Running"
    assert condition(decision, "Running")["status"] == "True"
    assert decision.status["workers"] == 2


def test_a_job_that_waits_says_what_for() -> None:
    waiting = replace(UP, job=replace(JOB, job_status=""), waiting="pod feed-a1-x: Unschedulable: no cpu", head=None)
    assert "Unschedulable" in condition(decide(announced(), waiting), "Running")["message"]


def test_nothing_is_decided_twice() -> None:
    first = running()
    second = after(first, decide(first, UP, 60))
    assert second.status == first.status
    assert decide(second, UP, 120).events == ()


@pytest.mark.parametrize(
    ("world", "reason"),
    [
        (replace(UP, head=replace(HEAD, deleting=True)), "HeadLost"),
        (replace(UP, head=replace(HEAD, phase="Failed", message="OOMKilled")), "HeadLost"),
        (replace(UP, head=None), "HeadLost"),
        (replace(UP, job=replace(JOB, job_status="FAILED", message="exit 1")), "DriverLost"),
        (replace(UP, job=replace(JOB, job_status="STOPPED")), "DriverLost"),
        (replace(UP, job=replace(JOB, deployment_status="Failed")), "DriverLost"),
        (replace(UP, job=replace(JOB, deleting=True)), "RayJobDeleted"),
        (replace(UP, job=None, jobs=()), "RayJobDeleted"),
    ],
)
def test_a_lost_attempt_is_noted_and_cleared_away(world: TrainingWorld, reason: str) -> None:
    decision = decide(running(), world)
    assert decision.status is not None
    assert decision.status["state"] == "Restarting"
    assert decision.status["restarts"][-1]["reason"] == reason
    assert decision.status["attempt"] == 1
    assert decision.status["failures"] == 1
    wanted = (ChildRef("RayJob", "feed-a1"),) if any(not j.deleting for j in world.jobs) else ()
    assert decision.delete == wanted


def lost(**driver: Any) -> RecTraining:
    before = running(**driver)
    return after(before, decide(before, replace(UP, head=None)))


def test_the_next_attempt_waits_until_the_former_pods_are_gone() -> None:
    left = replace(IDLE, pods=3)
    assert decide(lost(), left, 5).status["attempt"] == 1  # type: ignore[index]
    assert decide(lost(), IDLE, 5).status["attempt"] == 2  # type: ignore[index]


def test_pods_that_never_go_do_not_hold_the_next_attempt_for_ever() -> None:
    stuck = replace(IDLE, pods=1)
    assert decide(lost(), stuck, GRACE_S + 1).status["attempt"] == 2  # type: ignore[index]


def test_the_second_loss_in_a_row_waits_for_the_backoff() -> None:
    training = after(lost(), decide(lost(), IDLE, 1), failures=2)
    training = after(training, Decision(), state="Restarting")
    early, late = decide(training, IDLE, 2), decide(training, IDLE, 30)
    assert early.status["attempt"] == 2  # type: ignore[index]
    assert early.requeue_after_s == pytest.approx(backoff_s(2) - 2)
    assert late.status["attempt"] == 3  # type: ignore[index]


def test_backoff_doubles_up_to_five_minutes() -> None:
    assert [backoff_s(n) for n in (1, 2, 3, 4, 20)] == [0, 10, 20, 40, 300]


def test_an_attempt_that_committed_an_epoch_starts_the_count_again() -> None:
    committed = {"epoch": 4, "attempt": 1, "uri": "s3://b/p", "committedAt": "2026-01-02T03:04:05Z"}
    before = running(checkpoint=committed, failures=5)
    decision = decide(before, replace(UP, head=None))
    assert decision.status["failures"] == 1  # type: ignore[index]


def test_more_losses_in_a_row_than_the_limit_fail_the_training_with_the_last_cause() -> None:
    decision = decide(running(failures=6), replace(UP, head=None))
    failed = condition(decision, "Failed")
    assert (failed["status"], failed["reason"]) == ("True", "BackoffLimitExceeded")
    assert "HeadLost" in failed["message"]


def test_a_permanent_outcome_fails_with_the_drivers_own_reason() -> None:
    failed = condition(decide(running(**outcome("DigestMismatch", 78, True)), UP), "Failed")
    assert (failed["status"], failed["reason"], failed["message"]) == ("True", "DigestMismatch", "said the driver")


def test_an_outcome_of_an_older_attempt_says_nothing() -> None:
    decision = decide(running(**outcome("DigestMismatch", 78, True, attempt=0)), UP)
    assert decision.status["state"] == "Running"  # type: ignore[index]


def test_a_fenced_attempt_goes_on_above_the_newest_one() -> None:
    before = running(**outcome("Fenced", 70, True, newestAttempt=7))
    training = after(before, decide(before, UP))
    assert decide(training, IDLE, 5).status["attempt"] == 8  # type: ignore[index]


def test_an_end_as_asked_succeeds() -> None:
    for decision in (
        decide(running(**outcome("Completed", 0)), UP),
        decide(
            running(), replace(UP, job=replace(JOB, job_status="SUCCEEDED", deployment_status="Complete"), head=None)
        ),
    ):
        assert condition(decision, "Succeeded")["status"] == "True"
        assert condition(decision, "Running")["status"] == "False"


def test_a_finished_training_rests_until_its_spec_changes() -> None:
    before = running(**outcome("Completed", 0))
    finished = after(before, decide(before, UP))
    assert after(finished, decide(finished, IDLE, 99)).status == finished.status
    assert after(finished, decide(finished, IDLE, 99)).status.attempt == 1
    changed = respec(finished, optimizer={"kind": "SGD", "learningRate": 0.1})
    again = after(changed, decide(changed, IDLE, 99))
    assert decide(again, IDLE, 100).status["attempt"] == 2  # type: ignore[index]


def test_a_changed_spec_replaces_the_attempt_without_counting_a_failure() -> None:
    training = respec(running(), workers={"replicas": 4, "batchSize": 512})
    decision = decide(training, UP)
    assert decision.delete == (ChildRef("RayJob", "feed-a1"),)
    assert (decision.status["failures"], decision.status["state"]) == (0, "Restarting")  # type: ignore[index]


def test_suspend_and_failure_policy_are_no_change_of_the_input() -> None:
    training = running()
    changed = respec(training, suspend=True, failurePolicy={"backoffLimit": 9})
    assert input_hash(changed, MODEL) == input_hash(training, MODEL)


def test_suspending_waits_for_the_drivers_last_cut() -> None:
    asked = respec(running(), suspend=True)
    decision = decide(asked, UP)
    assert (decision.status["state"], decision.delete) == ("Suspending", ())  # type: ignore[index]
    told = after(asked, decision, **outcome("Suspended", 0))
    assert decide(told, UP, 10).delete == (ChildRef("RayJob", "feed-a1"),)
    done = decide(told, IDLE, 20)
    assert condition(done, "Suspended")["status"] == "True"
    assert done.status["workers"] == 0  # type: ignore[index]


def test_a_driver_that_takes_no_last_cut_is_ended_by_force() -> None:
    asked = respec(running(), suspend=True)
    asked = after(asked, decide(asked, UP))
    decision = decide(asked, UP, SUSPEND_LIMIT_S + 1)
    assert decision.delete == (ChildRef("RayJob", "feed-a1"),)
    assert [n.reason for n in decision.events] == ["SuspendForced"]


def test_resuming_starts_a_new_attempt() -> None:
    asked = respec(running(), suspend=True)
    asked = after(asked, decide(asked, UP), **outcome("Suspended", 0))
    suspended = after(asked, decide(asked, IDLE, 20))
    resumed = respec(suspended, suspend=False)
    assert decide(resumed, IDLE, 30).status["attempt"] == 2  # type: ignore[index]


def test_resumed_while_it_was_suspending_starts_again_without_counting() -> None:
    asked = respec(running(), suspend=True)
    asked = after(asked, decide(asked, UP), **outcome("Suspended", 0))
    decision = decide(respec(asked, suspend=False), UP, 1)
    assert (decision.status["state"], decision.status["failures"]) == ("Restarting", 0)  # type: ignore[index]


@pytest.mark.parametrize(
    ("world", "reason"),
    [
        (replace(IDLE, model=None), "ModelNotFound"),
        (replace(IDLE, model=example_model(ready=False)), "ModelNotReady"),
    ],
)
def test_an_unmet_reference_is_waited_for_by_name(world: TrainingWorld, reason: str) -> None:
    decision = decide(example_training(), world)
    assert (decision.status["state"], condition(decision, "Running")["reason"]) == ("Pending", reason)  # type: ignore[index]


def test_a_monitor_of_an_unknown_task_is_waited_for_until_it_is_mended() -> None:
    wrong = respec(
        example_training(), monitors=[{"name": "auc", "metric": "AUC", "task": "clik", "range": {"min": 0.5}}]
    )
    decision = decide(wrong)
    assert condition(decision, "Running")["reason"] == "InvalidTraining"
    assert "click" in condition(decision, "Running")["message"]
    mended = after(example_training(), decision)
    assert decide(mended).status["attempt"] == 1  # type: ignore[index]


def test_without_kuberay_the_training_says_so_once_and_goes_on_when_it_comes() -> None:
    decision = decide(example_training(), replace(IDLE, kuberay=False))
    assert condition(decision, "Degraded")["reason"] == "KubeRayMissing"
    assert len(decision.events) == 1
    training = after(example_training(), decision)
    assert decide(training, replace(IDLE, kuberay=False), 30).events == ()
    with_it = decide(training)
    assert with_it.status["attempt"] == 1  # type: ignore[index]
    assert all(c["type"] != "Degraded" for c in with_it.status["conditions"])  # type: ignore[index]


def test_a_model_that_turns_bad_does_not_stop_what_runs() -> None:
    assert decide(running(), replace(UP, model=None)).status["state"] == "Running"  # type: ignore[index]


def test_a_training_that_is_being_deleted_is_left_to_the_owner_references() -> None:
    body = running().model_dump(mode="json", by_alias=True)
    body["metadata"]["deletionTimestamp"] = "2026-01-02T03:04:05Z"
    assert decide(RecTraining.model_validate(body), UP) == Decision()


def test_transition_times_move_only_with_the_condition() -> None:
    first = running()
    moved = decide(first, replace(UP, head=None), 60)
    assert condition(decide(first, UP, 60), "Running")["lastTransitionTime"] == NOW.isoformat().replace("+00:00", "Z")
    assert condition(moved, "Running")["lastTransitionTime"] == later(60).isoformat().replace("+00:00", "Z")
