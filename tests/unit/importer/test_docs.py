"""docs/import.md shows what the command prints, and names every operator."""

import re
import shlex
from pathlib import Path

from typer.testing import CliRunner

from featuregen.importer.fgjson import OPERATORS
from kuberec_runtime.cli.main import app

PAGE = (Path(__file__).parents[3] / "docs" / "import.md").read_text()


def _block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", PAGE, re.S)
    assert found, f"the page has no {language}"
    return found.group(1)


def test_the_page_shows_what_is_printed(tmp_path: Path) -> None:
    (tmp_path / "fg.json").write_text(_block("json"))
    program, *arguments = shlex.split(_block("sh"))
    assert program == "kuberec"
    result = CliRunner().invoke(app, [str(tmp_path / one) if one == "fg.json" else one for one in arguments])
    assert result.exit_code == 0, result.stderr
    assert result.stdout == _block("yaml")


def test_the_page_names_every_operator() -> None:
    missing = [name for name in OPERATORS if f"`{name}`" not in PAGE]
    assert missing == []
