"""The operator against a real API server: order, crashes, faults, rest. KubeRay and the driver are played."""

import asyncio
import json
from typing import Any

import pytest

from kuberec_operator.changes import Seen
from kuberec_operator.cluster import Conflict
from kuberec_operator.kinds import CONFIGMAP, EVENT, MODEL, POD, RAYJOB, RAYSERVICE, SERVING, TRAINING, Key, Kind
from kuberec_operator.reconcile import Reconciler
from tests.api.world import RUNTIME, Crash, Faulty, World, example

# The garbage collector learns of new CustomResourceDefinitions every 30 s.
GC_TRIES = 600


async def until_running(world: World, transport: Faulty | None = None) -> None:
    await world.settle(transport)
    await world.kuberay_runs(1)
    await world.settle(transport)


async def test_the_attempt_number_is_in_status_before_any_child_exists(world: World) -> None:
    await world.apply_example()
    counted = await world.settle()
    writes = [w for w in counted.writes if "/events/" not in w and "recmodel" not in w and "recserving" not in w]
    first_child = next(i for i, w in enumerate(writes) if "/status" not in w)
    assert any("rectrainings/feed/status" in w for w in writes[:first_child])
    assert await world.names(RAYJOB) == ["feed-a1"]
    assert (await world.status())["attempt"] == 1


async def test_an_operator_at_rest_writes_nothing(world: World) -> None:
    await world.apply_example()
    await until_running(world)
    versions = (await world.get(TRAINING))["metadata"]["resourceVersion"]
    again = await world.settle()
    assert again.writes == []
    assert (await world.get(TRAINING))["metadata"]["resourceVersion"] == versions


async def test_a_warm_start_waits_for_the_other_trainings_first_epoch(world: World) -> None:
    await world.put(example("RecModel"))
    today = example("RecTraining", warmStart={"trainingRef": {"name": "yesterday"}})
    await world.put(today)
    await world.settle()
    assert await running(world, "feed") == ("False", "TrainingNotFound")
    uri = "s3://kuberec/yesterday"
    other = example("RecTraining", checkpoint={"uri": uri, "credentials": {"secretRef": {"name": "archive"}}})
    await world.put({**other, "metadata": {"name": "yesterday"}})
    await world.settle()
    assert await running(world, "feed") == ("False", "NoCommittedEpoch")
    assert await world.names(RAYJOB) == ["yesterday-a1"]
    committed = {"epoch": 3, "attempt": 1, "uri": uri, "committedAt": "2026-01-01T00:00:00Z"}
    await world.write_status(TRAINING, "yesterday", {"checkpoint": committed}, "kuberec-runtime")
    await world.settle()
    assert await world.names(RAYJOB) == ["feed-a1", "yesterday-a1"]
    given = json.loads((await world.get(CONFIGMAP, "feed-a1"))["data"]["input.json"])
    assert given["training"]["spec"]["warmStart"] == {"uri": uri}
    await world.delete(TRAINING, "yesterday")
    attempt = (await world.status())["attempt"]
    await world.settle()
    assert (await world.status())["attempt"] == attempt, "what has begun goes on without it"
    reasons = {event["reason"] for event in await world.api.list(EVENT, world.namespace)}
    assert {"TrainingNotFound", "NoCommittedEpoch"} <= reasons


async def test_the_first_epoch_wakes_those_who_wait_for_it(world: World) -> None:
    await world.put(example("RecTraining", warmStart={"trainingRef": {"name": "yesterday"}}))
    other = await world.put({**example("RecTraining"), "metadata": {"name": "yesterday"}})
    seen, woken = Seen(), set[Key]()
    reconcile = Reconciler(world.api, RUNTIME, wake=woken.add)
    seen.news(other)
    committed = {"epoch": 0, "attempt": 1, "uri": "s3://kuberec/y", "committedAt": "2026-01-01T00:00:00Z"}
    for epoch in (0, 1):
        status = {"checkpoint": {**committed, "epoch": epoch}}
        await world.write_status(TRAINING, "yesterday", status, "kuberec-runtime")
        assert seen.news(await world.get(TRAINING, "yesterday"))
    await reconcile(Key(TRAINING.name, world.namespace, "yesterday"))
    assert woken == {Key(TRAINING.name, world.namespace, "feed")}


async def running(world: World, name: str) -> tuple[str, str]:
    conditions = (await world.status(TRAINING, name))["conditions"]
    return next((c["status"], c["reason"]) for c in conditions if c["type"] == "Running")


async def story(world: World, transport: Faulty | None = None) -> None:
    """Start, run, lose the head, run again, publish: every kind of write is in it.

    It can be taken up again at any point, as the world goes on while the operator is dead.
    """
    await world.apply_example()
    await world.settle(transport)
    if "feed-a1" in await world.names(RAYJOB) and not (await world.status()).get("restarts"):
        await world.kuberay_runs(1)
        await world.settle(transport)
        await world.delete(POD, "feed-a1-head")
    await world.settle(transport)
    await _gone(world, POD)  # the garbage collector takes what the RayJob owned
    await world.settle(transport)
    await world.kuberay_runs(2)
    published = {"publication": {"version": "2.9", "rows": 1, "publishedAt": "2026-01-01T00:00:00Z"}}
    await world.write_status(TRAINING, "feed", published, "kuberec-runtime")
    await world.settle(transport)


