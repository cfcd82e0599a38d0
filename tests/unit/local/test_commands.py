"""`kuberec validate` and `kuberec run` look at the files that features read before anything starts."""

import hashlib
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from kuberec_runtime.cli.main import app

FEED = Path(__file__).parents[3] / "examples" / "feed.yaml"
BRANDS = "b1\nb2\n"


@pytest.fixture
def feed(tmp_path: Path) -> Path:
    """The example, with a vocabulary file for brands."""
    documents = list(yaml.safe_load_all(FEED.read_text()))
    features = documents[0]["spec"]["features"]
    features["files"] = {"brands": {"sha256": hashlib.sha256(BRANDS.encode()).hexdigest()}}
    brand = next(feature for feature in features["list"] if feature["name"] == "brand")
    brand["encode"] = {"vocabFile": "brands", "unknown": 0, "vocabSize": 9}
    path = tmp_path / "feed.yaml"
    path.write_text(yaml.safe_dump_all(documents))
    return path


def run(command: str, feed: Path, *options: str) -> Result:
    return CliRunner().invoke(app, [command, "--file", str(feed), *options])


def test_the_example_of_every_operator_is_valid_with_its_files() -> None:
    result = run("validate", FEED.with_name("operators.yaml"), "--files", str(FEED.parent / "files"))
    assert result.exit_code == 0, result.stderr


def test_files_that_were_not_looked_at_are_named(feed: Path) -> None:
    result = run("validate", feed)
    assert result.exit_code == 0, result.stderr
    assert "files that were not looked at (give --files): brands" in result.stdout


def test_a_file_with_the_content_of_the_spec_is_accepted(feed: Path, tmp_path: Path) -> None:
    (tmp_path / "brands").write_text(BRANDS)
    result = run("validate", feed, "--files", str(tmp_path))
    assert result.exit_code == 0, result.stderr
    assert "not looked at" not in result.stdout


@pytest.mark.parametrize("command", ["validate", "run"])
@pytest.mark.parametrize(
    ("content", "says"), [(None, "file 'brands': cannot read"), ("b1\n", "file 'brands': {folder}/brands has sha256")]
)
def test_a_file_that_is_absent_or_another_is_refused(
    feed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, content: str | None, says: str
) -> None:
    monkeypatch.setenv("KUBEREC_FILES", "/nowhere")  # `run` sets it for its children; the test must not leave it set
    if content is not None:
        (tmp_path / "brands").write_text(content)
    result = run(command, feed, "--files", str(tmp_path))
    assert result.exit_code == 78
    assert says.format(folder=tmp_path) in result.stderr
