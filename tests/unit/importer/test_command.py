"""`kuberec import` prints the same RecModel for the same files, and that RecModel is valid as it stands."""

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from kuberec_runtime.cli.main import app
from kuberec_runtime.cli.run import validate_file

HERE = Path(__file__).parent
SHOP = (str(HERE / "shop.fg.json"), "--dialect", "pyfg", "--hash", "std64")
SHOP_MODEL = (*SHOP, "--pipeline", str(HERE / "shop.pipeline.config"), "--name", "shop")
TAOBAO = (str(HERE / "taobao.fg.json"), "--dialect", "rtp", "--hash", "farm64", "--item-key", "adgroup_id")


def _import(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["import", *arguments])


@pytest.mark.parametrize(
    ("arguments", "golden"), [(SHOP_MODEL, "shop.yaml"), ((*TAOBAO, "--name", "taobao"), "taobao.yaml")]
)
def test_a_file_is_printed_as_a_model_that_is_valid(arguments: tuple[str, ...], golden: str) -> None:
    result = _import(*arguments)
    assert result.exit_code == 0, result.stderr
    assert result.stdout == (HERE / golden).read_text()
    assert validate_file(HERE / golden) == 0


def test_what_is_otherwise_than_upstream_is_said() -> None:
    assert _import(*SHOP_MODEL).stderr.splitlines() == [
        "note: the rows of several ids are added up, not averaged: langs",
        "note: the network has the layers [256, 128] everywhere, not as asked: final [64]",
        "note: file 'brands_txt' is data/brands.txt: put it into the ConfigMap of files",
        "note: file 'words_json' is words.json: put it into the ConfigMap of files",
        "note: left out, as it has no place in a RecModel: reserves, deepfm.wide_embedding_dim, train_input_path, "
        "model_dir, train_config, data_config, export_config",
    ]


def test_without_a_network_there_are_features_only() -> None:
    result = _import(*SHOP)
    assert result.exit_code == 0
    assert "# Features only: neither fg.json nor a pipeline.config says which network." in result.stdout.splitlines()
    assert "\n  network:" not in result.stdout and "\n  tasks:" not in result.stdout


def test_a_network_that_the_features_do_not_fit_is_left_out(tmp_path: Path) -> None:
    config = (HERE / "shop.pipeline.config").read_text()
    path = tmp_path / "pipeline.config"
    path.write_text(config.replace('"gender_cate", "price_b"] group_type', '"gender_cate", "brand"] group_type'))
    result = _import(*SHOP, "--pipeline", str(path))
    assert result.exit_code == 0
    why = next(line for line in result.stdout.splitlines() if line.startswith("# Features only: "))
    assert "all features of group 'wide' need one embedding dim" in why


def test_every_mistake_is_printed_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "fg.json"
    path.write_text((HERE / "shop.fg.json").read_text().replace('"num_buckets"', '"num_bucket"'))
    result = _import(str(path), *SHOP[1:])
    assert (result.exit_code, result.stdout) == (78, "")
    assert "feature 'hour': unknown key 'num_bucket'" in result.stderr
    assert "feature 'level': unknown key 'num_bucket'" in result.stderr
    assert "feature 'brand': there is no file 'data/brands.txt'" in result.stderr
    assert result.stderr.splitlines()[-1] == f"{path}: 4 errors, nothing was imported"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((SHOP[0], "--hash", "std64"), "Missing option '--dialect'"),
        ((SHOP[0], "--dialect", "pyfg"), "Missing option '--hash'"),
        ((*SHOP, "--field", "user.age=decimal"), "write user.<field>=<type>"),
    ],
)
def test_what_no_file_says_must_be_given(arguments: tuple[str, ...], says: str) -> None:
    result = _import(*arguments)
    assert result.exit_code == 2
    assert says in " ".join(result.stderr.replace("│", " ").split())


def test_the_importer_is_pure_python() -> None:
    program = "import featuregen.importer, sys; sys.exit(len({'numpy', 'pyarrow', 'numba'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    result = _import(str(tmp_path / "fg.json"), *SHOP[1:])
    assert result.exit_code == 78
    assert "No such file" in result.stderr