async def _gone(world: World, *kinds: Kind) -> None:
    left: list[str] = []
    for _ in range(GC_TRIES):
        left = [name for kind in kinds for name in await world.names(kind) if "-a2" not in name or kind is not POD]
        if not left:
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"not deleted in time: {left}")


async def test_a_lost_head_leads_to_the_next_attempt(world: World) -> None:
    await story(world)
    status = await world.status()
    assert (status["attempt"], status["state"]) == (2, "Running")
    assert [r["reason"] for r in status["restarts"]] == ["HeadLost"]
    assert await world.names(RAYJOB) == ["feed-a2"]
    assert await world.names(CONFIGMAP) == ["feed-a2"]
    assert await world.names(RAYSERVICE) == ["feed"]


async def _with_a_crash(world: World, at: int, after: bool) -> bool:
    """Plays the story; the operator dies at its k-th write and a new one takes over. Returns whether it died."""
    dying = Faulty(world.transport, die_at=at, after=after)
    phases = 0
    while True:
        try:
            await story(world, dying)
            return phases > 0
        except Crash:
            phases += 1
            dying.die_at = None  # the successor lives


@pytest.mark.timeout(900)
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_an_operator_killed_at_any_write_ends_where_an_unharmed_one_does(world: World, after: bool) -> None:
    base = world.namespace
    worlds = [World(world.transport, base)]
    await story(worlds[0])
    expected = await worlds[0].picture()
    total = len((await _count_writes(world)).writes)
    assert total >= 12
    for at in range(1, total + 1):
        await _clean(world)
        assert await _with_a_crash(world, at, after)
        assert await world.picture() == expected, f"after a crash at write {at}"


async def _count_writes(world: World) -> Faulty:
    await _clean(world)
    counting = Faulty(world.transport)
    await story(world, counting)
    return counting


async def _clean(world: World) -> None:
    for kind in (SERVING, TRAINING, MODEL):
        await world.delete(kind, "feed")
    await _gone(world, RAYJOB, CONFIGMAP, RAYSERVICE)
    for _ in range(GC_TRIES):
        if not await world.names(POD):
            return
        await asyncio.sleep(0.1)
    raise AssertionError("the owner references left pods behind")


@pytest.mark.parametrize("code", [0, 409, 429, 500])
async def test_refused_writes_are_tried_again_until_they_hold(world: World, code: int) -> None:
    faulty = Faulty(world.transport, answer={n: code for n in (1, 2, 4, 5, 7, 9)})
    await world.apply_example()
    for _ in range(4):
        await world.settle(faulty)
    assert await world.names(RAYJOB) == ["feed-a1"]
    assert (await world.status())["attempt"] == 1


async def test_a_decision_on_an_old_view_is_refused_by_the_api_server(world: World) -> None:
    await world.apply_example()
    await world.settle()
    old = await world.get(TRAINING)
    await world.write_status(TRAINING, "feed", {"progress": {"step": 1}}, "kuberec-runtime")
    with pytest.raises(Conflict):
        await world.api.apply_status(TRAINING, old, {"attempt": 9})
    assert (await world.status())["attempt"] == 1


async def test_deleting_the_resources_leaves_nothing_behind(world: World) -> None:
    await story(world)
    await _clean(world)


async def test_a_wrong_model_holds_the_training_and_a_mended_one_lets_it_go(world: World) -> None:
    wrong = example("RecModel")
    next(f for f in wrong["spec"]["features"]["list"] if f["name"] == "u_cate")["map"] = "user.cate_prefs"
    await world.put(wrong)
    await world.put(example("RecTraining"))
    await world.settle()
    ready = next(c for c in (await world.status(MODEL))["conditions"] if c["type"] == "Ready")
    assert (ready["reason"], "did you mean" in ready["message"]) == ("InvalidFeature", True)
    assert (await world.status())["state"] == "Pending"
    assert await world.names(RAYJOB) == []
    await world.put(example("RecModel"))
    await world.settle()
    assert await world.names(RAYJOB) == ["feed-a1"]


async def test_suspend_frees_everything_and_resume_goes_on(world: World) -> None:
    await world.apply_example()
    await until_running(world)
    await world.put(example("RecTraining", suspend=True))
    await world.settle()
    assert (await world.status())["state"] == "Suspending"
    told: dict[str, Any] = {"attempt": 1, "reason": "Suspended", "permanent": False, "exitCode": 0}
    await world.write_status(TRAINING, "feed", {"outcome": told}, "kuberec-runtime")
    await world.settle()
    await _gone(world, POD)
    await world.settle()
    assert (await world.status())["state"] == "Suspended"
    assert await world.names(RAYJOB) == []
    await world.put(example("RecTraining", suspend=False))
    await world.settle()
    assert await world.names(RAYJOB) == ["feed-a2"]
