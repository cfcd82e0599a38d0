"""The Redis tier against a real Redis: what is written is read back, and nobody stale gets in."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import redis

from kuberec_api.training import RowType
from kuberec_devcluster.services import Redis
from kuberec_runtime.publish import tier as tier_module
from kuberec_runtime.publish.errors import StalePublication, TierCorrupt, TierError, TierRefused, TierUnreachable
from kuberec_runtime.publish.featurestore import Event, FeatureStore
from kuberec_runtime.publish.publication import Description, Publication, TableMeta, Version
from kuberec_runtime.publish.tier import ROWS_PER_COMMAND, Tier

DIGEST = "41b0e2d9" * 8
WIDTHS = {"cate": 9, "user_id": 16}
TOLERANCE = {RowType.FLOAT32: 0.0, RowType.BFLOAT16: 2**-8, RowType.FLOAT16: 2**-11}


@pytest.fixture(scope="module")
def server() -> Iterator[Redis]:
    with Redis() as server:
        yield server


@pytest.fixture
def url(server: Redis) -> str:
    redis.Redis.from_url(server.url).flushall()
    return server.url


def publication(
    tier: Tier, version: Version, dtype: RowType = RowType.FLOAT32, changed: dict[str, np.ndarray] | None = None
) -> Publication:
    tables = {name: TableMeta(i, width, name == "cate") for i, (name, width) in enumerate(WIDTHS.items())}
    description = Description(
        version, DIGEST, "farm64", dtype, tables, ("click",), 1_790_000_000_000, 1_789_999_999_000
    )
    dense = {"deep_0/kernel": np.full((3, 2), version.epoch, np.float32), "deep_0/bias": np.zeros(2, np.float32)}
    return Publication(tier.namespace_of(DIGEST, WIDTHS, dtype), description, dense, changed)


def claimed(url: str, attempt: int, password: str | None = None) -> Tier:
    tier = Tier(url, password, attempt=attempt)
    tier.claim(attempt)
    return tier


@pytest.mark.parametrize("dtype", list(RowType))
def test_rows_read_back_are_those_written_within_their_types_precision(url: str, dtype: RowType) -> None:
    tier = claimed(url, 1)
    rng = np.random.default_rng(0)
    namespace = tier.namespace_of(DIGEST, WIDTHS, dtype)
    ids = {"cate": rng.permutation(9000).astype(np.int64), "user_id": np.array([0, 2**47 - 1, 10], np.int64)}
    rows = {t: rng.standard_normal((i.size, WIDTHS[t])).astype(np.float32) for t, i in ids.items()}
    for table in ids:
        tier.write_rows(namespace, table, ids[table], rows[table], dtype)
    assert tier.commit(publication(tier, Version(1, 1), dtype))

    back = tier.read_rows(namespace, {"cate": ids["cate"], "user_id": np.array([10, 77, 0], np.int64)})

    assert back["cate"][1].all()
    assert np.abs(back["cate"][0] - rows["cate"]).max() <= TOLERANCE[dtype] * np.abs(rows["cate"]).max()
    assert back["user_id"][1].tolist() == [True, False, True]
    assert np.allclose(back["user_id"][0][[0, 2]], rows["user_id"][[2, 0]], rtol=TOLERANCE[dtype] or 1e-9)
    assert not back["user_id"][0][1].any()


def test_a_committed_version_is_read_back_whole(url: str) -> None:
    tier = Tier(url)
    published = publication(tier, Version(1, 7), changed={"cate": np.array([3, 5], np.int64)})
    tier.commit(published)

    current = tier.current()
    assert current is not None and (current.namespace, current.version) == (published.namespace, Version(1, 7))
    dense = tier.dense(current.namespace, current.version)
    assert dense.description == published.description == tier.meta(current.namespace)
    assert dense.weights.keys() == published.dense.keys()
    assert dense.weights["deep_0/kernel"].tolist() == published.dense["deep_0/kernel"].tolist()
    (delta,) = tier.deltas(current.namespace)
    assert delta.version == Version(1, 7) and delta.changed is not None
    assert {t: i.tolist() for t, i in delta.changed.items()} == {"cate": [3, 5]}


def test_each_delta_names_the_version_before_it(url: str) -> None:
    tier = Tier(url)
    for epoch in (1, 2, 5):
        tier.commit(publication(tier, Version(1, epoch)))
    deltas = tier.deltas(publication(tier, Version(1, 1)).namespace)
    assert [(str(d.version), d.previous) for d in deltas] == [("1.1", ""), ("1.2", "1.1"), ("1.5", "1.2")]
    assert tier.deltas(publication(tier, Version(1, 1)).namespace, after=deltas[1].id)[0].version == Version(1, 5)


def test_only_the_last_versions_are_kept(url: str) -> None:
    tier = Tier(url)
    for epoch in range(1, 6):
        tier.commit(publication(tier, Version(1, epoch)), keep=2)
    namespace = publication(tier, Version(1, 1)).namespace
    assert tier.versions(namespace) == [Version(1, 4), Version(1, 5)]
    assert tier.dense(namespace, Version(1, 4)).description.version == Version(1, 4)
    with pytest.raises(TierCorrupt, match=r"1\.3 is not in the tier.*it holds: 1\.4, 1\.5"):
        tier.dense(namespace, Version(1, 3))


def test_a_stale_attempt_moves_neither_current_nor_rows(url: str) -> None:
    old, new = claimed(url, 1), Tier(url, attempt=2)
    namespace = old.namespace_of(DIGEST, WIDTHS, RowType.FLOAT32)
    ids = np.arange(10, dtype=np.int64)
    old.write_rows(namespace, "cate", ids, np.full((10, 9), 1, np.float32), RowType.FLOAT32)
    old.commit(publication(old, Version(1, 50)))
    new.claim(2)
    new.write_rows(namespace, "cate", ids, np.full((10, 9), 2, np.float32), RowType.FLOAT32)

    with pytest.raises(StalePublication, match="attempt 2"):
        old.write_rows(namespace, "cate", ids, np.full((10, 9), 3, np.float32), RowType.FLOAT32)
    with pytest.raises(StalePublication):
        old.commit(publication(old, Version(1, 51)))
    new.commit(publication(new, Version(2, 1)))
    with pytest.raises(StalePublication):
        old.commit(publication(old, Version(1, 51)))
    with pytest.raises(StalePublication):
        Tier(url, attempt=1).write_rows(namespace, "cate", ids, np.ones((10, 9), np.float32), RowType.FLOAT32)

    current = new.current()
    assert current is not None and current.version == Version(2, 1)
    assert (new.read_rows(namespace, {"cate": ids})["cate"][0] == 2).all()


@pytest.mark.parametrize("attempt", [None, 1])
def test_deleted_rows_read_as_those_that_were_never_published(url: str, attempt: int | None) -> None:
    tier = Tier(url) if attempt is None else claimed(url, attempt)
    ids, rows = np.arange(10_000, dtype=np.int64), np.ones((10_000, 9), np.float32)
    about = publication(tier, Version(1, 1), changed={"cate": ids})
    tier.write_rows(about.namespace, "cate", ids, rows, RowType.FLOAT32)
    gone = np.append(ids[1000:9000], 77_777)
    tier.delete_rows(about.namespace, "cate", gone)
    tier.commit(about)
    values, found = tier.read_rows(about.namespace, {"cate": ids})["cate"]
    assert np.array_equal(found, (ids < 1000) | (ids >= 9000))
    assert (values[~found] == 0).all() and (values[found] == 1).all()


def test_a_stale_attempt_deletes_nothing(url: str) -> None:
    old, new = claimed(url, 1), Tier(url, attempt=2)
    about = publication(old, Version(1, 1))
    old.write_rows(about.namespace, "cate", np.arange(5), np.ones((5, 9), np.float32), RowType.FLOAT32)
    old.commit(about)
    new.claim(2)
    with pytest.raises(StalePublication):
        old.delete_rows(about.namespace, "cate", np.arange(5))
    assert new.read_rows(about.namespace, {"cate": np.arange(5)})["cate"][1].all()


def test_a_claim_in_the_middle_of_a_write_stops_it(url: str) -> None:
    old = claimed(url, 1)
    connection = old._connection()
    old._watch(connection)
    claimed(url, 2)
    with pytest.raises(StalePublication):
        old._write_fenced(connection, b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\n1\r\n")
    assert redis.Redis.from_url(url).get("a") is None


def test_committing_a_version_again_changes_nothing(url: str) -> None:
    tier = Tier(url)
    assert tier.commit(publication(tier, Version(1, 3)))
    assert not tier.commit(publication(tier, Version(1, 3)))
    with pytest.raises(StalePublication, match=r"1\.2 may not publish.*1\.3"):
        tier.commit(publication(tier, Version(1, 2)))
    assert len(tier.deltas(publication(tier, Version(1, 3)).namespace)) == 1


@pytest.mark.parametrize("point", ["rows", "dense.before", "dense", "meta", "current"])
def test_a_publisher_killed_anywhere_leaves_a_complete_version(url: str, point: str) -> None:
    tier = Tier(url)
    tier.commit(publication(tier, Version(1, 1)))
    script = (
        "import numpy as np\n"
        "from tests.component.test_tier import *\n"
        f"tier = claimed({url!r}, 1)\n"
        "p = publication(tier, Version(1, 2))\n"
        "rows = np.full((9000, 9), 2, np.float32)\n"
        "tier.write_rows(p.namespace, 'cate', np.arange(9000, dtype=np.int64), rows, RowType.FLOAT32)\n"
        "tier.commit(p)\n"
    )
    env = {**os.environ, "KUBEREC_CRASH_AT": f"publish.{point}", "PYTHONPATH": os.pathsep.join(sys.path)}
    killed = subprocess.run([sys.executable, "-c", script], env=env, cwd=Path(__file__).parents[2], timeout=60)
    assert killed.returncode == -signal.SIGKILL

    current = tier.current()
    assert current is not None
    assert current.version == (Version(1, 2) if point == "current" else Version(1, 1))
    dense = tier.dense(current.namespace, current.version)
    assert dense.weights["deep_0/kernel"][0, 0] == current.version.epoch
    assert tier.commit(publication(tier, Version(1, 3)), keep=2)
    assert Version(1, 3) in tier.versions(current.namespace)


def test_a_large_delta_says_that_anything_may_have_changed(url: str) -> None:
    tier = Tier(url)
    tier.commit(publication(tier, Version(1, 1), changed={"cate": np.arange(300_000, dtype=np.int64)}))
    (delta,) = tier.deltas(publication(tier, Version(1, 1)).namespace)
    assert delta.changed is None


def test_errors_name_the_server_and_how_to_mend_it() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nowhere = f"redis://127.0.0.1:{free.getsockname()[1]}/0"
    with pytest.raises(TierUnreachable, match=r"no answer from Redis at redis://127\.0\.0\.1"):
        Tier(nowhere).current()
    with pytest.raises(TierUnreachable):
        Tier(nowhere).write_rows("kr:a/b/c", "cate", np.arange(3), np.zeros((3, 2), np.float32), RowType.FLOAT32)
    with pytest.raises(TierError, match="must not hold a password"):
        Tier("redis://:secret@127.0.0.1/0")
    with Redis() as server:
        redis.Redis.from_url(server.url).config_set("requirepass", "right")
        for password in (None, "bad"):
            tier = Tier(server.url, password)
            for call in (tier.ping, tier.current, tier._connection):
                with pytest.raises(TierRefused, match="check the password"):
                    call()
        tier = claimed(server.url, 1, "right")
        tier.write_rows("kr:a/b/c", "cate", np.arange(3), np.zeros((3, 2), np.float32), RowType.FLOAT32)


def test_the_feature_store_returns_what_was_put(url: str) -> None:
    store = FeatureStore(url)
    store.put_users({"u1": {"age": 30, "cate_pref": {"a": 0.5}}})
    store.put_items({f"i{n}": {"cate": "c", "price": float(n)} for n in range(5000)})
    store.append_behavior("clicks", [Event("u1", f"i{n}", "click", n) for n in range(70)], cap=50)
    assert store.user("u1") == {"age": 30, "cate_pref": {"a": 0.5}}
    assert store.user("u2") is None
    assert store.items(["i7", "nobody"]) == [{"cate": "c", "price": 7.0}, None]
    behavior = store.behavior("clicks", "u1", 3)
    assert behavior == {"item": ["i67", "i68", "i69"], "action": ["click"] * 3, "ts": [67, 68, 69]}
    assert len(store.behavior("clicks", "u1", 1000)["ts"]) == 50


def test_events_keep_their_own_fields(url: str) -> None:
    store = FeatureStore(url)
    store.put_users({"u1": {"m": {"c": {"b": 1.5}}, "vectors": [[0.5], []]}})
    store.append_behavior("clicks", [Event("u1", "a", "click", 1), Event("u1", "b", "buy", 2, {"paid": 9.5, "n": 2})])
    user, behaviors = store.snapshot("u1", {"clicks": 10})
    assert user == {"m": {"c": {"b": 1.5}}, "vectors": [[0.5], []]}
    assert behaviors["clicks"] == {
        "item": ["a", "b"],
        "action": ["click", "buy"],
        "ts": [1, 2],
        "paid": [None, 9.5],
        "n": [None, 2],
    }


def test_an_event_that_does_not_parse_is_named(url: str) -> None:
    server = redis.Redis.from_url(url)
    server.rpush("kr:default/behavior/clicks/u1", b"\x94\xa1a\xa1b\x01\x05")  # ["a", "b", 1, 5]
    with pytest.raises(TierCorrupt, match="behavior 'clicks' of user 'u1'"):
        FeatureStore(url).behavior("clicks", "u1", 10)


def test_a_tier_that_was_emptied_says_so_and_takes_all_rows_again(url: str) -> None:
    tier, client = claimed(url, 1), redis.Redis.from_url(url)
    namespace = tier.namespace_of(DIGEST, WIDTHS, RowType.FLOAT32)
    ids, rows = np.arange(10, dtype=np.int64), np.ones((10, WIDTHS["cate"]), np.float32)
    tier.write_rows(namespace, "cate", ids, rows, RowType.FLOAT32)
    client.flushall()

    with pytest.raises(TierCorrupt, match="was emptied"):
        tier.write_rows(namespace, "cate", ids, rows, RowType.FLOAT32)
    with pytest.raises(TierCorrupt, match="was emptied"):
        tier.commit(publication(tier, Version(1, 1)))
    claimed(url, 1)  # the driver does, before it asks for all rows
    tier.write_rows(namespace, "cate", ids, rows, RowType.FLOAT32)

    assert tier.commit(publication(tier, Version(1, 1)))
    assert tier.read_rows(namespace, {"cate": ids})["cate"][1].all()


def test_a_tier_emptied_between_two_chunks_and_claimed_again_is_not_another_attempts(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tier, client = claimed(url, 1), redis.Redis.from_url(url)
    namespace = tier.namespace_of(DIGEST, WIDTHS, RowType.FLOAT32)
    ids = np.arange(2 * ROWS_PER_COMMAND, dtype=np.int64)
    rows = np.ones((ids.size, WIDTHS["cate"]), np.float32)

    def emptied_here(place: str) -> None:
        if place == "publish.rows":
            client.flushall()
            claimed(url, 1)

    monkeypatch.setattr(tier_module, "crash_here", emptied_here)
    with pytest.raises(TierCorrupt, match="was emptied"):
        tier.write_rows(namespace, "cate", ids, rows, RowType.FLOAT32)
    monkeypatch.undo()
    tier.write_rows(namespace, "cate", ids, rows, RowType.FLOAT32)
    assert tier.commit(publication(tier, Version(1, 1)))
