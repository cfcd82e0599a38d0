"""Which files a training reads, in which pieces, under which numbers: fixed once, appended to, never renumbered. Pure.

A listing is kept with the checkpoint before epoch 0 and is never written again; a training whose URI changes gets a
further one for files that no earlier one has. A partition's number is its place in all listings, one after the other.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

import msgspec

from kuberec_runtime.stream.source import PartitionStart, Position, Unit

WILD = "*?["


@dataclass(frozen=True)
class Found:
    """One file of a folder: whole URI, size in bytes, and what changes when its content does."""

    uri: str
    size: int
    version: str


@dataclass(frozen=True)
class Listing:
    """The units of the files that matched `uri` at one time."""

    uri: str
    units: tuple[Unit, ...]

    def to_json(self) -> bytes:
        """For keeping."""
        return msgspec.json.encode({"uri": self.uri, "units": [asdict(u) for u in self.units]})

    @classmethod
    def from_json(cls, body: bytes | memoryview) -> "Listing":
        """The inverse of `to_json`."""
        return msgspec.json.decode(body, type=cls)


def split_uri(uri: str) -> tuple[str, str]:
    """Splits a URI into the folder that is listed and the pattern of what lies below it ("" for everything)."""
    wild = min((at for at in (uri.find(c) for c in WILD) if at >= 0), default=-1)
    if wild < 0:
        return uri, ""
    cut = uri.rindex("/", 0, wild)
    return uri[:cut], uri[cut + 1 :]


def matching(found: Iterable[Found], uri: str) -> list[Found]:
    """The files that a URI means, sorted by name. In a folder, names that begin with `_` or `.` are left out."""
    folder, pattern = split_uri(uri)
    folder = folder.rstrip("/")
    wanted = re.compile(_regex(pattern)) if pattern else None
    chosen = []
    for file in found:
        below = file.uri.removeprefix(folder).lstrip("/")
        if wanted is not None:
            fits = wanted.fullmatch(below) is not None
        else:
            fits = not below or not any(part.startswith(("_", ".")) for part in below.split("/"))
        if fits and file.size > 0:
            chosen.append(file)
    return sorted(chosen, key=lambda f: f.uri)


def bundles(sizes: Sequence[int], rows: Sequence[int], least: int) -> list[tuple[int, int, int, int]]:
    """Groups consecutive parts until each group has at least `least` bytes: (first, count, rows, bytes)."""
    made: list[tuple[int, int, int, int]] = []
    first = 0
    while first < len(sizes):
        stop, size = first, 0
        while stop < len(sizes) and size < least:
            size += sizes[stop]
            stop += 1
        made.append((first, stop - first, sum(rows[first:stop]), size))
        first = stop
    return made


def blocks(size: int, block: int) -> list[tuple[int, int]]:
    """Cuts a file of lines into ranges of bytes; a line belongs to the range in which it begins."""
    return [(at, min(block, size - at)) for at in range(0, size, block)]


def starts_of(listings: Sequence[Listing], known: Sequence[PartitionStart]) -> list[PartitionStart]:
    """Partitions of all listings, each where `known` (a manifest) left it, at its first row otherwise."""
    position = {k.partition: k.position for k in known}
    units = [unit for listing in listings for unit in listing.units]
    return [PartitionStart(p, position.get(p, Position(0)), 1, unit) for p, unit in enumerate(units)]


def root_of(uri: str) -> str:
    """`scheme://bucket`."""
    scheme, _, rest = uri.partition("://")
    return f"{scheme}://{rest.partition('/')[0]}"


def _regex(pattern: str) -> str:
    out = ""
    at = 0
    while at < len(pattern):
        if pattern.startswith("**/", at):
            out, at = out + "(?:.*/)?", at + 3
        elif pattern.startswith("**", at):
            out, at = out + ".*", at + 2
        elif pattern[at] == "*":
            out, at = out + "[^/]*", at + 1
        elif pattern[at] == "?":
            out, at = out + "[^/]", at + 1
        elif pattern[at] == "[" and (close := pattern.find("]", at)) > 0:
            out, at = out + pattern[at : close + 1].replace("[!", "[^"), close + 1
        else:
            out, at = out + re.escape(pattern[at]), at + 1
    return out
