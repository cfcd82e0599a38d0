"""`kuberec offsets show|reset`: options and what is printed; the work is done in `kuberec_runtime.offsets`."""

from typing import Annotated

import typer

from kuberec_runtime.cli.credentials import Properties, Sasl, Security, client_settings
from kuberec_runtime.cli.terminal import AsJson, Uri, console, fail, print_json, readable

app = typer.Typer(no_args_is_help=True, help="Where a training reads on, and how to make it read on elsewhere.")

Kafka = Annotated[str, typer.Option("--kafka", help="Brokers of the topic, host:port,...")]


@app.command("show")
def show(
    uri: Uri,
    kafka: Annotated[str | None, typer.Option("--kafka", help="Brokers, to see ends and lag too")] = None,
    security: Security = None,
    mechanism: Sasl = "ScramSha512",
    config: Properties = None,
    json_: AsJson = False,
) -> None:
    """Show the committed position of every partition of the newest epoch."""
    from kuberec_runtime.checkpoint import CheckpointError, open_store, read_log
    from kuberec_runtime.checkpoint.report import find_epoch
    from kuberec_runtime.offsets.standing import of_files, standings, standings_json, standings_table
    from kuberec_runtime.stream.ends import read_ends
    from kuberec_runtime.stream.source import SourceError

    with readable(CheckpointError, SourceError):
        store = open_store(uri)
        manifest = find_epoch(store).manifest
        assert manifest is not None
        newest = read_log(store).attempt
        if kafka and of_files(manifest.offsets):
            fail(f"{store.uri}: this training reads files; leave --kafka out")
        topics = {o.topic for o in manifest.offsets}
        ends = None
        if kafka and topics:
            ends = read_ends(kafka, next(iter(topics)), settings=client_settings(security, mechanism, config))
        rows = standings(manifest.offsets, ends)
    if json_:
        print_json(standings_json(store.uri, manifest, newest, rows))
        return
    above = "" if newest == manifest.attempt else f"; attempt {newest} has started since"
    print(f"{store.uri}: epoch {manifest.epoch} of attempt {manifest.attempt}, {manifest.samples:,} samples{above}")
    console().print(standings_table(rows))


@app.command("reset")
def reset(
    uri: Uri,
    to: Annotated[str, typer.Option("--to", help="earliest, latest, timestamp:MS or offsets:0=123,1=earliest")],
    kafka: Kafka,
    security: Security = None,
    mechanism: Sasl = "ScramSha512",
    config: Properties = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask")] = False,
    force: Annotated[bool, typer.Option("--force", help="Even if the training seems to be running")] = False,
) -> None:
    """Commit an epoch that differs from the newest one in its offsets only; what runs is fenced."""
    from datetime import UTC, datetime

    from kuberec_runtime.checkpoint import CheckpointError, open_store
    from kuberec_runtime.offsets import ResetRefused, TargetError, propose
    from kuberec_runtime.offsets.standing import moves_table
    from kuberec_runtime.stream.source import SourceError

    with readable(CheckpointError, SourceError, TargetError, ResetRefused):
        settings = client_settings(security, mechanism, config)
        proposal = propose(open_store(uri), to, kafka, datetime.now(UTC), settings)
        epoch = proposal.manifest.epoch
        console().print(moves_table(proposal.manifest.offsets, proposal.moved))
        if not proposal.changes:
            print(f"nothing to do: epoch {epoch} stands there already")
            return
        if proposal.alive and not force:
            fail(
                f"{uri}: {proposal.alive}\n  suspend it and look again a little later; if you know that it has "
                "stopped, or want to take the log from it, add --force"
            )
        if proposal.started_since is not None:
            print(f"attempt {proposal.started_since} has started after epoch {epoch} and has committed nothing yet")
        if not yes:
            typer.confirm(f"Commit these offsets as epoch {epoch + 1} of attempt {proposal.attempt}?", abort=True)
        done = proposal.commit()
    if done.before.epoch != epoch:
        print(f"epoch {done.before.epoch} was committed meanwhile, and this builds upon it:")
        console().print(moves_table(done.before.offsets, done.after.offsets))
    print(
        f"epoch {done.after.epoch} is committed by attempt {done.after.attempt}; whatever ran is fenced, "
        f"and the training goes on from here as attempt {done.after.attempt + 1} or higher"
    )
