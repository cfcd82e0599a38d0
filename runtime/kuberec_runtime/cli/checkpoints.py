"""`kuberec checkpoints ls|show|verify|diff|export`: options and what is printed; the work is done by what they call."""

from pathlib import Path
from typing import Annotated

import typer

from kuberec_runtime.cli.terminal import AsJson, Bars, Uri, console, print_json, readable

app = typer.Typer(no_args_is_help=True, help="What a training has committed, and whether it can be restored.")

Epoch = Annotated[int | None, typer.Option(help="The last one by default")]


@app.command("ls")
def ls(uri: Uri, limit: Annotated[int, typer.Option(min=1)] = 20, json_: AsJson = False) -> None:
    """List committed epochs, newest first."""
    from kuberec_runtime.checkpoint import CheckpointError, open_store
    from kuberec_runtime.checkpoint.report import entries_table, read_entries, summary

    with readable(CheckpointError):
        store = open_store(uri)
        entries = read_entries(store, limit)
    if json_:
        print_json([summary(entry) for entry in entries])
    elif not entries:
        print(f"{uri}: nothing is committed")
    else:
        console().print(entries_table(store, entries))


@app.command("show")
def show(uri: Uri, epoch: Epoch = None, json_: AsJson = False) -> None:
    """Show what an epoch is made of."""
    from kuberec_runtime.checkpoint import CheckpointError, open_store
    from kuberec_runtime.checkpoint.report import find_epoch, manifest_tables

    with readable(CheckpointError):
        store = open_store(uri)
        entry = find_epoch(store, epoch)
    assert entry.manifest is not None
    if json_:
        print(entry.manifest.model_dump_json(by_alias=True, indent=1))
        return
    for table in manifest_tables(store, entry):
        console().print(table, "")


@app.command("verify")
def verify(uri: Uri) -> None:
    """Read every file of the last commit and check its checksum; exit 1 if a restore would have to fall back."""
    from kuberec_runtime.checkpoint import CheckpointError, open_store
    from kuberec_runtime.checkpoint.report import verify_last

    with readable(CheckpointError):
        manifest = verify_last(open_store(uri))
    print(f"{uri}: epoch {manifest.epoch} is whole, {len(manifest.files)} files")


@app.command("diff")
def diff(
    uri: Uri,
    from_: Annotated[int | None, typer.Option("--from", help="Older epoch; by default the one before")] = None,
    to: Annotated[int | None, typer.Option("--to", help="Newer epoch; by default the last one")] = None,
    json_: AsJson = False,
) -> None:
    """Show what changed between two epochs: offsets, rows, dense weights, metrics, plan, libraries."""
    from kuberec_runtime.checkpoint import CheckpointError, open_store
    from kuberec_runtime.checkpoint.report import find_pair
    from kuberec_runtime.epochs.changes import as_json, compare
    from kuberec_runtime.epochs.report import change_tables

    with readable(CheckpointError):
        store = open_store(uri)
        changes = compare(store, *find_pair(store, from_, to))
    if json_:
        print_json(as_json(changes))
        return
    for table in change_tables(changes):
        console().print(table, "")


@app.command("export")
def export(
    uri: Uri,
    out: Annotated[Path, typer.Option("--out", "-o", help="A folder that does not exist yet")],
    epoch: Epoch = None,
    model: Annotated[Path | None, typer.Option(help="YAML with the RecModel: writes the dense network too")] = None,
    with_state: Annotated[bool, typer.Option("--with-state", help="Optimizer state and counters too")] = False,
) -> None:
    """Write an epoch as Parquet (embeddings), safetensors (dense weights) and, with --model, a Keras model."""
    from featuregen.errors import FeatureError
    from kuberec_api.layout import NetworkError
    from kuberec_runtime.checkpoint import CheckpointError, open_store
    from kuberec_runtime.checkpoint.report import find_epoch, size_text
    from kuberec_runtime.epochs.export import ExportError, export_epoch
    from kuberec_runtime.local.resources import ResourceFileError, read_model

    with readable(CheckpointError, ExportError, FeatureError, NetworkError, ResourceFileError, OSError):
        resource = None if model is None else read_model(model)
        store = open_store(uri)
        manifest = find_epoch(store, epoch).manifest
        assert manifest is not None
        with Bars() as bars:
            done = export_epoch(store, manifest, out, model=resource, with_state=with_state, progress=bars.show)
    rows = ", ".join(f"{name} {count:,}" for name, count in done.rows.items())
    print(f"{done.folder}: epoch {manifest.epoch}, {size_text(done.bytes)}; rows: {rows or 'none'}")
