"""`kuberec replay`: options, and what their outcome is worth as an exit code."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from kuberec_runtime.cli.credentials import Properties, Sasl, Security, client_settings
from kuberec_runtime.cli.terminal import Bars, console

if TYPE_CHECKING:
    from featuregen.replay.check import Report
    from kuberec_runtime.replay.jobs import Job, Message
    from kuberec_runtime.replay.logs import Topic

EQUAL, DIFFERENT = 0, 1
NOT_COMPARABLE, NO_LOG, BAD_MODEL = 65, 66, 78
"""As in sysexits.h: data of another plan or none at all, no input, a wrong configuration."""

_SHOWN = 10


def replay_command(
    snapshots: Annotated[
        str, typer.Argument(help="Folder, glob or file of Parquet, s3://bucket/prefix, or kafka://host:port/topic")
    ],
    model: Annotated[Path, typer.Option("--model", "-m", help="YAML with the RecModel to prove")],
    report: Annotated[Path | None, typer.Option(help="Write what was found as JSON")] = None,
    metrics: Annotated[Path | None, typer.Option(help="Write Prometheus gauges (textfile collector)")] = None,
    parallel: Annotated[int, typer.Option(min=1, help="Processes; with --distributed, actors")] = 1,
    distributed: Annotated[bool, typer.Option("--distributed", help="As a Ray Data job (RAY_ADDRESS)")] = False,
    events: Annotated[
        list[str] | None,
        typer.Option(help="Parquet of raw events (user, item, action, ts, ...): FILE, or BEHAVIOR=FILE for each"),
    ] = None,
    files: Annotated[Path | None, typer.Option(help="Folder of the files that the features name")] = None,
    save: Annotated[Path | None, typer.Option(help="Keep what a topic holds as Parquet in this folder")] = None,
    security: Security = None,
    mechanism: Sasl = "ScramSha512",
    config: Properties = None,
) -> None:
    """Compute logged requests again and compare every feature with what was served.

    Exit code 0: equal in every bit. 1: something differs. 65: requests of another plan, or unreadable ones. 66: no log.
    78: the model is wrong.
    """
    from featuregen.compiler import compile_plan
    from featuregen.errors import FeatureError
    from featuregen.replay.snapshot import SnapshotError
    from kuberec_runtime.checkpoint.errors import StoreError
    from kuberec_runtime.local.resources import ResourceFileError, read_model
    from kuberec_runtime.replay.jobs import Job
    from kuberec_runtime.replay.logs import NoLogError
    from kuberec_runtime.replay.show import write_metrics
    from kuberec_runtime.stream.source import SourceError

    try:
        resource = read_model(model)
        plan = compile_plan(resource.spec.features)
        job = Job(plan, files, event_files(events or [], list(plan.behaviors)))
        if not distributed:
            job.replayer()  # what does not fit the plan is said here, not in another process
        settings = client_settings(security, mechanism, config)
        found = _replayed(job, snapshots, parallel, distributed, save, settings)
    except (ResourceFileError, FeatureError) as error:
        raise _ended(str(error), BAD_MODEL) from None
    except (NoLogError, SnapshotError, StoreError, SourceError, OSError) as error:
        raise _ended(str(error), NO_LOG) from None
    if report is not None:
        report.write_text(json.dumps({"plan": plan.digest, **found.to_json()}, indent=1, default=str))
    if metrics is not None:
        write_metrics(metrics, resource.metadata.name, found)
    _print(found, plan.digest)
    raise typer.Exit(outcome(found))


def outcome(report: "Report") -> int:
    """Returns the exit code: a difference outweighs what could not be compared, and no request at all is no success."""
    if report.mismatches:
        return DIFFERENT
    if report.other_plans or report.unreadable:
        return NOT_COMPARABLE
    return EQUAL if report.requests else NO_LOG


def _replayed(
    job: "Job", where: str, processes: int, distributed: bool, save: Path | None, settings: Mapping[str, object]
) -> "Report":
    from featuregen.replay.check import Report, Tally
    from kuberec_runtime.replay.jobs import groups, replay, replay_on_ray
    from kuberec_runtime.replay.logs import NoLogError, arrow_paths, find_parts, parse_topic, saving

    total = Report(features={output.name: Tally() for output in job.plan.outputs})
    with Bars() as bars:
        if where.startswith("kafka://"):
            if distributed:
                raise NoLogError(f"{where}: Ray Data reads files: run once with --save FOLDER, then replay that folder")
            messages = _shown(parse_topic(where), settings, bars)
            for found in replay(job, groups(messages if save is None else saving(messages, save)), processes):
                total.add(found)
        elif save is not None:
            raise NoLogError(f"{where}: --save keeps a topic; these are files already")
        elif distributed:
            for found in replay_on_ray(job, *arrow_paths(where), processes):
                total.add(found)
                bars.show("requests", total.seen, total.seen)
            if total.other_plans:  # Ray Data drops the metadata that explains them: one file is read here for it
                first = next(replay(job, find_parts(where)[:1], 1))
                for plan, other in first.other_plans.items():
                    total.other_plans[plan].differences = other.differences
        else:
            parts = find_parts(where, split=processes > 1)
            for done, found in enumerate(replay(job, parts, processes), start=1):
                total.add(found)
                bars.show("parts", done, len(parts))
    return total


def _shown(topic: "Topic", settings: Mapping[str, object], bars: Bars) -> Iterator["Message"]:
    from kuberec_runtime.replay.logs import read_topic

    for where, message, seen, total in read_topic(topic, settings):
        bars.show("messages", seen, total)
        yield where, message


def event_files(given: list[str], behaviors: list[str]) -> dict[str, str]:
    """Returns behaviour -> file. A name may be left out if the plan reads one behaviour."""
    from featuregen.errors import FeatureError

    found = {}
    for one in given:
        name, equals, path = one.partition("=")
        if not equals and len(behaviors) != 1:
            hint = f"write --events BEHAVIOR=FILE; behaviours that are read: {', '.join(behaviors) or 'none'}"
            raise FeatureError(None, f"--events {one}: of which behaviour?", hint)
        found[name if equals else behaviors[0]] = path if equals else one
    return found


def _print(report: "Report", plan: str) -> None:
    from kuberec_runtime.replay.show import behaviors_table, features_table

    screen, problems = console(), Console(stderr=True, soft_wrap=True)
    if report.requests:
        screen.print(features_table(report))
    if report.behaviors:
        screen.print(behaviors_table(report))
    for digest, other in report.other_plans.items():
        _plain(problems, f"{other.requests} requests of plan {digest[:8]} were left out; this model has {plan[:8]}")
        for line in other.differences:
            _plain(problems, f"  {line}")
    for line in report.unreadable[:_SHOWN]:
        _plain(problems, f"unreadable: {line}")
    if len(report.unreadable) > _SHOWN:
        _plain(problems, f"... and {len(report.unreadable) - _SHOWN} more (see --report)")
    wrong = sum(1 for tally in report.features.values() if tally.mismatches)
    print(f"plan {plan[:8]}: {report.requests} requests, {report.mismatches} mismatches in {wrong} features")


def _plain(screen: Console, text: str) -> None:
    """Prints text that may look like markup."""
    screen.print(text, markup=False, highlight=False)


def _ended(message: str, code: int) -> typer.Exit:
    _plain(Console(stderr=True, soft_wrap=True), f"error: {message}")
    return typer.Exit(code)
