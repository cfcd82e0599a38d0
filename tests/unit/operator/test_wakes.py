"""Which events wake whom, and the queue that coalesces them."""

import asyncio
from typing import Any

from kuberec_operator.changes import Seen, owner_of
from kuberec_operator.health import QUEUE_LIMIT_S, WATCH_LIMIT_S, Progress
from kuberec_operator.kinds import Key
from kuberec_operator.work_queue import WorkQueue


def body(kind: str, status: dict[str, Any], **labels: str) -> dict[str, Any]:
    meta = {"uid": "u", "name": "feed", "namespace": "shop", "generation": 1, "labels": labels}
    return {"kind": kind, "metadata": meta, "status": status}


def test_progress_of_a_training_wakes_nobody() -> None:
    seen = Seen()
    assert seen.news(body("RecTraining", {"progress": {"step": 1}}))
    assert not seen.news(body("RecTraining", {"progress": {"step": 2}}))
    assert seen.news(body("RecTraining", {"outcome": {"attempt": 1}}))


def test_a_pod_belongs_to_the_training_of_its_label() -> None:
    labels = {"kuberec.dev/training": "feed", "kuberec.dev/attempt": "2"}
    assert owner_of(body("Pod", {}, **labels)) == Key("RecTraining", "shop", "feed")
    assert owner_of(body("RayService", {}, **{"kuberec.dev/serving": "s"})) == Key("RecServing", "shop", "s")
    assert owner_of(body("Pod", {})) is None


def test_a_head_pod_that_is_deleted_is_news() -> None:
    seen, pod = Seen(), body("Pod", {"phase": "Running"})
    seen.news(pod)
    pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert seen.news(pod)


async def test_wakes_during_a_reconcile_become_one_more_reconcile() -> None:
    key, calls, gate = Key("RecModel", "shop", "feed"), [], asyncio.Event()
    done = asyncio.Event()

    async def reconcile(key: Key) -> None:
        calls.append(key)
        if len(calls) == 1:
            gate.set()
            await asyncio.sleep(0)
            for _ in range(5):
                queue.add(key)
        else:
            done.set()

    queue = WorkQueue(reconcile, workers=4)
    running = asyncio.create_task(queue.run())
    queue.add(key)
    queue.add(key)
    async with asyncio.timeout(5):
        await gate.wait()
        await done.wait()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert len(calls) == 2


async def test_a_failure_is_tried_again_and_holds_nobody_up() -> None:
    good, bad = Key("RecModel", "shop", "good"), Key("RecModel", "shop", "bad")
    calls: list[str] = []
    mended = asyncio.Event()

    async def reconcile(key: Key) -> None:
        calls.append(key.name)
        if key == bad and calls.count("bad") == 1:
            raise ValueError("broken")
        if key == bad:
            mended.set()

    queue = WorkQueue(reconcile, workers=1)
    running = asyncio.create_task(queue.run())
    queue.add(bad)
    queue.add(good)
    async with asyncio.timeout(5):
        await mended.wait()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert calls == ["bad", "good", "bad"]


def test_a_watch_that_misses_objects_is_unhealthy() -> None:
    now = 0.0
    progress = Progress(clock=lambda: now)
    thing = {"metadata": {"uid": "u", "generation": 2}}
    progress.resynced([thing])
    now = WATCH_LIMIT_S + 1
    progress.resynced([thing])
    assert "watch" in progress.problems()[0]
    progress.saw(thing)
    assert progress.problems() == []


def test_a_stuck_queue_is_unhealthy() -> None:
    progress = Progress()
    progress.queue_stuck_s = lambda: QUEUE_LIMIT_S + 1
    assert len(progress.problems()) == 1
