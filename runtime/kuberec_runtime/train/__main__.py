"""The RayJob's entrypoint, `python -m kuberec_runtime.train --input FILE`: runs one attempt, exits with its class."""

import argparse
import logging
import os
import signal
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from kuberec_runtime.train.driver import Driver
from kuberec_runtime.train.exitcode import EX_SOFTWARE, RETRY, classify
from kuberec_runtime.train.fleet import Fleet
from kuberec_runtime.train.job import InvalidInputError, Job, TrainingInput
from kuberec_runtime.train.session import ray_session
from kuberec_runtime.train.status import open_sink
from kuberec_runtime.train.waiting import Stopped

logger = logging.getLogger("kuberec_runtime.train")


def main() -> int:
    """Parses the command line and runs the attempt on Ray."""
    parser = argparse.ArgumentParser(prog="python -m kuberec_runtime.train", description=__doc__)
    parser.add_argument("--input", type=Path, required=True, help="JSON with the model, the training and the attempt")
    parser.add_argument(
        "--local", action="store_true", help="start a Ray of its own on loopback instead of joining the cluster"
    )
    arguments = parser.parse_args()
    return attempt_of(arguments.input, session=lambda job: ray_session(job, arguments.local))


def attempt_of(
    path: Path,
    fleet: Callable[[Job], Fleet] = Fleet,
    session: Callable[[Job], AbstractContextManager[None]] = lambda _: nullcontext(),
) -> int:
    """Runs the attempt of an input file and writes its outcome.

    Returns:
        0 when it ended as asked, 64..78 when a retry cannot help, else 1.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        given = TrainingInput.read(path)
    except InvalidInputError as error:
        print(f"error: {error}", file=sys.stderr)
        return classify(error).exit_code
    meta = given.training.metadata
    sink = open_sink(os.environ.get("KUBEREC_STATUS", "terminal"), meta.namespace, meta.name)
    job = Job.of(given)
    driver = Driver(job, sink, fleet(job))
    message, newest = "", None
    try:
        _end_in_order(driver)
        with session(job):
            _end_in_order(driver)  # again: `ray.init` puts a handler of its own in place, which ends without a last cut
            reason = driver.run()
        code = RETRY if reason == "Preempted" else 0
    except Stopped as stopped:
        reason = str(stopped)
        code = RETRY if reason == "Preempted" else 0
    except Exception as error:
        ending = classify(error)
        reason, message, code = ending.reason, str(error), ending.exit_code
        newest = driver.newest_attempt() if code == EX_SOFTWARE else None
        logger.error("attempt %d ends: %s: %s", job.attempt, reason, message, exc_info=code == RETRY)
    driver.board.outcome(job.attempt, reason, message, code not in (0, RETRY), code, newest)
    sink.write(driver.board.status)
    sink.close()
    return code


def _end_in_order(driver: Driver) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: driver.stop("Preempted"))


if __name__ == "__main__":
    sys.exit(main())
