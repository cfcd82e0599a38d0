"""A replica against a real Redis and the real network: right scores, never two versions, defaults without Redis."""

import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import redis

from kuberec_api.serving import ServedVersion, VersionPolicy
from kuberec_api.training import RowType
from kuberec_devcluster.services import Redis
from kuberec_runtime.publish.featurestore import FeatureStore
from kuberec_runtime.publish.publication import Version
from kuberec_runtime.serve.answer import Answer
from kuberec_runtime.serve.errors import NotReady
from kuberec_runtime.serve.replica import Replica, ReplicaConfig, readable
from kuberec_runtime.serve.request import JSON, RankRequest, parse
from tests.component.serving import CLICKS, ITEMS, NOW, USER, World, feed

KEYS = [f"i{n}" for n in range(100)]


@pytest.fixture(scope="module")
def server() -> Iterator[Redis]:
    with Redis() as server:
        yield server


@pytest.fixture
def world(server: Redis) -> World:
    redis.Redis.from_url(server.url).flushall()
    world = World(feed()[0], server.url)
    world.fill_store()
    return world


def replica_of(world: World) -> Replica:
    model, serving = feed()
    return Replica(ReplicaConfig(model, serving, world.url))


def request(replica: Replica, keys: list[str] = KEYS) -> RankRequest:
    import json

    body = {"user": {"user_id": "u1"}, "items": keys, "context": {"hour": 12}, "now": NOW}
    return parse(json.dumps(body).encode(), JSON, replica.sides)


@pytest.mark.parametrize("dtype", list(RowType))
def test_scores_equal_a_direct_computation_from_rows_and_dense_weights(world: World, dtype: RowType) -> None:
    features = world.features(USER, KEYS, CLICKS, NOW)
    world.publish(Version(1, 3), world.keys_of(features), dtype)
    replica = replica_of(world)
    replica.follow()

    for _ in range(2):  # from Redis, then from the cache
        answer = replica.rank(request(replica))
        assert answer.version == "1.3"
        assert not answer.missing
        expected = world.scores(features, 3)
        if dtype is RowType.FLOAT32:
            assert np.array_equal(answer.scores["click"], expected)
        assert np.abs(answer.scores["click"] - expected).max() < 5e-3
    assert len(np.unique(answer.scores["click"])) > 50


def test_unknown_users_items_and_rows_are_named(world: World) -> None:
    world.publish(Version(1, 1), {})
    replica = replica_of(world)
    replica.follow()
    raw = request(replica, ["i1", "nobody", "i2"])
    answer = replica.rank(RankRequest({"user_id": "u9"}, raw.keys, raw.columns, raw.context, None, NOW, 3))
    assert answer.missing["user"] == "u9"
    assert answer.missing["items"] == ["nobody"]
    assert answer.missing["rows"]["absent"] > 3
    assert np.isfinite(answer.scores["click"]).all()


def test_an_item_that_was_updated_in_the_store_is_seen_after_the_refresh_time(world: World) -> None:
    features = world.features(USER, KEYS, CLICKS, NOW)
    world.publish(Version(1, 1), world.keys_of(features))
    replica = replica_of(world)
    replica.follow()
    before = replica.rank(request(replica), debug=1)
    store, changed = FeatureStore(world.url), {"i3": ITEMS["i3"] | {"price": 999.0, "cate": "c6"}}
    store.put_items(changed)
    store.close()
    assert replica.rank(request(replica), debug=1).debug == before.debug, "within the refresh time"
    assert replica.items is not None
    replica.items._clock = lambda: time.monotonic() + 31.0
    assert replica.rank(request(replica), debug=1).debug == before.debug, "it is read again behind this request"
    replica.follow()
    after = replica.rank(request(replica), debug=1)
    expected = world.features(USER, KEYS, CLICKS, NOW, changed)
    assert after.debug["features"] == readable(expected) != before.debug["features"]


def test_fields_that_a_request_brings_count_for_it_alone(world: World) -> None:
    features = world.features(USER, KEYS, CLICKS, NOW)
    world.publish(Version(1, 1), world.keys_of(features))
    replica = replica_of(world)
    replica.follow()
    plain = request(replica)
    prices = pa.array([0.5] * len(KEYS))
    for _ in range(2):  # what it leaves out is read from the store, then from the cache
        given = replica.rank(replace(plain, columns=plain.columns | {"item.price": prices}), debug=1)
        sent = {key: ITEMS[key] | {"price": 0.5} for key in KEYS}
        assert given.debug["features"] == readable(world.features(USER, KEYS, CLICKS, NOW, sent))
        assert np.array_equal(replica.rank(plain).scores["click"], world.scores(features, 1))


def test_not_ready_until_something_is_published(world: World) -> None:
    replica = replica_of(world)
    replica.follow()
    assert not replica.versions.ready
    with pytest.raises(NotReady, match="nothing has been published yet"):
        replica.rank(request(replica))
    world.publish(Version(1, 1), {})
    replica.follow()
    assert replica.versions.ready


def test_a_hit_is_refreshed_by_the_delta_stream(world: World) -> None:
    features = world.features(USER, KEYS, CLICKS, NOW)
    ids = world.keys_of(features)
    world.publish(Version(1, 1), ids)
    replica = replica_of(world)
    replica.follow()
    replica.rank(request(replica))
    world.publish(Version(1, 2), ids)
    replica.follow()
    answer = replica.rank(request(replica), debug=2)
    assert answer.debug["rows"]["fetched"] == 0
    assert answer.version == "1.2"
    assert np.array_equal(answer.scores["click"], world.scores(features, 2))


