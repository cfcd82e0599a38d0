"""What the demo shows while it runs: stages with check marks and the figures that matter, or plain lines in a log."""

import io
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from kuberec_api.training import RecTrainingStatus

BARS = "▁▂▃▄▅▆▇█"
PLAIN_SECONDS = 2.0
WIDTH = 100


@dataclass
class Stage:
    """One step of the demo; `seconds` is None while it runs or waits."""

    title: str
    started: float | None = None
    seconds: float | None = None
    note: str = ""


@dataclass
class Figures:
    """The newest figures; None is unknown so far."""

    samples: int = 0
    total: int = 0
    per_second: float = 0.0
    lag: int | None = None
    loss: float | None = None
    auc: float | None = None
    oracle: float | None = None
    epoch: int | None = None
    version: str | None = None
    rank_p50_ms: float | None = None
    rank_p99_ms: float | None = None
    freshness_s: float | None = None
    history: deque[float] = field(default_factory=lambda: deque(maxlen=40))

    def take(self, status: RecTrainingStatus | None) -> None:
        """Takes over a training's status."""
        if status is None or status.progress is None:
            return
        progress = status.progress
        if progress.samples > self.samples and progress.auc is not None:
            self.history.append(progress.auc)
        self.samples, self.per_second, self.lag = progress.samples, progress.samples_per_second, progress.lag
        self.loss, self.auc = progress.loss, progress.auc
        self.epoch = status.checkpoint.epoch if status.checkpoint else None
        self.version = status.publication.version if status.publication else None


class Board:
    """Draws stages and figures on a terminal, four times a second; prints lines elsewhere.

    Use as a context manager; `stage(title)` ends the stage before it.
    """

    def __init__(self, console: Console, titles: list[str]) -> None:
        self.figures = Figures()
        self._console = console
        self._stages = [Stage(title) for title in titles]
        self._at = -1
        self._began = time.monotonic()
        self._spoke = 0.0
        self._spinner = Spinner("dots", style="cyan")
        self._live = (
            Live(get_renderable=self._draw, console=console, refresh_per_second=4) if console.is_terminal else None
        )

    @property
    def seconds(self) -> float:
        """Since the demo began."""
        return time.monotonic() - self._began

    def __enter__(self) -> "Board":
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def next(self, note: str = "") -> None:
        """Ends the running stage with a note and begins the one after it."""
        self.done(note)
        self._at += 1
        if self._at < len(self._stages):
            self._stages[self._at].started = time.monotonic()
            self._say(f"==> {self._stages[self._at].title}")

    def done(self, note: str = "") -> None:
        """Ends the running stage."""
        if 0 <= self._at < len(self._stages) and self._stages[self._at].seconds is None:
            stage = self._stages[self._at]
            stage.seconds = time.monotonic() - (stage.started or 0.0)
            stage.note = note
            self._say(f"    done in {stage.seconds:.1f} s{': ' if note else ''}{note}")

    def note(self, text: str) -> None:
        """Says what the running stage is doing."""
        self._stages[self._at].note = text

    def tick(self) -> None:
        """Lets a log have a line now and then; the terminal draws itself."""
        if self._live is None and time.monotonic() - self._spoke >= PLAIN_SECONDS and self.figures.samples:
            self._spoke = time.monotonic()
            self._say("    " + "  ".join(f"{name} {value}" for name, value in self._rows() if value != "-"))

    def save_picture(self, path: Path) -> None:
        """Writes what the terminal shows now as an SVG, for a README."""
        console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
        console.print(self._draw())
        console.save_svg(str(path), title="make demo")

    def _say(self, line: str) -> None:
        if self._live is None:
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _rows(self) -> list[tuple[str, str]]:
        f = self.figures
        of_oracle = f" (best possible {f.oracle:.4f})" if f.oracle is not None else ""
        latency = f"{f.rank_p50_ms:.1f} ms, p99 {f.rank_p99_ms:.1f} ms" if f.rank_p50_ms and f.rank_p99_ms else "-"
        return [
            ("samples", f"{f.samples:,} of {f.total:,}" if f.samples <= f.total else f"{f.samples:,}"),
            ("samples/s", f"{f.per_second:,.0f}" if f.per_second else "-"),
            ("lag", "-" if f.lag is None else f"{f.lag:,}"),
            ("loss", "-" if f.loss is None else f"{f.loss:.4f}"),
            ("auc", "-" if f.auc is None else f"{f.auc:.4f}{of_oracle}"),
            ("epoch", "-" if f.epoch is None else str(f.epoch)),
            ("published", f.version or "-"),
            ("rank 500", latency),
            ("freshness", "-" if f.freshness_s is None else f"{f.freshness_s:.2f} s"),
        ]

    def _draw(self) -> RenderableType:
        stages = Table.grid(padding=(0, 1))
        for index, stage in enumerate(self._stages):
            if stage.seconds is not None:
                mark: RenderableType = Text("✓", style="bold green")
                time_ = f"{stage.seconds:.1f} s"
            elif index == self._at:
                mark, time_ = self._spinner, f"{time.monotonic() - (stage.started or 0.0):.0f} s"
            else:
                mark, time_ = Text("·", style="dim"), ""
            style = "" if stage.started is not None else "dim"
            stages.add_row(
                mark, Text(stage.title, style=style), Text(time_, style="cyan"), Text(stage.note, style="dim")
            )
        figures = Table.grid(padding=(0, 2))
        for name, value in self._rows():
            figures.add_row(Text(name, style="bold"), Text(value))
            if name == "auc" and len(self.figures.history) > 1:
                figures.add_row("", Text(sparkline(list(self.figures.history), self.figures.oracle), style="green"))
        title = f"[bold]KubeRec[/]  {self.seconds:.0f} s"
        return Panel(Group(stages, "", figures), title=title, title_align="left", border_style="cyan", width=WIDTH)


def sparkline(values: list[float], top: float | None) -> str:
    """Returns one bar per value, from the lowest value to `top` (the oracle) or the highest."""
    low, high = min(values), max([*values, *([] if top is None else [top])])
    span = (high - low) or 1.0
    return "".join(BARS[min(len(BARS) - 1, int((value - low) / span * len(BARS)))] for value in values)
