"""The RayJob's entrypoint, `python -m kuberec_runtime.train --input FILE`: runs one attempt, exits with its class."""

import argparse
import logging
import os
import signal
import sys
from pathlib import Path

from kuberec_api.meta import ObjectMeta


def main() -> int:
    """Runs one attempt; returns 0 when it ended as asked, 64..78 when a retry cannot help, else 1."""
    parser = argparse.ArgumentParser(prog="python -m kuberec_runtime.train", description=__doc__)
    parser.add_argument("--input", type=Path, required=True, help="JSON with the model, the training and the attempt")
    parser.add_argument(
        "--local", action="store_true", help="start a Ray of its own on loopback instead of joining the cluster"
    )
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from kuberec_runtime.train.driver import Driver, Stopped
    from kuberec_runtime.train.exitcode import EX_SOFTWARE, classify
    from kuberec_runtime.train.job import InvalidInputError, Job, TrainingInput
    from kuberec_runtime.train.session import ray_session
    from kuberec_runtime.train.status import open_sink

    try:
        given = TrainingInput.read(arguments.input)
    except InvalidInputError as error:
        print(f"error: {error}", file=sys.stderr)
        return classify(error).exit_code
    meta: ObjectMeta = given.training.metadata
    sink = open_sink(os.environ.get("KUBEREC_STATUS", "terminal"), meta.namespace, meta.name)
    job = Job.of(given)
    driver = Driver(job, sink)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: driver.stop("Preempted"))
    reason, message, code = "", "", 0
    newest: int | None = None
    try:
        with ray_session(job, arguments.local):
            reason = driver.run()
    except Stopped as stopped:
        reason = str(stopped)
    except BaseException as error:
        ending = classify(error)
        reason, message, code = ending.reason, str(error), ending.exit_code
        if code == EX_SOFTWARE:
            newest = driver.newest_attempt()
        logging.getLogger(__name__).error("attempt %d ends: %s: %s", job.attempt, reason, message, exc_info=code == 1)
    if reason == "Preempted":
        code = 1
    driver.board.outcome(job.attempt, reason, message, 64 <= code <= 78, code, newest)
    sink.write(driver.board.status)
    sink.close()
    return code


if __name__ == "__main__":
    sys.exit(main())
