"""A YAML file is read whole or refused with the document and field named."""

from pathlib import Path

import pytest

from kuberec_runtime.local.resources import Overrides, ResourceFileError, localize, read_resources

FEED = Path(__file__).parents[3] / "examples" / "feed.yaml"


def test_the_example_belongs_together() -> None:
    resources = read_resources(FEED)
    assert resources.serving is not None
    assert resources.training.spec.model_ref.name == resources.model.metadata.name


def test_overrides_replace_addresses_and_nothing_else() -> None:
    before = read_resources(FEED)
    after = localize(before, Overrides(bootstrap_servers="127.0.0.1:1", checkpoint_uri="file:///x", stop_at_end=True))
    assert after.training.spec.source.kafka is not None
    assert after.training.spec.source.kafka.bootstrap_servers == "127.0.0.1:1"
    assert after.training.spec.source.kafka.topic == "feed-samples"
    assert after.training.spec.checkpoint.uri == "file:///x"
    assert after.training.spec.publish == before.training.spec.publish
    assert after.model == before.model


def test_requests_are_logged_where_the_samples_come_from(tmp_path: Path) -> None:
    path, log = (
        tmp_path / "feed.yaml",
        "  requestLog: {kafka: {bootstrapServers: 'kafka:9092', topic: feed-requests}}\n",
    )
    path.write_text(FEED.read_text() + log)
    serving = localize(read_resources(path), Overrides(bootstrap_servers="127.0.0.1:1")).serving
    assert serving is not None and serving.spec.request_log is not None
    assert serving.spec.request_log.kafka.bootstrap_servers == "127.0.0.1:1"
    assert serving.spec.request_log.kafka.topic == "feed-requests"
    path.write_text(FEED.read_text() + log.replace("feed-requests", "feed-samples"))
    with pytest.raises(ResourceFileError, match="is the topic of the training's samples"):
        read_resources(path)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("batchSize: 1024", "batchSiez: 1024"), r"RecTraining.*\n.*workers.batchSiez: Extra inputs"),
        (("kind: RecServing", "kind: RecServng"), "document 3 has kind RecServng"),
        (("modelRef: {name: feed}", "modelRef: {name: other}"), "refers to recmodel/other"),
        (("format: Json", "format: Xml"), r"format: Input should be 'Json', 'Arrow' or 'Csv', got 'Xml'"),
    ],
)
def test_a_wrong_file_is_refused_by_name(tmp_path: Path, change: tuple[str, str], says: str) -> None:
    path = tmp_path / "feed.yaml"
    path.write_text(FEED.read_text().replace(*change))
    with pytest.raises(ResourceFileError, match=says):
        read_resources(path)
