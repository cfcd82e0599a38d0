"""What is committed and what it is made of, for a person and for a program: read, chosen, laid out as tables."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from kuberec_runtime.checkpoint.errors import CheckpointError, CorruptFile, ObjectMissing
from kuberec_runtime.checkpoint.log import Committed, read_commits
from kuberec_runtime.checkpoint.manifest import Manifest, RowOptimizerRef, WarmTaken, read_manifest
from kuberec_runtime.checkpoint.restore import find_restorable
from kuberec_runtime.checkpoint.rows import read_verified
from kuberec_runtime.checkpoint.store import Store

RETENTION_GAP = 3
EVERY_EPOCH = 10_000


class NoSuchEpoch(CheckpointError):  # noqa: N818 - as its siblings in `errors`
    """The epoch that was asked for is not committed, or retention has removed it."""


class NotRestorable(CheckpointError):  # noqa: N818
    """A restore would have to fall back past the last commit."""


@dataclass(frozen=True)
class Entry:
    """One commit and its manifest; `problem` says why there is none."""

    committed: Committed
    manifest: Manifest | None
    problem: str = ""


def read_entries(store: Store, limit: int) -> list[Entry]:
    """Returns the newest commits, newest first; those whose manifests retention has deleted are left out.

    Raises:
        StoreError: the store does not answer.
        CorruptLog: the log cannot be read.
    """
    entries: list[Entry] = []
    missing: list[Entry] = []
    for committed in read_commits(store):
        if len(entries) + len(missing) == limit or len(missing) > RETENTION_GAP:
            break
        try:
            entry = Entry(committed, read_manifest(store, committed.manifest))
        except ObjectMissing as error:
            missing.append(Entry(committed, None, str(error)))
            continue
        except CorruptFile as error:
            entry = Entry(committed, None, str(error))
        entries += [*missing, entry]  # gone although an older one is there: that was not retention
        missing.clear()
    return entries or missing[:1]


def summary(entry: Entry) -> dict[str, Any]:
    """Returns one line of `ls` as JSON."""
    head = {"epoch": entry.committed.epoch, "attempt": entry.committed.attempt, "manifest": entry.committed.manifest}
    manifest = entry.manifest
    if manifest is None:
        return {**head, "problem": entry.problem}
    return {
        **head,
        "createdAt": manifest.created_at,
        "samples": manifest.samples,
        "rows": sum(file.rows for link in manifest.chain for file in link.files),
        "removed": sum(file.removed for link in manifest.chain for file in link.files),
        "chain": [link.kind.value for link in manifest.chain],
        "bytes": sum(file.size for file in manifest.files),
        "published": manifest.published,
        "digest": manifest.digest,
        "metrics": manifest.metrics,
    }


def _warm(taken: WarmTaken) -> str:
    tables = ", ".join(f"{t.name} {t.verdict.lower()}{f' ({t.reason})' if t.reason else ''}" for t in taken.tables)
    weights = f"{len(taken.weights_taken)} dense weights taken, {len(taken.weights_initialised)} initialised"
    return f"epoch {taken.epoch} of {taken.uri}: {tables}; {weights}"


def entries_table(store: Store, entries: list[Entry]) -> Table:
    """Lays commits out for a terminal."""
    table = Table(title=f"{store.uri}", title_justify="left", box=None, header_style="bold")
    for name, justify in (
        ("epoch", "right"),
        ("attempt", "right"),
        ("created", "left"),
        ("samples", "right"),
        ("chain", "left"),
        ("rows", "right"),
        ("size", "right"),
        ("published", "left"),
    ):
        table.add_column(name, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    for entry in entries:
        line = summary(entry)
        if entry.manifest is None:
            table.add_row(str(line["epoch"]), str(line["attempt"]), f"[red]{entry.problem}[/red]")
            continue
        table.add_row(
            str(line["epoch"]),
            str(line["attempt"]),
            line["createdAt"][5:19].replace("T", " "),
            f"{line['samples']:,}",
            _chain(line["chain"]),
            f"{line['rows']:,}",
            size_text(line["bytes"]),
            line["published"] or "-",
        )
    return table


def manifest_tables(store: Store, entry: Entry) -> list[Table]:
    """Lays one manifest out for a terminal: what it is, its files, its offsets."""
    manifest = entry.manifest
    assert manifest is not None
    head = Table(title=f"{store.uri}/{entry.committed.manifest}", title_justify="left", box=None, show_header=False)
    facts: Mapping[str, object] = {
        "epoch": f"{manifest.epoch} (attempt {manifest.attempt}, log slot {entry.committed.sequence})",
        "created": manifest.created_at,
        **({"note": manifest.note} if manifest.note else {}),
        "plan digest": manifest.digest,
        **({"row optimizer": _optimizer(manifest.row_optimizer)} if manifest.row_optimizer else {}),
        **({"warm start": _warm(manifest.warm_start)} if manifest.warm_start else {}),
        "samples": f"{manifest.samples:,}",
        "skipped records": sum(manifest.skipped_by_partition.values()),
        "shards": manifest.shards,
        "published": manifest.published or "-",
        "metrics": ", ".join(f"{name} {value}" for name, value in manifest.metrics.items()) or "-",
        "libraries": ", ".join(f"{name} {value}" for name, value in manifest.libraries.items()) or "-",
    }
    for name, value in facts.items():
        head.add_row(f"[bold]{name}[/bold]", str(value))
    files = Table(box=None, header_style="bold")
    for name in ("link", "epoch", "file", "width", "rows", "buckets", "size"):
        files.add_column(name, justify="right" if name in {"epoch", "width", "rows", "size"} else "left")
    for link in manifest.chain:
        for file in link.files:
            buckets = f"{file.buckets[0]}-{file.buckets[1]}"
            rows = f"-{file.removed:,}" if file.removed else "" if file.counted else f"{file.rows:,}"
            numbers = (str(file.width), rows, buckets, size_text(file.size))
            files.add_row(link.kind.value, str(link.epoch), file.key, *numbers)
    if manifest.dense is not None:
        written = manifest.dense.key.removeprefix("data/").partition("-")[0]  # a reset names an older epoch's file
        files.add_row("dense", written, manifest.dense.key, "", "", "", size_text(manifest.dense.size))
    offsets = Table(box=None, header_style="bold")
    for name in ("topic", "partition", "start", "next", "skip", "end", "samples"):
        offsets.add_column(name, justify="left" if name == "topic" else "right")
    for offset in manifest.offsets:
        end = "-" if offset.end is None else str(offset.end)
        applied = f"{manifest.samples_by_partition.get(offset.partition, 0):,}"
        where = (str(offset.partition), str(offset.start), str(offset.next), str(offset.skip), end, applied)
        offsets.add_row(offset.topic, *where)
    return [head, files, offsets]


def _optimizer(written: RowOptimizerRef) -> str:
    return f"{written.kind}, learning rate {written.learning_rate:g}"


def find_epoch(store: Store, epoch: int | None = None) -> Entry:
    """Returns a readable entry: the last commit, or that of `epoch`.

    Raises:
        NoSuchEpoch: there is none; names those that there are.
        CorruptFile: its manifest cannot be read.
    """
    entries = read_entries(store, 1 if epoch is None else EVERY_EPOCH)
    entry = next((e for e in entries if epoch is None or e.committed.epoch == epoch), None)
    if entry is None:
        raise NoSuchEpoch(_not_there(store, epoch, entries))
    if entry.manifest is None:
        raise CorruptFile(entry.committed.manifest, entry.problem)
    return entry


def find_pair(store: Store, older: int | None = None, newer: int | None = None) -> tuple[Manifest, Manifest]:
    """Returns two epochs to compare, the older one first; by default the last one and the one before the newer.

    Raises:
        NoSuchEpoch: one of them is not there, or they are not in order.
        CorruptFile: a manifest cannot be read.
    """
    after = find_epoch(store, newer).manifest
    assert after is not None
    if older is None:
        earlier = [e for e in read_entries(store, EVERY_EPOCH) if e.manifest and e.committed.epoch < after.epoch]
        if not earlier:
            raise NoSuchEpoch(f"{store.uri}: there is no epoch before {after.epoch} to compare with")
        return earlier[0].manifest or after, after
    before = find_epoch(store, older).manifest
    assert before is not None
    if before.epoch >= after.epoch:
        raise NoSuchEpoch(f"{store.uri}: epoch {before.epoch} is not older than epoch {after.epoch}: swap them")
    return before, after


def verify_last(store: Store) -> Manifest:
    """Reads every file of the last commit and checks its checksum.

    Raises:
        NoSuchEpoch: nothing is committed.
        NotRestorable: a restore would fall back, and why.
        CheckpointError: a file is not what the manifest says.
    """
    plan = find_restorable(store)
    if plan is None:
        raise NoSuchEpoch(f"{store.uri}: nothing is committed")
    if plan.skipped:
        raise NotRestorable("\n".join(f"epoch {entry.epoch}: {entry.reason}" for entry in plan.skipped))
    for file in plan.manifest.files:
        read_verified(store, file)
    return plan.manifest


def _not_there(store: Store, epoch: int | None, entries: Sequence[Entry]) -> str:
    if epoch is None or not entries:
        return f"{store.uri}: nothing is committed"
    there = ", ".join(str(e.committed.epoch) for e in entries[:10])
    return f"{store.uri}: epoch {epoch} is not committed, or retention has removed it\n  there are: {there}"


def _chain(kinds: list[str]) -> str:
    deltas = len(kinds) - 1
    return "full" if deltas < 1 else f"full + {deltas} delta{'s' if deltas > 1 else ''}"


def size_text(size: float) -> str:
    """Bytes for a person: `1.5 MiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
