"""What every command needs of a terminal: whole lines in a pipe, JSON on stdout, one readable error and exit code 1."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

PIPE_WIDTH = 160

Uri = Annotated[
    str, typer.Argument(help="s3://bucket/prefix, gs://, az:// or file:///path; credentials from AWS_* etc.")
]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document instead of a table")]


def console() -> Console:
    """Standard output; a pipe gets whole lines, however wide."""
    screen = Console()
    return screen if screen.is_terminal else Console(width=PIPE_WIDTH)


def print_json(document: Any) -> None:
    """Prints one JSON document, and nothing else, to standard output."""
    print(json.dumps(document, indent=1))


def fail(message: str) -> NoReturn:
    """Ends the command with an error on stderr and exit code 1."""
    Console(stderr=True, soft_wrap=True).print(f"[red]error[/red]: {escape(message)}", highlight=False)
    raise typer.Exit(1)


@contextmanager
def readable(*errors: type[Exception]) -> Iterator[None]:
    """Turns the errors that a user can mend into `fail`; others stay tracebacks, since they are ours."""
    try:
        yield
    except errors as error:
        fail(str(error))


class Bars:
    """Progress bars on stderr, one for each thing that is being done."""

    def __init__(self) -> None:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        self._progress = Progress(*columns, console=Console(stderr=True))
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> "Bars":
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def show(self, what: str, done: int, of: int) -> None:
        """Moves the bar of `what`; the first call starts it."""
        if what not in self._tasks:
            self._tasks[what] = self._progress.add_task(what, total=of)
        self._progress.update(self._tasks[what], completed=done, total=of)
