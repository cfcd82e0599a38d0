"""`kuberec checkpoints ls|show|verify`: what is committed, what it is made of, and whether it can be restored."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from kuberec_runtime.checkpoint.errors import CheckpointError, CorruptFile, ObjectMissing
from kuberec_runtime.checkpoint.log import Committed, read_commits
from kuberec_runtime.checkpoint.manifest import Manifest, read_manifest
from kuberec_runtime.checkpoint.restore import find_restorable
from kuberec_runtime.checkpoint.rows import read_verified
from kuberec_runtime.checkpoint.store import Store, open_store

app = typer.Typer(no_args_is_help=True, help="What a training has committed, and whether it can be restored.")

Uri = Annotated[
    str, typer.Argument(help="s3://bucket/prefix, gs://, az:// or file:///path; credentials from AWS_* etc.")
]
RETENTION_GAP = 3
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document instead of a table")]


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
        "chain": [link.kind.value for link in manifest.chain],
        "bytes": sum(file.size for file in manifest.files),
        "published": manifest.published,
        "digest": manifest.digest,
        "metrics": manifest.metrics,
    }


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
            _bytes(line["bytes"]),
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
        "plan digest": manifest.digest,
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
            numbers = (str(file.width), f"{file.rows:,}", buckets, _bytes(file.size))
            files.add_row(link.kind.value, str(link.epoch), file.key, *numbers)
    if manifest.dense is not None:
        files.add_row("dense", str(manifest.epoch), manifest.dense.key, "", "", "", _bytes(manifest.dense.size))
    offsets = Table(box=None, header_style="bold")
    for name in ("topic", "partition", "start", "next", "skip", "end", "samples"):
        offsets.add_column(name, justify="left" if name == "topic" else "right")
    for offset in manifest.offsets:
        end = "-" if offset.end is None else str(offset.end)
        applied = f"{manifest.samples_by_partition.get(offset.partition, 0):,}"
        where = (str(offset.partition), str(offset.start), str(offset.next), str(offset.skip), end, applied)
        offsets.add_row(offset.topic, *where)
    return [head, files, offsets]


@app.command("ls")
def ls(uri: Uri, limit: Annotated[int, typer.Option(min=1)] = 20, json_: AsJson = False) -> None:
    """List committed epochs, newest first."""
    store, entries = _read(uri, limit)
    if json_:
        print(json.dumps([summary(entry) for entry in entries], indent=1))
    elif not entries:
        print(f"{uri}: nothing is committed")
    else:
        _console().print(entries_table(store, entries))


@app.command("show")
def show(
    uri: Uri, epoch: Annotated[int | None, typer.Option(help="The last one by default")] = None, json_: AsJson = False
) -> None:
    """Show what an epoch is made of."""
    store, entries = _read(uri, 1 if epoch is None else 10_000)
    chosen = [entry for entry in entries if epoch is None or entry.committed.epoch == epoch]
    if not chosen:
        _fail(
            f"{uri}: epoch {epoch} is not committed, or retention has removed it" if entries else f"{uri}: no commits"
        )
    entry = chosen[0]
    if entry.manifest is None:
        _fail(entry.problem)
    elif json_:
        print(entry.manifest.model_dump_json(by_alias=True, indent=1))
    else:
        for table in manifest_tables(store, entry):
            _console().print(table, "")


@app.command("verify")
def verify(uri: Uri) -> None:
    """Read every file of the last commit and check its checksum; exit 1 if a restore would have to fall back."""
    try:
        store = open_store(uri)
        plan = find_restorable(store)
        if plan is None:
            _fail(f"{uri}: nothing is committed")
        elif plan.skipped:
            _fail("\n".join(f"epoch {entry.epoch}: {entry.reason}" for entry in plan.skipped))
        else:
            for file in plan.manifest.files:
                read_verified(store, file)
            print(f"{uri}: epoch {plan.manifest.epoch} is whole, {len(plan.manifest.files)} files")
    except CheckpointError as error:
        _fail(str(error))


def _read(uri: str, limit: int) -> tuple[Store, list[Entry]]:
    try:
        store = open_store(uri)
        return store, read_entries(store, limit)
    except CheckpointError as error:
        _fail(str(error))
        raise


def _console() -> Console:
    """A pipe gets whole lines, however wide."""
    console = Console()
    return console if console.is_terminal else Console(width=160)


def _fail(message: str) -> None:
    Console(stderr=True, soft_wrap=True).print(f"[red]error[/red]: {message}", highlight=False)
    raise typer.Exit(1)


def _chain(kinds: list[str]) -> str:
    deltas = len(kinds) - 1
    return "full" if deltas < 1 else f"full + {deltas} delta{'s' if deltas > 1 else ''}"


def _bytes(size: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
