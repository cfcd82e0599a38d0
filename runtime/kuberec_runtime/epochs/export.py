"""An epoch as files that other tools read: Parquet for each table, safetensors, a Keras model, one page of JSON.

Everything is written into a hidden folder beside the wanted one, made durable and renamed: whoever finds the folder
finds all of it. An error or Ctrl-C removes the hidden folder; after a kill it stays, and nobody mistakes it for an
export. Memory holds the rows of one shard at a time.
"""

import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from featuregen.compiler import Plan, compile_plan, explain_difference
from kuberec_api import RecModel
from kuberec_api.layout import Layout, build_layout
from kuberec_runtime.checkpoint import Manifest, Store, TableRef
from kuberec_runtime.crashpoints import crash_here
from kuberec_runtime.epochs.network import write_network
from kuberec_runtime.epochs.parquet import export_rows
from kuberec_runtime.epochs.weights import export_weights
from kuberec_runtime.models.weights import read_weights

LAYOUT_FILE = "layout.json"
NETWORK_FILE = "network.keras"
WEIGHTS_FILE = "dense.safetensors"

Progress = Callable[[str, int, int], None]
"""Called with what is being written, how much of it is done, and how much there is."""


class ExportError(Exception):
    """What was asked for cannot be written; says how to mend it."""


@dataclass(frozen=True)
class Exported:
    """What an export wrote: the folder, rows by table, bytes of all files."""

    folder: Path
    rows: dict[str, int]
    bytes: int


def export_epoch(
    store: Store,
    manifest: Manifest,
    folder: Path,
    *,
    model: RecModel | None = None,
    with_state: bool = False,
    progress: Progress = lambda what, done, of: None,
) -> Exported:
    """Writes an epoch to a folder that does not exist yet (or is empty).

    Args:
        store: the checkpoint.
        manifest: the epoch.
        folder: where to; appears when everything is in it.
        model: writes the dense network as a Keras model too, and the slots of its input into the layout.
        with_state: optimizer state, frequency and last-seen of rows, and the optimizer state of dense weights.
        progress: told how far it is.

    Raises:
        ExportError: the folder is in use, the model is not the one of this epoch, or the epoch names no tables.
        FeatureError, NetworkError: the model does not compile.
        CorruptFile: a file of the epoch is missing or broken.
        StoreError: the store does not answer.
        OSError: the folder cannot be written.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ExportError(f"{folder}: exists already\n  remove it, or write to another folder with -o")
    plan, layout = (None, None) if model is None else _fitting(manifest, model)
    tables = manifest.tables if layout is None else _tables(layout)
    if not tables and any(link.files for link in manifest.chain):
        raise ExportError(
            f"{store.uri}: epoch {manifest.epoch} was written by a release that did not name its tables\n"
            "  name its model with --model"
        )
    with _all_or_nothing(folder) as partial:
        rows = export_rows(store, manifest, tables, partial / "tables", with_state, progress)
        weights = read_weights(store, manifest)
        described: dict[str, object] = {
            "format": 1,
            "checkpoint": store.uri,
            "epoch": manifest.epoch,
            "attempt": manifest.attempt,
            "createdAt": manifest.created_at,
            "samples": manifest.samples,
            "digest": manifest.digest,
            "libraries": manifest.libraries,
            "tables": [_table(t, rows.get(t.name, 0)) for t in tables],
        }
        if model is not None and layout is not None and plan is not None:
            progress(NETWORK_FILE, 0, 1)
            weights = write_network(model.spec, layout, weights, partial / NETWORK_FILE)
            described |= _network(layout)
            progress(NETWORK_FILE, 1, 1)
        described["dense"] = {"file": WEIGHTS_FILE, **export_weights(weights, partial / WEIGHTS_FILE, with_state)}
        (partial / LAYOUT_FILE).write_text(json.dumps(described, indent=1) + "\n")
        size = sum(path.stat().st_size for path in partial.rglob("*") if path.is_file())
    return Exported(folder, rows, size)


def _fitting(manifest: Manifest, model: RecModel) -> tuple[Plan, Layout]:
    """Compiles the model and makes sure that the epoch was trained with it."""
    plan = compile_plan(model.spec.features)
    name = f"recmodel/{model.metadata.name}"
    if plan.digest != manifest.digest:
        changed = ", ".join(explain_difference(manifest.plan or {}, plan.canonical)) or "unknown"
        raise ExportError(
            f"epoch {manifest.epoch} was trained with plan {manifest.digest[:8]}, {name} has plan {plan.digest[:8]}\n"
            f"  changed since: {changed}\n  give the model as it was then, or leave --model away"
        )
    layout = build_layout(model.spec, plan)
    wanted = {t.name: t for t in _tables(layout)}
    for table in manifest.tables:
        if wanted.get(table.name) != table:
            raise ExportError(
                f"epoch {manifest.epoch}: table '{table.name}' was trained as {_shape(table)}, {name} has "
                f"{_shape(wanted.get(table.name))}\n  give the model as it was then, or leave --model away"
            )
    return plan, layout


def _tables(layout: Layout) -> tuple[TableRef, ...]:
    return tuple(TableRef(name=t.name, ordinal=t.ordinal, dim=t.dim, linear=t.linear) for t in layout.tables.values())


def _shape(table: TableRef | None) -> str:
    if table is None:
        return "no such table"
    return f"dim {table.dim}{' with a linear weight' if table.linear else ''}"


def _table(table: TableRef, rows: int) -> dict[str, object]:
    return {
        "name": table.name,
        "ordinal": table.ordinal,
        "dim": table.dim,
        "linear": table.linear,
        "rows": rows,
        "file": f"tables/{table.name}.parquet",
    }


def _network(layout: Layout) -> dict[str, object]:
    slots = [
        {
            "output": slot.output,
            "table": slot.table.name if slot.table else None,
            "column": slot.column,
            "width": slot.width,
            "linearColumn": slot.linear_column if slot.linear_column >= 0 else None,
            "pooling": None if slot.table is None else "mean" if slot.mean else "sum",
        }
        for slot in layout.slots
    ]
    network = {"file": NETWORK_FILE, "input": f"float32[n, {layout.dimension}]", "output": "logits float32[n, 1]"}
    return {"network": network, "slots": slots}


@contextmanager
def _all_or_nothing(folder: Path) -> Iterator[Path]:
    """A hidden folder that becomes `folder` if the block ends well, and is removed if it does not."""
    folder = folder.absolute()
    partial = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.partial")
    partial.mkdir(parents=True)
    try:
        yield partial
        for path in [*partial.rglob("*"), partial]:
            _sync(path)
        crash_here("export.written")
        partial.rename(folder)
        _sync(folder.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
