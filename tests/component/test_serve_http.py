"""The Ray Serve application on a local Ray, over HTTP: every media type, every refusal, a hot swap, a clean stop."""

import io
import json
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import msgspec
import numpy as np
import pyarrow as pa
import pytest

from kuberec_api.training import RecTraining
from kuberec_devcluster.services import Redis
from kuberec_runtime.publish.publication import Version
from kuberec_runtime.serve.local import LocalServing, start_serving
from kuberec_runtime.serve.request import ARROW, JSON, MSGPACK
from tests.component.serving import CLICKS, NOW, USER, World, feed

KEYS = [f"i{n}" for n in range(50)]
BODY = {"user": {"user_id": "u1"}, "items": KEYS, "context": {"hour": 12}, "now": NOW}


def training(url: str) -> RecTraining:
    spec = {
        "modelRef": {"name": "feed"},
        "source": {"kafka": {"bootstrapServers": "nowhere:9092", "topic": "none"}},
        "checkpoint": {"uri": "file:///nowhere"},
        "publish": {"redis": {"url": url}},
    }
    return RecTraining.model_validate({"metadata": {"name": "feed"}, "spec": spec})


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with Redis() as server:
        world = World(feed()[0], server.url)
        world.fill_store()
        world.publish(Version(1, 1), world.keys_of(world.features(USER, KEYS, CLICKS, NOW)))
        yield world


@pytest.fixture(scope="module")
def app(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalServing]:
    model, serving = feed()
    with start_serving(serving, model, training(world.url), tmp_path_factory.mktemp("serving")) as running:
        yield running


def arrow_body() -> bytes:
    about = json.dumps({k: v for k, v in BODY.items() if k != "items"})
    table = pa.table({"item.item_id": KEYS}).replace_schema_metadata({"kuberec": about})
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


@pytest.mark.parametrize("media", [JSON, MSGPACK, ARROW])
def test_each_media_type_gets_the_same_scores(app: LocalServing, world: World, media: str) -> None:
    bodies = {JSON: json.dumps(BODY).encode(), MSGPACK: msgspec.msgpack.encode(BODY), ARROW: arrow_body()}
    answer = httpx.post(app.rank_url, content=bodies[media], headers={"content-type": media})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == media
    if media == ARROW:
        table = pa.ipc.open_stream(answer.content).read_all()
        scores, about = table["click"].to_numpy(), json.loads(table.schema.metadata[b"kuberec"])
    else:
        about = (json.loads if media == JSON else msgspec.msgpack.decode)(answer.content)
        scores = np.array(about["scores"]["click"], np.float32)
    expected = world.scores(world.features(USER, KEYS, CLICKS, NOW), int(about["version"].split(".")[1]))
    assert np.array_equal(scores, expected)
    assert about["model"] == "feed" and about["missing"] == {}


def test_wrong_requests_say_what_was_expected(app: LocalServing) -> None:
    answer = httpx.post(app.rank_url, json={**BODY, "user": {"user_id": "u1", "gendr": "f"}})
    assert answer.status_code == 400
    assert answer.json()["field"] == "user.gendr" and "did you mean 'user.gender'" in answer.json()["expected"]
    answer = httpx.post(app.rank_url, json={**BODY, "user": {"user_id": "u1", "age": "old"}})
    assert answer.json() == {
        "error": "user.age: expected int, got a string 'old'",
        "field": "user.age",
        "expected": "int",
        "got": "a string 'old'",
    }
    assert httpx.post(app.rank_url, json={**BODY, "items": ["i"] * 5001}).status_code == 413
    assert httpx.post(app.rank_url, content=b"x", headers={"content-type": "text/csv"}).status_code == 415
    assert httpx.post(f"{app.url}/v1/models/other:rank", json=BODY).status_code == 404
    assert httpx.get(app.rank_url).status_code == 405


def test_metadata_health_and_metrics_answer(app: LocalServing, world: World) -> None:
    about = httpx.get(f"{app.url}/v1/models/feed").json()
    assert about["ready"] and about["digest"] == world.plan.digest
    assert {"name": "item.cate", "type": "string"} in about["inputs"]
    for path in ("/healthz", "/readyz", "/v2/health/live", "/v2/health/ready", "/v2/models/feed"):
        assert httpx.get(app.url + path).status_code == 200, path
    httpx.post(app.rank_url, json=BODY)
    metrics = httpx.get(f"{app.url}/metrics").text
    for name in (
        "kuberec_rank_seconds_bucket",
        "kuberec_rows_total",
        "kuberec_version_info",
        "kuberec_freshness_seconds",
    ):
        assert name in metrics


def test_debug_shows_features_timings_and_where_rows_came_from(app: LocalServing) -> None:
    debug = httpx.post(app.rank_url, json=BODY, headers={"x-kuberec-debug": "3"}).json()["debug"]
    assert len(debug["features"]["cate"]) == len(KEYS) and len(debug["features"]["user_id"]) == 1
    assert set(debug["milliseconds"]) == {"complete", "features", "rows", "dense"}
    assert debug["rows"]["unread"] == 0
    assert httpx.post(app.rank_url, json=BODY, headers={"x-kuberec-debug": "9"}).status_code == 400


def test_a_publication_is_served_within_seconds(app: LocalServing, world: World) -> None:
    features = world.features(USER, KEYS, CLICKS, NOW)
    world.publish(Version(1, 2), world.keys_of(features))
    published = time.monotonic()
    while True:
        answer = httpx.post(app.rank_url, json=BODY).json()
        if answer["version"] == "1.2":
            break
        assert time.monotonic() - published < 5
    assert time.monotonic() - published < 2
    assert np.array_equal(np.array(answer["scores"]["click"], np.float32), world.scores(features, 2))


def test_it_stops_and_leaves_nothing_behind(app: LocalServing) -> None:
    app.stop()
    assert app.process.returncode is not None
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{app.url}/healthz")
    assert Path(app.log).exists()
