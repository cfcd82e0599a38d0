"""Runs a replay: in this process, in several, or as a Ray Data job. Each reads parts of a log; their reports add up."""

import json
import logging
import multiprocessing
import os
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from featuregen.plan import Plan
from featuregen.replay.check import Replayer, Report
from featuregen.replay.events import EventLog
from featuregen.replay.snapshot import SnapshotError, read_message
from kuberec_runtime.checkpoint.errors import StoreError
from kuberec_runtime.replay.logs import Part, read_part

Message = tuple[str, bytes]
"""Where a message is, and its bytes."""

_MESSAGES_AT_ONCE = 16
_RAY_BATCH = 64


@dataclass(frozen=True)
class Job:
    """What to replay with; small enough to send to any process.

    Attributes:
        plan: the plan to prove.
        files: folder of the files that it names.
        events: behaviour -> a Parquet file of raw events, to make behaviours from.
    """

    plan: Plan
    files: Path | None = None
    events: Mapping[str, str] = field(default_factory=dict)

    def replayer(self) -> Replayer:
        """Returns what one thread replays with.

        Raises:
            FeatureError: files or events do not fit the plan.
        """
        logs = {name: EventLog(self.plan, name, pq.read_table(path)) for name, path in self.events.items()}
        return Replayer(self.plan, self.files, logs)


def replay(job: Job, work: Iterable[Part | list[Message]], processes: int) -> Iterator[Report]:
    """Replays parts of files, or messages of a topic, here or in several processes; yields a report for each, in order.

    Raises:
        FeatureError: the job's files or events do not fit its plan.
    """
    if processes <= 1:
        yield from map(_Reader(job).check, work)
        return
    spawn = multiprocessing.get_context("spawn")  # numba, Arrow and obstore do not survive a fork
    with ProcessPoolExecutor(processes, spawn, _start, (job,)) as pool:
        running: deque[Future[Report]] = deque()
        for one in work:
            running.append(pool.submit(_check, one))
            if len(running) > 2 * processes:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()


def groups(messages: Iterator[Message]) -> Iterator[list[Message]]:
    """Yields messages a few at a time: work for one process."""
    return iter(lambda: list(islice(messages, _MESSAGES_AT_ONCE)), [])


def replay_on_ray(job: Job, paths: list[str], filesystem: Any, actors: int) -> Iterator[Report]:
    """Replays Parquet files as a Ray Data job on the cluster of RAY_ADDRESS, or one of this machine's own.

    Args:
        job: what to replay with; files and events must be where every node can read them.
        paths: Parquet files.
        filesystem: that they are on, None to tell by the paths.
        actors: how many replay at most; each takes a core.

    Yields:
        A report for each batch, in no order.
    """
    import ray

    address = os.environ.get("RAY_ADDRESS", "local")
    # Actors that hold every core would leave none to the tasks that read for them.
    own = {"include_dashboard": False, "num_cpus": actors + 1} if address == "local" else {}
    ray.init(address, ignore_reinit_error=True, log_to_driver=False, logging_level=logging.WARNING, **own)
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    reports = ray.data.read_parquet(paths, filesystem=filesystem).map_batches(
        _RayReplayer,
        fn_constructor_args=(job,),
        batch_format="pyarrow",
        batch_size=_RAY_BATCH,
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=actors),
    )
    for row in reports.iter_rows():
        yield Report.from_json(json.loads(row["report"]))


class _RayReplayer:
    def __init__(self, job: Job) -> None:
        self._replayer = job.replayer()

    def __call__(self, rows: pa.Table) -> pa.Table:
        report = self._replayer.check(rows.combine_chunks().to_batches())
        return pa.table({"report": [json.dumps(report.to_json())]})


class _Reader:
    def __init__(self, job: Job) -> None:
        self._replayer = job.replayer()

    def check(self, work: Part | list[Message]) -> Report:
        if isinstance(work, Part):
            return self._checked(str(work), read_part(work))
        total = Report()
        for where, message in work:
            total.add(self._checked(where, map(read_message, [message])))
        return total

    def _checked(self, where: str, batches: Iterator[pa.RecordBatch]) -> Report:
        try:
            return self._replayer.check(batches)
        except (SnapshotError, StoreError) as error:
            return Report(unreadable=[f"{where}: {error}"])


_READERS: list[_Reader] = []
"""The one reader of a pool's process."""


def _start(job: Job) -> None:
    _READERS.append(_Reader(job))


def _check(work: Part | list[Message]) -> Report:
    return _READERS[0].check(work)
