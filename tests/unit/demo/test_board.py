import io
import json

import pytest
from rich.console import Console

from kuberec_api.training import CheckpointStatus, Progress, PublicationStatus, RecTrainingStatus
from kuberec_devcluster.demo.__main__ import summary
from kuberec_devcluster.demo.board import BARS, Board, Figures, sparkline


def status(samples, auc):
    return RecTrainingStatus(
        progress=Progress(samples=samples, samples_per_second=1234.0, lag=7, loss=0.5, auc=auc),
        checkpoint=CheckpointStatus(epoch=4, attempt=1, uri="file:///x", committed_at="2026-01-01T00:00:00Z"),
        publication=PublicationStatus(version="1.5", published_at="2026-01-01T00:00:00Z"),
    )


def test_a_sparkline_rises_to_the_best_possible_value():
    assert sparkline([0.5, 0.625, 0.75], top=None) == f"{BARS[0]}{BARS[4]}{BARS[7]}"
    assert sparkline([0.5, 0.625], top=1.0)[-1] == BARS[2]
    assert sparkline([0.5], top=None) == BARS[0]


def test_figures_remember_the_auc_only_when_something_was_learnt():
    figures = Figures()
    for samples, auc in ((0, None), (100, 0.5), (100, 0.5), (200, 0.6)):
        figures.take(status(samples, auc))
    figures.take(None)
    assert list(figures.history) == [0.5, 0.6]
    assert (figures.epoch, figures.version, figures.lag) == (4, "1.5", 7)


def test_a_log_gets_plain_lines(monkeypatch):
    monkeypatch.setattr("kuberec_devcluster.demo.board.PLAIN_SECONDS", 0)
    out = io.StringIO()
    with Board(Console(file=out), ["first", "second"]) as board:
        board.next()
        board.next("quick")
        board.figures.total = 1000
        board.figures.take(status(500, 0.6))
        board.tick()
        board.done()
    text = out.getvalue()
    assert "\x1b" not in text
    lines = text.splitlines()
    assert lines[0] == "==> first"
    assert lines[1].endswith("s: quick")
    assert "samples 500 of 1,000  samples/s 1,234  lag 7" in lines[3]


def test_a_terminal_gets_a_panel_and_a_picture_of_it(tmp_path):
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=100)
    with Board(console, ["first", "second"]) as board:
        board.next()
        board.figures.take(status(500, 0.6))
        board.figures.take(status(600, 0.7))
        board.next("quick")
    assert "✓" in out.getvalue() and BARS[-1] in out.getvalue()
    board.save_picture(tmp_path / "demo.svg")
    assert "make&#160;demo" in (tmp_path / "demo.svg").read_text()


@pytest.mark.parametrize("samples", [300_000])
def test_the_summary_names_every_figure(samples):
    result = {
        "samples": samples,
        "samples_per_s": 25_000,
        "auc": 0.7865,
        "oracle_auc": 0.7943,
        "published_version": "1.9",
        "rank_candidates": 500,
        "rank_p50_ms": 8.7,
        "rank_p99_ms": 44.9,
        "freshness_s": 2.05,
    }
    console = Console(file=io.StringIO(), width=120)
    console.print(summary(result, 90))
    shown = console.file.getvalue()
    for text in ("25,000/s", "0.7865", "0.7943", "8.7 ms", "44.9", "2.05 s", "1.9", "90 s"):
        assert text in shown
    json.dumps(result)
