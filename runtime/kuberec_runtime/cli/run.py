"""`kuberec run`: a training and its serving on this machine, with a line of progress that a person can follow."""

import os
import signal
import threading
from pathlib import Path
from types import FrameType

from rich.console import Console
from rich.table import Table

from featuregen.compiler import compile_plan
from featuregen.engine import Engine
from featuregen.errors import FeatureError
from featuregen.files import FOLDER_VARIABLE, read_files
from kuberec_api.layout import NetworkError, build_layout
from kuberec_api.training import RecTrainingStatus
from kuberec_runtime.checkpoint import CheckpointError
from kuberec_runtime.local.resources import Overrides, ResourceFileError, localize, read_model, read_resources
from kuberec_runtime.local.supervisor import TrainingFailedError, TrainingProcess
from kuberec_runtime.spans import VARIABLE as PROFILE_VARIABLE
from kuberec_runtime.train.profile import read_rows, rendered, trace_path

LOOK_EVERY_S = 0.5


def validate_file(path: Path, files: Path | None = None) -> int:
    """Prints what the file compiles to; returns 0, or 78 after printing what is wrong.

    Args:
        path: YAML with a RecModel.
        files: folder of the files that features read; their content is checked if it is given.
    """
    console = Console()
    try:
        spec = read_model(path).spec
        plan = compile_plan(spec.features)
        layout = build_layout(spec, plan)
        if files is not None:
            Engine(plan, files=files)
    except (ResourceFileError, FeatureError, NetworkError) as error:
        return _refused(error)
    table = Table("output", "kind", "side", "table", "buckets", "dim")
    for output in plan.outputs:
        dim = str(layout.tables[output.table].dim) if output.table in layout.tables else str(output.width or "-")
        table.add_row(output.name, output.kind, output.side, output.table or "-", str(output.buckets or "-"), dim)
    console.print(table)
    console.print(f"plan {plan.digest[:8]}, {layout.dimension} columns, {len(layout.tables)} tables")
    if plan.files and files is None:
        named = ", ".join(file.name for file in plan.files)
        console.print(f"files that were not looked at (give --files): {named}", markup=False)
    return 0


def _refused(error: Exception) -> int:
    Console(stderr=True).print(f"error: {error}", markup=False, highlight=False, soft_wrap=True)
    return 78


def run_file(
    path: Path, overrides: Overrides, folder: Path, serve: bool, files: Path | None = None, profile: bool = False
) -> int:
    """Runs until the training ends or a signal comes; returns the exit code.

    Args:
        path: YAML with a RecModel, a RecTraining and maybe a RecServing.
        overrides: addresses and limits instead of the file's.
        folder: for status, input and logs.
        serve: starts the RecServing too.
        files: folder of the files that features read; `$KUBEREC_FILES` or /etc/kuberec/files unless given.
        profile: measures where the time goes and shows it at the end, see `spans`.
    """
    console = Console()
    if profile:
        os.environ[PROFILE_VARIABLE] = str(folder / "profile")
    if files is not None:
        os.environ[FOLDER_VARIABLE] = str(files.resolve())  # training and serving are children of this process
    try:
        resources = localize(read_resources(path), overrides)
        read_files(compile_plan(resources.model.spec.features))
    except (ResourceFileError, FeatureError) as error:
        return _refused(error)
    asked = threading.Event()

    def stop(_number: int, _frame: FrameType | None) -> None:
        asked.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    training = TrainingProcess(resources, folder)
    server = None
    try:
        training.start()
        console.print(
            f"attempt {training.attempt} of rectraining/{resources.training.metadata.name}; log {training.log_path}"
        )
        with console.status("starting", spinner="dots") as line:
            while training.poll() and not asked.wait(LOOK_EVERY_S):
                status = training.status()
                line.update(describe(training.attempt, status))
                if serve and server is None and resources.serving and status and status.publication:
                    from kuberec_runtime.serve.local import start_serving

                    server = start_serving(resources.serving, resources.model, resources.training)
                    console.print(f"serving at {server.url}")
        console.print(describe(training.attempt, training.status()))
        return 0
    except (TrainingFailedError, CheckpointError) as error:
        Console(stderr=True).print(f"error: {error}", markup=False, highlight=False)
        return 1
    finally:
        training.stop()
        if server is not None:
            server.stop()
        if profile:
            _show_profile(console, folder / "profile", training)


def _show_profile(console: Console, folder: Path, training: TrainingProcess) -> None:
    """Prints the table of the last attempt's profile and where its trace is."""
    try:
        console.print(rendered(read_rows(folder, training.attempt)))
    except FileNotFoundError:
        console.print(f"no profile: attempt {training.attempt} did not come to an orderly end; see {training.log_path}")
        return
    console.print(f"trace for ui.perfetto.dev: {trace_path(folder, training.attempt)}", soft_wrap=True)


def describe(attempt: int, status: RecTrainingStatus | None) -> str:
    """One line about a status."""
    if status is None or status.progress is None:
        return f"attempt {attempt}: starting Ray, shards and workers"
    p = status.progress
    parts = [f"attempt {attempt}", f"step {p.step}", f"{p.samples:,} samples", f"{p.samples_per_second:,.0f}/s"]
    parts += [f"lag {p.lag:,}"] if p.lag is not None else []
    parts += [f"loss {p.loss:.4f}"] if p.loss is not None else []
    parts += [f"auc {p.auc:.4f}"] if p.auc is not None else []
    parts += [f"epoch {status.checkpoint.epoch}"] if status.checkpoint else []
    parts += [f"published {status.publication.version}"] if status.publication else []
    troubles = [c for c in status.conditions if c.status == "True" and c.message]
    return "  ".join(parts) + "".join(f"\n  {c.type}: {c.reason}: {c.message}" for c in troubles)
