"""Where offsets shall go: the words of `--to` to one offset for each partition. Pure.

Rules: an offset must be on the broker (or be the end, where the next record comes), because a training that resumes
anywhere else ends at once. A partition that has an end (`stopAt: End`) goes no further than that end. Whoever is moved
starts at the first sample of a message. A partition of the topic that no epoch knows yet is taken along by `earliest`,
`latest` and `timestamp`: without that it would start at its earliest record, whatever was asked for.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from kuberec_runtime.checkpoint import PartitionOffset
from kuberec_runtime.stream.ends import Ends

FORMS = "earliest, latest, timestamp:MS or offsets:0=123,1=earliest"
MOST_MS = 2**63 - 1


class TargetError(ValueError):
    """`--to` cannot be read, or names a place that does not exist; says what to write instead."""


class Edge(StrEnum):
    """A place by its name."""

    EARLIEST = "earliest"
    LATEST = "latest"


@dataclass(frozen=True)
class Target:
    """One of: an edge for all partitions, a time for all of them, or a place for each of some."""

    edge: Edge | None = None
    at_ms: int | None = None
    places: Mapping[int, int | Edge] = field(default_factory=dict)


def parse_target(text: str) -> Target:
    """Reads `--to`.

    Raises:
        TargetError: it is none of the forms.
    """
    kind, _, rest = text.strip().partition(":")
    if not rest and kind in set(Edge):
        return Target(edge=Edge(kind))
    if kind == "timestamp":
        at_ms = _number(rest, text)
        if at_ms > MOST_MS:
            raise TargetError(f"--to {text}: {at_ms} is no time in milliseconds")
        return Target(at_ms=at_ms)
    if kind == "offsets":
        places: dict[int, int | Edge] = {}
        for part in rest.split(","):
            name, _, value = part.partition("=")
            partition = _number(name, text)
            if partition in places:
                raise TargetError(f"--to {text}: partition {partition} is named twice")
            value = value.strip()
            places[partition] = Edge(value) if value in set(Edge) else _number(value, text)
        return Target(places=places)
    raise TargetError(f"--to {text}: write {FORMS}")


def resolve(
    target: Target, offsets: Sequence[PartitionOffset], ends: Mapping[int, Ends], at: Mapping[int, int]
) -> tuple[PartitionOffset, ...]:
    """Returns the positions that the target asks for, by partition.

    Args:
        target: what is asked for.
        offsets: the epoch's positions, all of one topic.
        ends: what the topic holds.
        at: the offset of `target.at_ms` in each partition; needed for that form only.

    Raises:
        TargetError: a partition or an offset does not exist.
    """
    topic = offsets[0].topic
    known = {o.partition: o for o in offsets}
    if lost := sorted(set(known) - set(ends)):
        raise TargetError(
            f"topic '{topic}' has no partition {lost[0]} any more, but the epoch has its offset; was the topic "
            "recreated? A fresh topic needs a fresh checkpoint.uri"
        )
    for partition in target.places:
        if partition not in ends:
            raise TargetError(f"--to: topic '{topic}' has no partition {partition}, it has {_listed(sorted(ends))}")
    moved = dict(known)
    for partition in sorted(ends):
        if target.places and partition not in target.places:
            continue
        offset, exact = _wanted(target, partition, ends[partition], at)
        moved[partition] = _moved(topic, partition, known.get(partition), offset, exact)
    return tuple(moved[partition] for partition in sorted(moved))


def _wanted(target: Target, partition: int, ends: Ends, at: Mapping[int, int]) -> tuple[int, bool]:
    """The offset asked for, and whether it was asked for as a number."""
    place = target.edge if target.edge is not None else target.places.get(partition)
    match place:
        case Edge.EARLIEST:
            return ends.earliest, False
        case Edge.LATEST:
            return ends.latest, False
        case None:
            return at[partition], False
    if not ends.earliest <= place <= ends.latest:
        held = f"{ends.earliest} to {ends.latest - 1}" if ends.latest > ends.earliest else "no record"
        raise TargetError(
            f"--to: partition {partition} has no offset {place}; the topic holds {held}, the end is {ends.latest}"
        )
    return place, True


def _moved(topic: str, partition: int, known: PartitionOffset | None, offset: int, exact: bool) -> PartitionOffset:
    if known is None:
        return PartitionOffset(topic=topic, partition=partition, start=offset, next=offset)
    if known.end is not None and offset > known.end:
        if exact:
            raise TargetError(
                f"--to: partition {partition} ends at {known.end} for this training (stopAt: End), {offset} is behind "
                "that; name an offset up to the end, or set stopAt: Never first and let it commit once"
            )
        offset = known.end
    return known.model_copy(update={"next": offset, "skip": 0})


def _number(text: str, whole: str) -> int:
    text = text.strip()
    if not (text.isascii() and text.isdigit()):
        raise TargetError(f"--to {whole}: '{text}' is not a number of at least 0; write {FORMS}")
    return int(text)


def _listed(partitions: Sequence[int]) -> str:
    return ", ".join(str(p) for p in partitions[:20]) + (" ..." if len(partitions) > 20 else "")