def test_a_new_row_is_seen_although_its_absence_was_cached(world: World) -> None:
    features = world.features(USER, KEYS, CLICKS, NOW)
    world.publish(Version(1, 1), {})
    replica = replica_of(world)
    replica.follow()
    assert replica.rank(request(replica)).missing["rows"]["absent"] > 0
    world.publish(Version(1, 2), world.keys_of(features))
    replica.follow()
    answer = replica.rank(request(replica))
    assert not answer.missing
    assert np.array_equal(answer.scores["click"], world.scores(features, 2))


def _says_that_it_lacks(answer: Answer) -> bool:
    """Whether Redis missed its deadline of 50 ms, as it may on a busy machine: the answer then says what it lacks."""
    return bool({"user", "items"} & answer.missing.keys()) or "unread" in answer.missing.get("rows", {})


def test_a_swap_under_load_never_mixes_versions(world: World) -> None:
    """Without rows, an answer's scores are a function of the dense weights of one version alone."""
    features = world.features(USER, KEYS, CLICKS, NOW)
    expected = {f"1.{epoch}": world.scores(features, epoch, found=False) for epoch in range(1, 9)}
    world.publish(Version(1, 1), {})
    replica = replica_of(world)
    replica.follow()
    stop, wrong, seen = threading.Event(), [], set()

    def rank() -> None:
        while not stop.is_set():
            answer = replica.rank(request(replica))
            if _says_that_it_lacks(answer):
                continue
            seen.add(answer.version)
            if not np.array_equal(answer.scores["click"], expected[answer.version]):
                wrong.append((answer.version, answer.missing))

    threads = [threading.Thread(target=rank) for _ in range(3)]
    for thread in threads:
        thread.start()
    for epoch in range(2, 9):
        world.publish(Version(1, epoch), {})
        replica.follow()
        deadline = time.monotonic() + 20
        while f"1.{epoch}" not in seen and time.monotonic() < deadline:
            stop.wait(0.001)
    stop.set()
    for thread in threads:
        thread.join()
    assert not wrong
    assert seen == set(expected)


def test_a_bad_version_is_refused_and_the_old_one_goes_on(world: World) -> None:
    features = world.features(USER, KEYS, CLICKS, NOW)
    expected = world.scores(features, 1, found=False)
    namespace = world.publish(Version(1, 1), {})
    replica = replica_of(world)
    replica.follow()
    world.publish(Version(1, 2), {})
    redis.Redis.from_url(world.url).set(f"{namespace}/dense/1.2", b"\x08\0\0\0\0\0\0\0garbage!")
    replica.follow()
    assert replica.versions.ready
    assert "version 1.2 is refused" in replica.versions.status.reason
    assert np.array_equal(replica.rank(request(replica)).scores["click"], expected)
    world.publish(Version(1, 3), {})
    replica.follow()
    assert replica.rank(request(replica)).version == "1.3"
    assert replica.versions.status.reason == ""


def test_a_version_of_another_plan_is_refused(world: World) -> None:
    world.publish(Version(1, 1), {})
    replica = replica_of(world)
    replica.follow()
    object.__setattr__(world.plan, "digest", "f" * 64)
    world.publish(Version(1, 2), {})
    replica.follow()
    assert "it was trained for plan ffffffff" in replica.versions.status.reason
    assert replica.rank(request(replica)).version == "1.1"


def test_a_pin_stays_and_unpinning_follows_again(world: World) -> None:
    for epoch in (1, 2, 3):
        world.publish(Version(1, epoch), {})
    replica = replica_of(world)
    replica.reconfigure(ServedVersion(policy=VersionPolicy.PINNED, version="1.2"))
    replica.follow()
    assert replica.rank(request(replica)).version == "1.2"
    world.publish(Version(1, 4), {})
    replica.follow()
    assert replica.rank(request(replica)).version == "1.2"
    replica.reconfigure(ServedVersion())
    replica.follow()
    assert replica.rank(request(replica)).version == "1.4"
    replica.reconfigure(ServedVersion(policy=VersionPolicy.PINNED, version="1.1"))
    replica.follow()
    assert replica.rank(request(replica)).version == "1.4"
    assert "1.1 is not in the tier" in replica.versions.status.reason


def test_without_redis_defaults_are_served_and_it_recovers(world: World) -> None:
    features = world.features(USER, KEYS, CLICKS, NOW)
    with Redis() as own:
        world = World(feed()[0], own.url)
        world.fill_store()
        ids = world.keys_of(features)
        world.publish(Version(1, 1), ids)
        replica = replica_of(world)
        replica.follow()
        folder, port = own.folder, own.port
    # Redis is gone: nothing was cached but what the delta stream filled in; drop that too.
    for cache in replica.versions.acquire().rows.caches.values():
        cache.__init__(cache.width, 8)  # type: ignore[misc]
    answer = replica.rank(request(replica))
    assert answer.version == "1.1"
    assert answer.missing["rows"]["unread"] > 0
    assert answer.missing["user"] == "u1" and len(answer.missing["items"]) == 100
    started = time.perf_counter()
    for _ in range(20):
        replica.rank(request(replica))
    assert time.perf_counter() - started < 2, "the breaker keeps a dead Redis from costing a timeout each"
    replica.follow()
    assert replica.versions.ready and "no answer from Redis" in replica.versions.status.reason
    with Redis(folder=folder, port=port) as again:
        world = World(feed()[0], again.url)
        world.fill_store()
        world.publish(Version(1, 2), ids)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            replica.follow()
            answer = replica.rank(request(replica))
            if answer.version == "1.2" and not answer.missing:
                break
        assert np.array_equal(answer.scores["click"], world.scores(features, 2))
