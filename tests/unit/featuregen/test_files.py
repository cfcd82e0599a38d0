"""Files are found by name, compared with the plan's digest, and vocabularies are parsed or refused by line."""

from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from featuregen.engine import Engine
from featuregen.errors import FeatureError
from featuregen.files import read_files, vocabulary
from featuregen.plan import Encoder, File, Plan
from tests.unit.featuregen.cases import plan_of, row_of, table_of

SOURCES: dict[str, Any] = {"item": {"key": "iid", "fields": {"cate": "string"}}}
ENCODE = {"vocabFile": "cates", "unknown": 0, "vocabSize": 3}


def _plan(content: str) -> Plan:
    files = {"cates": {"sha256": sha256(content.encode()).hexdigest()}}
    return plan_of(SOURCES, [{"name": "c", "op": "id", "in": ["item.cate"], "encode": ENCODE}], files=files)


@pytest.mark.parametrize("name", ["cates", "cates.txt"])
def test_a_file_is_found_with_or_without_an_extension(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("a\nb\n")
    plan = _plan("a\nb\n")
    features = Engine(plan, files=tmp_path).batch(table_of(plan, [{"item.cate": "b"}, {"item.cate": "z"}]))
    assert [row_of(features, index)["c"] for index in range(2)] == [[1], [0]]


def test_the_folder_may_come_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cates").write_text("a")
    monkeypatch.setenv("KUBEREC_FILES", str(tmp_path))
    assert read_files(_plan("a")) == {"cates": b"a"}


def test_another_content_is_refused_with_both_digests(tmp_path: Path) -> None:
    (tmp_path / "cates").write_text("other")
    plan = _plan("a\nb\n")
    with pytest.raises(FeatureError, match=r"file 'cates': .*cates has sha256 [0-9a-f]{64}, the plan says") as raised:
        Engine(plan, files=tmp_path)
    assert plan.files[0].sha256 in str(raised.value)
    assert sha256(b"other").hexdigest() in str(raised.value)


def test_an_absent_file_is_named_with_its_folder(tmp_path: Path) -> None:
    with pytest.raises(FeatureError, match=f"file 'cates': cannot read {tmp_path}/cates: No such file"):
        read_files(_plan("a"), tmp_path)


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    for name in ("cates.txt", "cates.csv"):
        (tmp_path / name).write_text("a")
    with pytest.raises(FeatureError, match=r"file 'cates': there are .*cates\.csv and .*cates\.txt"):
        read_files(_plan("a"), tmp_path)


def test_a_plan_without_files_reads_no_folder() -> None:
    plan = plan_of(SOURCES, [{"name": "c", "op": "id", "in": ["item.cate"], "encode": {"hashBuckets": 3}}])
    assert read_files(plan, "/nowhere") == {}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("a\nb\n\nc d\n", {"a": 0, "b": 1, "c d": 3}),
        ("a\r\n  b\r\n", {"a": 0, "b": 1}),
        ("a 2\nb 0\n", {"a": 2, "b": 0}),
        ("", {}),
    ],
)
def test_a_vocabulary_has_line_numbers_or_ids(content: str, words: dict[str, int]) -> None:
    assert vocabulary(_encoder(4), {"v": content.encode()}) == words


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"a 1\nb\n", r"line 2: 'b' has no id, 'a 1' has one"),
        (b"a\nb\na\n", r"line 3: 'a' is there twice"),
        (b"a\nb\nc\n", r"line 3: the id 2 of 'c' is too large"),
        (b"\xff", r"file 'v': 'utf-8' codec"),
    ],
)
def test_a_wrong_vocabulary_is_refused_by_its_line(content: bytes, problem: str) -> None:
    with pytest.raises(FeatureError, match=problem):
        vocabulary(_encoder(2), {"v": content})


def _encoder(buckets: int) -> Encoder:
    return Encoder("vocab", buckets, "t", file=File("v", ""))
