"""What a soak says while it goes, and the table at its end."""

import time
from dataclasses import dataclass, field

from rich.console import Console
from rich.table import Table

from tests.soak.schedule import Event, Kind


@dataclass
class Story:
    """Lines with the time since the start; counts of what happened and of how attempts ended."""

    console: Console
    began: float = field(default_factory=time.monotonic)
    happened: dict[str, int] = field(default_factory=dict)
    endings: dict[str, int] = field(default_factory=dict)

    def say(self, text: str, attempt: int = 0, samples: int | None = None) -> None:
        """Prints one line."""
        where = f"attempt {attempt:>3}" if attempt else " " * 11
        learnt = f"{samples:>9,}" if samples is not None else " " * 9
        line = f"{time.monotonic() - self.began:7.1f} s  {where}  {learnt}  {text}"
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def struck(self, event: Event) -> None:
        """Counts an event."""
        self.happened[event.kind] = self.happened.get(event.kind, 0) + 1

    def ended(self, reason: str) -> None:
        """Counts an attempt's end."""
        self.endings[reason] = self.endings.get(reason, 0) + 1

    def summary(self, title: str, facts: dict[str, str]) -> None:
        """Prints the table."""
        table = Table(title=title, box=None, show_header=False, padding=(0, 2), title_justify="left")
        table.add_column(justify="right")
        for kind in Kind:
            if kind in self.happened:
                table.add_row(str(self.happened[kind]), str(kind))
        for reason, times in sorted(self.endings.items()):
            table.add_row(str(times), f"attempts that ended as {reason}")
        for what, value in facts.items():
            table.add_row(value, what)
        self.console.print(table)


def told(event: Event) -> str:
    """One line about an event."""
    details = [f"{event.seconds:.1f} s"] if event.seconds else []
    details += (
        [f"{event.refused:.0%} refused, {event.lost:.0%} answers lost"] if event.kind is Kind.STORE_ERRORS else []
    )
    if event.kind is Kind.STORE_LATENCY:
        details.append(f"{1000 * event.latency_s:.0f} ms, {event.slow:.0%} of reads stutter")
    details += [f"{event.workers} workers, {event.shards} shards"] if event.kind is Kind.RESIZE else []
    details += ["while it starts"] if event.early else []
    return f"{event.kind}" + (f" ({'; '.join(details)})" if details else "")
