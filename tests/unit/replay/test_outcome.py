"""What a replay found, as an exit code, as text and as gauges; and what its arguments mean."""

from pathlib import Path

import numpy as np
import pytest

from featuregen.errors import FeatureError
from featuregen.replay.check import Example, OtherPlan, Report, Tally
from featuregen.replay.events import BehaviorTally
from kuberec_runtime.cli.replay import event_files, outcome
from kuberec_runtime.replay.logs import NoLogError, Topic, find_parts, parse_topic
from kuberec_runtime.replay.show import behaviors_table, example_text, write_metrics

EQUAL = Report(5, {"price": Tally(5), "cate": Tally(5)})
WRONG = Report(5, {"price": Tally(5, 2), "cate": Tally(5)})


@pytest.mark.parametrize(
    ("report", "code"),
    [
        (EQUAL, 0),
        (WRONG, 1),
        (Report(5, WRONG.features, {"d": OtherPlan(1)}, {}, ["x"]), 1),
        (Report(5, EQUAL.features, {"d": OtherPlan(1)}), 65),
        (Report(5, EQUAL.features, unreadable=["partition 0 offset 3: no"]), 65),
        (Report(0, EQUAL.features), 66),
    ],
)
def test_an_outcome_has_its_exit_code(report: Report, code: int) -> None:
    assert outcome(report) == code


def test_an_example_says_where_and_what() -> None:
    tenth = float(np.float32(0.1))
    known = Example(1, "r7", 3, "i9", [tenth], [[(5, tenth)], [7]])
    assert example_text(known) == "request r7 row 3 (i9): served [0.1], computed [[(5, 0.1)], [7]]"
    unknown = Example(1, "r7", None, None, None, [2.5])
    assert example_text(unknown) == "request r7: computed [2.5] in row 0 (the log has digests only)"
    assert len(example_text(Example(1, "r7", 0, None, list(range(99)), []))) < 120


def gauges(path: Path) -> dict[str, float]:
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    return {line.rsplit(" ", 1)[0]: float(line.rsplit(" ", 1)[1]) for line in lines}


def test_a_mismatch_of_code_is_a_gauge_that_must_be_0(tmp_path: Path) -> None:
    write_metrics(tmp_path / "a.prom", "feed", WRONG)
    found = gauges(tmp_path / "a.prom")
    assert found['kuberec_replay_mismatch_total{feature="price",model="feed"}'] == 2
    assert found['kuberec_replay_mismatch_total{feature="cate",model="feed"}'] == 0
    assert found['kuberec_replay_requests_total{model="feed"}'] == 5
    assert not any("skew" in name for name in found)


def test_differences_from_an_event_log_have_another_name(tmp_path: Path) -> None:
    lags = [2, 0, 1, 0, 0, 0]
    report = Report(5, WRONG.features, {}, {"clicks": BehaviorTally(5, 3, 3, 1, lags)})
    write_metrics(tmp_path / "b.prom", "feed", report)
    found = gauges(tmp_path / "b.prom")
    assert found['kuberec_replay_skew_total{feature="price",model="feed"}'] == 2
    assert found['kuberec_replay_events_total{behavior="clicks",kind="missing",model="feed"}'] == 3
    assert not any("mismatch" in name for name in found)
    assert list(behaviors_table(report).columns[5].cells) == ["up to 1 s: 2, up to 1 min: 1"]


def test_an_event_log_belongs_to_a_behaviour() -> None:
    assert event_files(["log.parquet"], ["clicks"]) == {"clicks": "log.parquet"}
    assert event_files(["a=x", "b=y"], ["a", "b"]) == {"a": "x", "b": "y"}
    with pytest.raises(FeatureError, match="of which behaviour"):
        event_files(["x"], ["a", "b"])


def test_a_topic_is_named_by_brokers_and_name() -> None:
    assert parse_topic("kafka://a:1,b:2/requests") == Topic("a:1,b:2", "requests")
    for wrong in ("kafka://a:1", "kafka:///t", "kafka://a:1/t/u"):
        with pytest.raises(NoLogError, match="kafka://host:port/topic"):
            parse_topic(wrong)


def test_a_folder_without_logs_is_no_log(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(NoLogError, match=r"no file \*\.parquet"):
        find_parts(str(tmp_path))
