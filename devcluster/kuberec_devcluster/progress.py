"""Says what a long command is doing, how long it usually takes, and how long it took.

A terminal gets a spinner with the elapsed time; a log file or CI gets one plain line per event, so that a ten
minute build is never silent and never a wall of control characters.
"""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

console = Console(file=sys.stderr, highlight=False, soft_wrap=True)


def say(text: str) -> None:
    """Prints one line of progress."""
    console.print(
        f"[bold cyan]==>[/] {escape(text)}" if console.is_terminal else f"==> {text}", markup=console.is_terminal
    )


@contextmanager
def step(title: str, usually: str = "") -> Iterator[None]:
    """Shows that a step runs, and how long it took.

    Args:
        title: what happens, in the present tense.
        usually: what to expect, such as "about 6 minutes, once".
    """
    expected = f" ({usually})" if usually else ""
    started = time.monotonic()
    if not console.is_terminal:
        console.print(f"==> {title}{expected} ...", markup=False)
        yield
        console.print(f"    {title}: done in {time.monotonic() - started:.1f} s", markup=False)
        return
    columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
    with Progress(*columns, console=console, transient=True) as bar:
        bar.add_task(f"{escape(title)}[dim]{expected}[/]", total=None)
        yield
    console.print(f"[green]✓[/] {escape(title)} [dim]{time.monotonic() - started:.1f} s[/]")
