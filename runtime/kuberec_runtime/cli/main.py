"""Commands and their options; what they do lives in the packages they call, imported only when a command runs."""

import logging
from pathlib import Path
from typing import Annotated

import typer

from kuberec_runtime.cli.checkpoints import app as checkpoints
from kuberec_runtime.cli.importing import import_file
from kuberec_runtime.cli.offsets import app as offsets
from kuberec_runtime.cli.replay import replay_command
from kuberec_runtime.cli.synth import synth

app = typer.Typer(
    name="kuberec",
    help="Recommendation models as Kubernetes resources. These commands work without Kubernetes.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(checkpoints, name="checkpoints", help="Look at the epochs of a checkpoint.")
app.add_typer(offsets, name="offsets", help="Look at the offsets of a training, or move them.")
app.command("synth")(synth)
app.command("replay")(replay_command)
app.command("import")(import_file)


@app.callback()
def _main(verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what happens inside")] = False) -> None:
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING, format="%(levelname)s %(name)s: %(message)s"
    )


@app.command()
def run(
    file: Annotated[Path, typer.Option("--file", "-f", help="YAML with a RecModel, a RecTraining, maybe a RecServing")],
    kafka: Annotated[str | None, typer.Option(help="Instead of the file's bootstrapServers")] = None,
    redis: Annotated[str | None, typer.Option(help="Instead of publish.redis.url")] = None,
    checkpoint: Annotated[str | None, typer.Option(help="Instead of checkpoint.uri, e.g. file:///tmp/feed")] = None,
    stop_at_end: Annotated[bool, typer.Option("--stop-at-end", help="Stop at the present end of the topic")] = False,
    serve: Annotated[bool, typer.Option(help="Start the RecServing of the file too")] = True,
    files: Annotated[Path | None, typer.Option(help="Folder of the files that features read, by name")] = None,
    folder: Annotated[Path, typer.Option(help="For status, input and logs")] = Path(".kuberec"),
    profile: Annotated[
        bool, typer.Option("--profile", help="Show at the end where the time went; keep a trace")
    ] = False,
) -> None:
    """Run the resources of a file on this machine: train, publish and serve, as on Kubernetes."""
    from kuberec_runtime.cli.run import run_file
    from kuberec_runtime.local.resources import Overrides

    overrides = Overrides(bootstrap_servers=kafka, redis_url=redis, checkpoint_uri=checkpoint, stop_at_end=stop_at_end)
    raise typer.Exit(run_file(file, overrides, folder.resolve(), serve, files, profile))


@app.command()
def validate(
    file: Annotated[Path, typer.Option("--file", "-f", help="YAML with resources")],
    files: Annotated[Path | None, typer.Option(help="Check the files in this folder that features read, too")] = None,
) -> None:
    """Check a file as the operator would: types, features, network; prints the plan's digest and outputs."""
    from kuberec_runtime.cli.run import validate_file

    raise typer.Exit(validate_file(file, files))
