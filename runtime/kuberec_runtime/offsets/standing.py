"""How far each partition is: an epoch's positions beside what the topic holds, with what is wrong in words. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.table import Table

from kuberec_runtime.checkpoint import Manifest, PartitionOffset
from kuberec_runtime.stream.ends import Ends


@dataclass(frozen=True)
class Standing:
    """One partition: its committed position, None if no epoch knows it; its ends, None if they were not asked for."""

    topic: str
    partition: int
    offset: PartitionOffset | None
    ends: Ends | None = None
    gone: bool = False

    @property
    def lag(self) -> int | None:
        """Records between the position and the end of the partition; None if unknown."""
        if self.ends is None:
            return None
        position = self.ends.earliest if self.offset is None else max(self.offset.next, self.ends.earliest)
        return max(0, self.ends.latest - position)

    @property
    def note(self) -> str:
        """What a person should know about this partition, empty if nothing."""
        if self.gone:
            return "not in the topic any more"
        if self.offset is None:
            return "new, starts at the earliest record"
        if self.ends is None:
            return ""
        if (expired := self.ends.earliest - self.offset.next) > 0:
            return f"{expired:,} records expired before they were read"
        if self.offset.next > self.ends.latest:
            return "behind the end: was the topic recreated?"
        return "at its end" if self.offset.next == self.offset.end else ""


def of_files(offsets: Sequence[PartitionOffset]) -> bool:
    """True if the positions are rows of files (whose URIs stand for topics) and not offsets of a topic."""
    return any("://" in o.topic for o in offsets)


def standings(offsets: Sequence[PartitionOffset], ends: Mapping[int, Ends] | None = None) -> list[Standing]:
    """Joins an epoch's positions with the topic's ends, by partition; `ends` None means that nobody asked."""
    if ends is None:
        return [Standing(o.topic, o.partition, o) for o in offsets]
    known = {o.partition: o for o in offsets}
    topic = offsets[0].topic if offsets else ""
    return [Standing(topic, p, known.get(p), ends.get(p), gone=p not in ends) for p in sorted({*known, *ends})]


def standings_table(rows: Sequence[Standing]) -> Table:
    """Lays positions out for a terminal; broker columns only where they are known."""
    asked = any(r.ends is not None or r.gone for r in rows)
    broker = ("earliest", "latest", "lag") if asked else ()
    table = Table(box=None, header_style="bold")
    for name in ("topic", "partition", "next", "in message", "end", *broker, ""):
        table.add_column(name, justify="left" if name in {"topic", ""} else "right", no_wrap=True)
    for row in rows:
        position = _position(row.offset)
        held = (_text(row.ends and row.ends.earliest), _text(row.ends and row.ends.latest), _text(row.lag))
        table.add_row(row.topic, str(row.partition), *position, *(held if asked else ()), row.note)
    if asked:
        table.add_row("", "", "", "", "", "", "[bold]sum[/bold]", _text(sum(row.lag or 0 for row in rows)), "")
    return table


def standings_json(uri: str, manifest: Manifest, newest_attempt: int, rows: Sequence[Standing]) -> dict[str, object]:
    """The positions as one JSON document; broker fields are null where they are not known."""
    return {
        "checkpoint": uri,
        "epoch": manifest.epoch,
        "attempt": manifest.attempt,
        "newestAttempt": newest_attempt,
        "createdAt": manifest.created_at,
        "samples": manifest.samples,
        "partitions": [
            {
                "topic": row.topic,
                "partition": row.partition,
                "next": row.offset and row.offset.next,
                "inMessage": row.offset and row.offset.skip,
                "end": row.offset and row.offset.end,
                "samples": manifest.samples_by_partition.get(row.partition, 0),
                "earliest": row.ends and row.ends.earliest,
                "latest": row.ends and row.ends.latest,
                "lag": row.lag,
                "note": row.note,
            }
            for row in rows
        ],
    }


def moves_table(before: Sequence[PartitionOffset], after: Sequence[PartitionOffset]) -> Table:
    """Lays a reset out for a terminal: each partition before and after."""
    known = {o.partition: o for o in before}
    table = Table(box=None, header_style="bold")
    for name in ("topic", "partition", "next", "in message", "new next", "in message", "records", ""):
        table.add_column(name, justify="left" if name in {"topic", ""} else "right", no_wrap=True)
    for new in after:
        old = known.get(new.partition)
        records, word = "-", "new"
        if old is not None:
            records = f"{new.next - old.next:+,}" if new.next != old.next else "0"
            word = "read again" if (new.next, new.skip) < (old.next, old.skip) else "skipped"
            word = "stays" if new == old else word
        inside = _position(old)[:2]
        table.add_row(new.topic, str(new.partition), *inside, f"{new.next:,}", f"{new.skip:,}", records, word)
    return table


def _position(offset: PartitionOffset | None) -> tuple[str, str, str]:
    if offset is None:
        return "-", "-", "-"
    return _text(offset.next), _text(offset.skip), _text(offset.end)


def _text(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"
